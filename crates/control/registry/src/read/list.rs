//! Lists: at the newest or a given revision, page by page.

use super::continuation::Continuation;
use super::{store_status, version};
use crate::cache::{Entry, Resource, Selection, Snapshot, after};
use crate::object::{List, Object};
use crate::registry::Registry;
use crate::request::{ListOptions, VersionMatch};
use pintle_kinds::ResourceDef;
use pintle_store::{KeyRange, RangeRequest, Revision, StoreError};
use pintle_types::Status;
use std::sync::Arc;

const TOO_OLD_TO_LIST: &str = "The resourceVersion for the provided list is too old.";

const TOO_OLD_TO_CONTINUE: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list without \
     the continue parameter, or use the continue token in this response to retrieve the remainder of the results. \
     Continuing with the provided token results in an inconsistent list - objects that were created, modified, or \
     deleted between the time the first chunk was returned and now may show up in the list.";

/// Entries of a list, before they are shown.
pub(crate) struct Page {
    pub revision: Revision,
    pub entries: Vec<Arc<Entry>>,
    next: Option<Continuation>,
    remaining: Option<u64>,
}

impl Registry {
    pub async fn list(&self, def: &ResourceDef, ns: &str, options: &ListOptions) -> Result<List, Status> {
        let page = self.page(def, ns, options).await?;
        Ok(List {
            api_version: def.api_version(),
            kind: def.list_kind.clone(),
            revision: page.revision,
            continue_token: page.next.map(|next| next.encode()).unwrap_or_default(),
            remaining: page.remaining,
            items: crate::convert::shown(def, page.entries.into_iter().map(Object::Stored).collect()).await?,
            bare_items: def.schema.is_none(),
        })
    }

    pub(crate) async fn page(&self, def: &ResourceDef, ns: &str, options: &ListOptions) -> Result<Page, Status> {
        let resource = self.resource(def)?;
        let mut selection = self.selection(def, &resource, ns, &options.labels, &options.fields)?;
        let (snapshot, shown) = if options.continue_token.is_empty() {
            self.start(&resource, options).await?
        } else {
            self.go_on(&resource, &mut selection, options).await?
        };
        // Without a revision of its own a list from the cache is not cut, as upstream's is not.
        let limit =
            if options.resource_version == "0" && options.continue_token.is_empty() { 0 } else { options.limit };
        Ok(cut(&resource, &snapshot, &selection, limit, shown))
    }

    /// The objects that a new list shows, and the revision that it has.
    async fn start(&self, resource: &Resource, options: &ListOptions) -> Result<(Arc<Snapshot>, Revision), Status> {
        let asked = version::parse(&options.resource_version);
        let asked = asked.map_err(|why| Status::bad_request(format!("invalid resource version: {why}")))?;
        let exact = options.version_match == Some(VersionMatch::Exact)
            || (options.version_match.is_none() && options.limit > 0 && asked.is_some_and(|revision| revision > 0));
        match asked {
            None => drop(self.reach_newest().await?),
            Some(revision) => drop(self.reach(revision).await?),
        }
        match asked {
            Some(revision) if exact => {
                let snapshot = self.past(resource, revision).await.map_err(|error| match error {
                    StoreError::Compacted { .. } => Status::expired(TOO_OLD_TO_LIST),
                    error => store_status(error),
                })?;
                Ok((snapshot, revision))
            }
            _ => {
                // In this order: what the cache had reached is in the snapshot that is taken after it.
                let reached = self.cache.shared.reached();
                let snapshot = resource.snapshot();
                let shown = reached.max(snapshot.revision);
                Ok((snapshot, shown))
            }
        }
    }

    /// The objects that the next page shows; narrows the selection to those after the last page.
    async fn go_on(
        &self,
        resource: &Resource,
        selection: &mut Selection,
        options: &ListOptions,
    ) -> Result<(Arc<Snapshot>, Revision), Status> {
        if !options.resource_version.is_empty() && options.resource_version != "0" {
            let why = "specifying resource version is not allowed when using continue";
            return Err(Status::bad_request(why));
        }
        let continuation = Continuation::decode(&options.continue_token)?;
        let start = format!("{}/{}", resource.spec.prefix, continuation.start);
        if selection.range.end.is_some() && selection.range.start < start.as_bytes() {
            selection.range.start = start.into();
        }
        let Some(revision) = continuation.revision else {
            let newest = self.reach_newest().await?;
            let snapshot = resource.snapshot();
            let shown = newest.max(snapshot.revision);
            return Ok((snapshot, shown));
        };
        self.reach(revision).await?;
        match self.past(resource, revision).await {
            Ok(snapshot) => Ok((snapshot, revision)),
            Err(StoreError::Compacted { .. }) => {
                let anew = Continuation { revision: None, start: continuation.start };
                let mut status = Status::expired(TOO_OLD_TO_CONTINUE);
                status.metadata.insert("continue".into(), anew.encode().into());
                Err(status)
            }
            Err(error) => Err(store_status(error)),
        }
    }

    /// A resource at a revision that the cache has reached: from memory, or from the store.
    async fn past(&self, resource: &Resource, revision: Revision) -> Result<Arc<Snapshot>, StoreError> {
        if let Ok(snapshot) = resource.at(revision) {
            return Ok(snapshot);
        }
        let range = KeyRange::prefix(format!("{}/", resource.spec.prefix));
        let stored = self.store.range(RangeRequest { range, at: Some(revision), limit: 0 }).await?;
        Ok(Arc::new(resource.read_past(revision, &stored.kvs)))
    }
}

/// The part of a snapshot that one page shows.
fn cut(resource: &Resource, snapshot: &Snapshot, selection: &Selection, limit: usize, shown: Revision) -> Page {
    let mut all = snapshot.range(&selection.range);
    if limit == 0 {
        let entries = all.filter(|entry| selection.selects(entry)).cloned().collect();
        return Page { revision: shown, entries, next: None, remaining: None };
    }
    let entries: Vec<Arc<Entry>> = all.by_ref().filter(|entry| selection.selects(entry)).take(limit).cloned().collect();
    // As upstream: whether what follows is selected is not looked at, so that the last page may be empty.
    let rest = entries.len() == limit && all.next().is_some();
    let next = entries.last().filter(|_| rest).map(|last| {
        let key = after(&last.key()[resource.spec.prefix.len() + 1..]);
        Continuation { revision: Some(shown), start: String::from_utf8_lossy(&key).into_owned() }
    });
    // As upstream: only told when nothing is filtered out. One was taken to see whether there is a rest.
    let remaining = (rest && selection.selects_all()).then(|| 1 + all.count() as u64);
    Page { revision: shown, entries, next, remaining }
}

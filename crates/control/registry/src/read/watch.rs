//! Watches: where they start, and objects in the version that was asked for.

use super::{PlainStatus, show, version};
use crate::cache::{CacheWatch, WatchPlan, WatchStart};
use crate::object::{EventKind, Watch, WatchEvent};
use crate::registry::Registry;
use crate::request::WatchOptions;
use pintle_kinds::ResourceDef;
use pintle_store::Revision;
use pintle_types::Status;
use rand::Rng;
use std::sync::Arc;
use std::time::Duration;

/// The shortest time of a watch without a timeout of its own; the longest is twice that.
const MIN_TIMEOUT_SECONDS: u64 = 1800;

impl Registry {
    pub async fn watch(&self, def: &ResourceDef, ns: &str, options: &WatchOptions) -> Result<Watch, Status> {
        let resource = self.resource(def)?;
        let selection = self.selection(def, &resource, ns, &options.labels, &options.fields)?;
        let asked = version::parse(&options.resource_version).map_err(Status::plain_internal)?;
        let start = match self.watch_start(asked, options).await? {
            Ok(start) => start,
            // The watch was accepted: what is wrong comes as its only event.
            Err(too_large) => return Ok(Watch::of(CacheWatch::of(WatchEvent::error(&too_large)))),
        };
        let random = || rand::rng().random_range(MIN_TIMEOUT_SECONDS..2 * MIN_TIMEOUT_SECONDS);
        let plan = WatchPlan {
            start,
            bookmarks: options.allow_bookmarks,
            timeout: options.timeout.unwrap_or_else(|| Duration::from_secs(random())),
            api_version: def.api_version(),
            kind: def.kind.clone(),
        };
        let inner = match (self.cache.shared.watch(resource.clone(), selection, plan), asked) {
            (Ok(watch), _) => watch,
            (Err(_), asked) => {
                let oldest = resource.oldest_start();
                CacheWatch::of(WatchEvent::error(&version::too_old(asked.unwrap_or_default(), oldest)))
            }
        };
        if def.strategy.converter().is_some() {
            let table = self.table();
            let def = table.get(&def.group, &def.version, &def.resource).cloned();
            let def = def.ok_or_else(Status::no_such_resource)?;
            return Ok(crate::convert::watched(def, Watch::of(inner)));
        }
        Ok(Watch::of(convert(self, def, inner)))
    }

    /// Where a watch starts. One that begins with what is there waits until the cache has come to what was asked for;
    /// the inner error is that it does not. Any other one waits for events anyway. Without a version, or with 0, a watch
    /// begins with what is there unless it says otherwise.
    async fn watch_start(
        &self,
        asked: Option<Revision>,
        options: &WatchOptions,
    ) -> Result<Result<WatchStart, Status>, Status> {
        let present = WatchStart::Present { bookmark: options.allow_bookmarks };
        Ok(Ok(match (asked, options.send_initial_events) {
            (None, Some(false)) => WatchStart::After(self.reach_newest().await?),
            (None, _) => {
                self.reach_newest().await?;
                present
            }
            (Some(0), Some(false)) => WatchStart::After(self.cache.shared.reached()),
            (Some(0), _) => present,
            (Some(revision), Some(true)) => match self.reach(revision).await {
                Ok(_) => present,
                Err(too_large) => return Ok(Err(too_large)),
            },
            (Some(revision), _) => WatchStart::After(revision),
        }))
    }
}

/// The events with their objects in the version of `def`.
fn convert(registry: &Registry, def: &ResourceDef, watch: CacheWatch) -> CacheWatch {
    if def.version == def.storage.version && def.group == def.storage.group {
        return watch;
    }
    let table = registry.table();
    let Some(def) = table.get(&def.group, &def.version, &def.resource).map(Arc::clone) else { return watch };
    watch.map(move |event| match event.kind {
        EventKind::Added | EventKind::Modified | EventKind::Deleted => {
            WatchEvent::new(event.kind, show(&def, event.object))
        }
        EventKind::Bookmark | EventKind::Error => event,
    })
}

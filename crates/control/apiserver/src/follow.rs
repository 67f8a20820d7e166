//! Keeps something in step with all objects of a resource: a list, then its changes, in process.

use crate::server::Server;
use futures::StreamExt;
use pintle_kinds::ResourceDef;
use pintle_registry::{EventKind, ListOptions, WatchEvent, WatchOptions};
use pintle_types::Status;
use pintle_types::selector::FieldSelector;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What became of an object.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change<'a> {
    Set(&'a Value),
    /// The last state, or only the name when that was missed.
    Gone(&'a Value),
}

/// Watches in process need no end of their own.
const ENDLESS: Duration = Duration::from_secs(365 * 24 * 3600);
/// After a failure, before the next list.
const PAUSE: Duration = Duration::from_secs(1);

type Apply = Box<dyn FnMut(Change<'_>) + Send>;

/// A resource that is followed.
pub(crate) struct Follower {
    server: Arc<Server>,
    def: Arc<ResourceDef>,
    fields: FieldSelector,
    version: String,
    seen: HashSet<(String, String)>,
    apply: Apply,
}

fn key(object: &Value) -> (String, String) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

impl Follower {
    /// Applies all objects that there are.
    pub async fn load(
        server: &Arc<Server>,
        group: &str,
        resource: &str,
        apply: impl FnMut(Change<'_>) + Send + 'static,
    ) -> Result<Self, Status> {
        Self::load_selected(server, group, resource, FieldSelector::default(), apply).await
    }

    /// The same for those objects only that have these fields; one that has them no more is gone.
    pub async fn load_selected(
        server: &Arc<Server>,
        group: &str,
        resource: &str,
        fields: FieldSelector,
        apply: impl FnMut(Change<'_>) + Send + 'static,
    ) -> Result<Self, Status> {
        let table = server.registry.table();
        let def = table.get(group, "v1", resource).cloned().ok_or_else(Status::no_such_resource)?;
        let mut follower = Self {
            server: server.clone(),
            def,
            fields,
            version: String::new(),
            seen: HashSet::new(),
            apply: Box::new(apply),
        };
        follower.list().await?;
        Ok(follower)
    }

    async fn list(&mut self) -> Result<(), Status> {
        let options = ListOptions { fields: self.fields.clone(), ..ListOptions::default() };
        let list = self.server.registry.list(&self.def, "", &options).await?;
        let mut gone = std::mem::take(&mut self.seen);
        for object in &list.items {
            let object = object.to_value();
            gone.remove(&key(&object));
            self.seen.insert(key(&object));
            (self.apply)(Change::Set(&object));
        }
        for (namespace, name) in gone {
            (self.apply)(Change::Gone(&json!({"metadata": {"namespace": namespace, "name": name}})));
        }
        self.version = list.revision.to_string();
        Ok(())
    }

    /// Applies changes until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let follow = async {
            loop {
                if let Err(status) = self.watch().await {
                    tracing::warn!(resource = self.def.resource, error = %status, "following a resource: listing again");
                    tokio::time::sleep(PAUSE).await;
                    if let Err(status) = self.list().await {
                        tracing::error!(resource = self.def.resource, error = %status, "a resource can't be listed");
                    }
                }
            }
        };
        // Stopping is the only way out.
        let _ = stop.run_until_cancelled(follow).await;
    }

    async fn watch(&mut self) -> Result<(), Status> {
        let options = WatchOptions {
            fields: self.fields.clone(),
            resource_version: self.version.clone(),
            allow_bookmarks: true,
            timeout: Some(ENDLESS),
            ..WatchOptions::default()
        };
        let mut events = self.server.registry.watch(&self.def, "", &options).await?;
        while let Some(event) = events.next().await {
            self.take(&event)?;
        }
        Ok(())
    }

    fn take(&mut self, event: &WatchEvent) -> Result<(), Status> {
        let object = event.object.to_value();
        if let Some(version) = object["metadata"]["resourceVersion"].as_str() {
            self.version = version.to_owned();
        }
        match event.kind {
            EventKind::Added | EventKind::Modified => {
                self.seen.insert(key(&object));
                (self.apply)(Change::Set(&object));
            }
            EventKind::Deleted => {
                self.seen.remove(&key(&object));
                (self.apply)(Change::Gone(&object));
            }
            EventKind::Bookmark => {}
            EventKind::Error => {
                return Err(serde_json::from_value(object).unwrap_or_else(Status::internal));
            }
        }
        Ok(())
    }
}

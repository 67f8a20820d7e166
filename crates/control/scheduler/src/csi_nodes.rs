//! Follows what nodes say of their CSI drivers: how many volumes of each they take.
//!
//! Nothing is watched before the first volume of such a driver is there: most clusters never have one.

use crate::hints::Event;
use crate::limits::Limits;
use crate::shared::Shared;
use parking_lot::Mutex;
use pintle_client::{Client, EventType, RawEvent, resource_path};
use pintle_informer::{Sink, Source, reflect};
use serde_json::Value;
use std::collections::HashSet;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Follows them until `stop`, once a volume of a driver was seen.
pub(crate) async fn follow(client: Client, shared: Arc<Shared>, stop: CancellationToken) {
    if stop.run_until_cancelled(shared.csi_seen.notified()).await.is_none() {
        return;
    }
    let source = Source {
        path: resource_path("storage.k8s.io", "v1", "csinodes", "", "", ""),
        accept: "application/json".into(),
        ..Default::default()
    };
    let sink = Arc::new(CsiNodes { shared, listed: Mutex::default(), known: Mutex::default() });
    reflect(client, source, sink, stop).await;
}

struct CsiNodes {
    shared: Arc<Shared>,
    /// The names that the list under way has shown.
    listed: Mutex<HashSet<String>>,
    known: Mutex<HashSet<String>>,
}

impl CsiNodes {
    fn set(&self, name: &str, limits: Limits) {
        self.shared.snapshot.lock().storage_mut().set_limits(name, limits);
        self.shared.cluster_changed(&Event::StorageChanged);
    }

    /// Takes an object over; returns its name and version.
    fn take(&self, bytes: &[u8]) -> Option<(String, Option<String>)> {
        let object: Value = serde_json::from_slice(bytes).ok()?;
        let name = object["metadata"]["name"].as_str()?.to_owned();
        self.set(&name, limits_of(&object));
        self.known.lock().insert(name.clone());
        Some((name, object["metadata"]["resourceVersion"].as_str().map(str::to_owned)))
    }
}

/// The limits in a CSINode. A driver that names none takes any number.
pub(crate) fn limits_of(object: &Value) -> Limits {
    let drivers = object["spec"]["drivers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let limit = |driver: &Value| {
        let count = driver["allocatable"]["count"].as_u64()?;
        Some((driver["name"].as_str()?.to_owned(), usize::try_from(count).ok()?))
    };
    drivers.iter().filter_map(limit).collect()
}

impl Sink for CsiNodes {
    fn list_begins(&self) {
        self.listed.lock().clear();
    }

    fn listed(&self, object: &[u8]) {
        if let Some((name, _)) = self.take(object) {
            self.listed.lock().insert(name);
        }
    }

    fn list_ends(&self) {
        let listed = std::mem::take(&mut *self.listed.lock());
        let gone: Vec<String> = self.known.lock().difference(&listed).cloned().collect();
        gone.iter().for_each(|name| self.set(name, Limits::default()));
        *self.known.lock() = listed;
    }

    fn event(&self, event: &RawEvent) -> Option<String> {
        match event.event_type {
            EventType::Added | EventType::Modified => self.take(&event.object)?.1,
            EventType::Deleted => {
                let (name, version) = self.take(&event.object)?;
                self.set(&name, Limits::default());
                self.known.lock().remove(&name);
                version
            }
            _ => event.resource_version().ok(),
        }
    }
}

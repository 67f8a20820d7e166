//! Follows pods in the store: when each was created, bound and ready, in virtual and in processor time.

use super::meter::{processor_time, quantile};
use futures::StreamExt;
use parking_lot::Mutex;
use pintle_store::{Event, KeyRange, Store};
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

const PODS: &str = "/registry/pods/";

/// A moment by both clocks.
#[derive(Clone, Copy, Debug)]
struct Moment {
    real: Duration,
    virtual_time: tokio::time::Instant,
}

impl Moment {
    fn now() -> Self {
        Self { real: processor_time(), virtual_time: tokio::time::Instant::now() }
    }
}

#[derive(Debug)]
struct Track {
    created: Moment,
    bound: Option<Moment>,
    ready: Option<Moment>,
}

#[derive(Debug, Default)]
struct Tracks {
    pods: HashMap<bytes::Bytes, Track>,
    bound: usize,
    ready: usize,
}

/// Sees every pod's way.
#[derive(Debug, Default)]
pub(super) struct Tracker(Mutex<Tracks>);

/// How long pods took.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latencies {
    /// From creation to readiness: p50, p99.
    pub(crate) ready_virtual: [Duration; 2],
    pub(crate) ready_real: [Duration; 2],
    pub(crate) bound: usize,
    /// From the first pod's creation to the last one's binding.
    pub(crate) binding_real: Duration,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Pod {
    spec: Spec,
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    node_name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    conditions: Vec<Condition>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Condition {
    #[serde(rename = "type")]
    type_: String,
    status: String,
}

impl Tracker {
    /// Follows the store until dropped.
    pub(super) async fn start(store: &Arc<dyn Store>) -> anyhow::Result<Arc<Self>> {
        let tracker = Arc::new(Self::default());
        let mut changes = store.watch(KeyRange::prefix(PODS), 0).await?;
        let me = Arc::downgrade(&tracker);
        tokio::spawn(async move {
            while let Some(Ok(batch)) = changes.next().await {
                let Some(tracker) = me.upgrade() else { return };
                batch.events.iter().for_each(|event| tracker.see(event));
            }
        });
        Ok(tracker)
    }

    fn see(&self, event: &Event) {
        let (now, mut tracks) = (Moment::now(), self.0.lock());
        let Event::Put { kv, .. } = event else { return };
        let tracks = &mut *tracks;
        let track = tracks.pods.entry(kv.key.clone()).or_insert(Track { created: now, bound: None, ready: None });
        if track.ready.is_some() {
            return;
        }
        // The server wrote it: a pod that can't be read is one that is not ready.
        let pod: Pod = serde_json::from_slice(&kv.value).unwrap_or_default();
        if track.bound.is_none() && !pod.spec.node_name.is_empty() {
            track.bound = Some(now);
            tracks.bound += 1;
        }
        if pod.status.conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True") {
            track.ready = Some(now);
            tracks.ready += 1;
        }
    }

    pub(super) fn ready(&self) -> usize {
        self.0.lock().ready
    }

    pub(super) fn latencies(&self) -> Latencies {
        let tracks = self.0.lock();
        let mut virtual_times = Vec::with_capacity(tracks.ready);
        let mut real = Vec::with_capacity(tracks.ready);
        for track in tracks.pods.values() {
            if let Some(ready) = track.ready {
                virtual_times.push(ready.virtual_time - track.created.virtual_time);
                real.push(ready.real.saturating_sub(track.created.real));
            }
        }
        let shares = |times: &mut Vec<Duration>| {
            times.sort_unstable();
            [quantile(times, 0.5), quantile(times, 0.99)]
        };
        let first = tracks.pods.values().map(|track| track.created.real).min();
        let last = tracks.pods.values().filter_map(|track| Some(track.bound?.real)).max();
        Latencies {
            ready_virtual: shares(&mut virtual_times),
            ready_real: shares(&mut real),
            bound: tracks.bound,
            binding_real: first.zip(last).map(|(first, last)| last.saturating_sub(first)).unwrap_or_default(),
        }
    }
}

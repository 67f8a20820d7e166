//! Evicts pods when the node runs short, or when one of them uses more of the node's disk than it may.
//!
//! A look takes a few system calls; pods are measured only when a threshold is crossed, or those that have limits.
//! One pod goes per look, and before pods go for want of disk, unused images and dead containers do.

pub mod flags;
mod local;
mod met;
pub mod pressure;
mod rank;
pub mod thresholds;

pub use rank::is_critical;

use crate::ending::{Ending, Order};
use crate::host::Host;
use crate::image_gc::ImageCollector;
use crate::stats::machine_use::{filesystem, processes};
use crate::stats::{Collector, PodUse};
use crate::status::{EVICTED, Ended, is_final};
use met::Met;
use pintle_cri::{ContainerFilter, ContainerState};
use pintle_informer::{EventType, Informer, Recorder};
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::Pod;
use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use thresholds::{Crossed, Observation, Threshold};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Upstream's monitoring interval.
const LOOK: Duration = Duration::from_secs(10);
/// What an evicted pod gets to end, in seconds.
const GRACE_SECONDS: i64 = 1;

/// Looks after the node's resources.
pub struct Evictor {
    pub host: Arc<Host>,
    pub pods: Informer<Pod>,
    pub stats: Arc<Collector>,
    pub images: Arc<ImageCollector>,
    pub recorder: Recorder,
    pub thresholds: Vec<Threshold>,
    /// The most that a pod gets to end which goes because of a soft threshold.
    pub max_pod_grace: Duration,
    pub orders: mpsc::UnboundedSender<Order>,
}

impl Evictor {
    /// Works until `stop`. A machine that is only pretended never runs short.
    pub async fn run(self, stop: CancellationToken) {
        if !self.host.hardware.is_real() {
            return;
        }
        let work = async {
            let mut met = Met::new(self.thresholds.clone());
            let mut ticks = interval(LOOK);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                self.look(&mut met).await;
            }
        };
        // Ends with `stop` only.
        let _ended = stop.run_until_cancelled(work).await;
    }

    async fn look(&self, met: &mut Met) {
        let found = met.look(&self.observe().await, Instant::now());
        self.host.pressures.see(found.conditions);
        if self.hold_local_limits().await {
            return;
        }
        let Some(first) = found.due.first().copied() else { return };
        tracing::warn!(signal = first.name(), available = first.available, "the node runs short");
        let message = format!("Attempting to reclaim {}", first.signal.resource());
        let node = crate::node::reference(&self.host.settings.node_name);
        self.recorder.event_on(node, EventType::Warning, "EvictionThresholdMet", message);
        if first.signal.is_disk() {
            self.remove_dead_containers().await;
            self.images.delete_unused().await;
            if !met.is_any_crossed(&self.observe().await) {
                return;
            }
        }
        self.evict_one(&first).await;
    }

    async fn observe(&self) -> Observation {
        let root = &self.host.settings.root_dir;
        let images = self.host.runtime.image_fs_info().await.ok().map(|fs| fs.mountpoint);
        let device = |path: &Path| path.metadata().ok().map(|meta| meta.dev());
        // Images on the node's own filesystem are under its thresholds already.
        let apart = images.filter(|path| device(Path::new(path)) != device(root));
        Observation {
            machine: self.stats.machine(),
            node_fs: filesystem(root),
            image_fs: apart.and_then(|path| filesystem(Path::new(&path))),
            pids: processes(),
        }
    }

    /// Pods of the API that are here and have not ended.
    fn active(&self) -> Vec<Arc<Pod>> {
        let ended = |pod: &Pod| is_final(pod.status.as_ref().and_then(|s| s.phase.as_deref()));
        self.pods.list().into_iter().filter(|pod| !ended(pod) && !pod.is_deleting()).collect()
    }

    /// Returns whether a pod goes because of what it uses itself.
    async fn hold_local_limits(&self) -> bool {
        let limited: Vec<Arc<Pod>> = self.active().into_iter().filter(|pod| local::has_limits(pod)).collect();
        if limited.is_empty() {
            return false;
        }
        let uids: HashSet<&str> = limited.iter().map(|pod| pod.uid()).collect();
        let Ok(used) = self.stats.of_pods(&uids).await else { return false };
        let used: HashMap<&str, &PodUse> = used.iter().map(|u| (u.uid.as_str(), u)).collect();
        let mut any = false;
        for pod in limited.iter().filter(|pod| !is_critical(pod)) {
            if let Some(message) = used.get(pod.uid()).and_then(|usage| local::excess(pod, usage)) {
                self.evict(pod, message, GRACE_SECONDS);
                any = true;
            }
        }
        any
    }

    async fn evict_one(&self, crossed: &Crossed) {
        let Ok(snapshot) = self.stats.look(crossed.signal.is_disk()).await else { return };
        let active = self.active();
        let find = |usage: &PodUse| active.iter().find(|pod| pod.uid() == usage.uid).map(Arc::as_ref);
        let pods: Vec<(&Pod, &PodUse)> = snapshot.pods.iter().filter_map(|u| Some((find(u)?, u))).collect();
        match rank::victims(crossed.signal, &pods).first() {
            Some((pod, usage)) => {
                let own = crate::reference::spec(pod).termination_grace_period_seconds;
                let grace = met::grace(crossed, own, self.max_pod_grace);
                self.evict(pod, rank::message(crossed, pod, usage), grace);
            }
            None => tracing::warn!(signal = crossed.name(), "no pod can be evicted to win it back"),
        }
    }

    fn evict(&self, pod: &Pod, message: String, grace: i64) {
        tracing::warn!(pod = crate::reference::pod_text(pod), message, "evicting a pod");
        self.host.events.pod(pod, true, EVICTED, message.clone());
        let ended = Ended { reason: EVICTED.to_owned(), message };
        let ending = Ending { ended, grace, hastens: false, held: None };
        // The receiver is only gone when the kubelet stops.
        let _ = self.orders.send(Order::End { uid: pod.uid().to_owned(), ending });
    }

    /// Removes containers that ended and have a successor: only their logs are lost.
    async fn remove_dead_containers(&self) {
        let runtime = &self.host.runtime;
        let Ok(mut list) = runtime.list_containers(ContainerFilter::default()).await else { return };
        list.sort_by_key(|c| std::cmp::Reverse((c.created_at, c.metadata.attempt)));
        let mut seen = HashSet::new();
        for container in list {
            let uid = container.labels.get(crate::labels::POD_UID).cloned().unwrap_or_default();
            let newest = seen.insert((uid, container.metadata.name.clone()));
            if !newest
                && container.state == ContainerState::Exited
                && let Err(error) = runtime.remove_container(&container.id).await
            {
                tracing::debug!(%error, id = container.id, "a dead container can't be removed yet");
            }
        }
    }
}

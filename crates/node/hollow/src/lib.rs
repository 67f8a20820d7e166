//! Pretending nodes: they register, renew leases, report, and say of the pods that are bound to them that these run.
//!
//! Nothing runs. What the control plane and its clients see is what kubelets would tell it: that is for load on API
//! servers, schedulers and controllers, with thousands of nodes in one process. A node costs a task and a few hundred
//! bytes, a pod what [`pods`] keeps of it. The simulator's seeds use real kubelets instead.

mod node;
mod object;
mod pods;
#[cfg(test)]
mod tests;

use futures::StreamExt;
use pintle_client::Client;
use pintle_clock::Clock;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Requests at a time that register or remove nodes.
const WIDTH: usize = 32;

/// How pods are watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Watching {
    /// One watch of all bound pods for all nodes of the process.
    #[default]
    Together,
    /// A watch for each node, as kubelets have: the server serves as many watches as there are nodes.
    Each,
}

/// What every node has.
#[derive(Clone, Debug)]
pub struct Machine {
    pub milli_cpu: u64,
    pub memory_bytes: u64,
    pub max_pods: u32,
}

impl Default for Machine {
    fn default() -> Self {
        Self { milli_cpu: 32_000, memory_bytes: 256 << 30, max_pods: 110 }
    }
}

/// How long things take.
#[derive(Clone, Debug)]
pub struct Times {
    /// From a pod's binding until it is Running and Ready.
    pub start: Duration,
    /// From a pod's deletion until its containers have ended; its grace period, when that is shorter.
    pub end: Duration,
    /// How long a pod runs whose `restartPolicy` lets it end.
    pub run: Duration,
    /// Between two renewals of a lease, which lasts four times as long. Upstream's is 10 s.
    pub renew: Duration,
    /// Between two reports of a node of which nothing has changed. Upstream's is 5 minutes.
    pub report: Duration,
}

impl Default for Times {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { start: seconds(1), end: seconds(1), run: seconds(10), renew: seconds(10), report: seconds(300) }
    }
}

/// The nodes of one process.
#[derive(Clone)]
pub struct Config {
    pub client: Client,
    pub clock: Arc<dyn Clock>,
    /// What the names begin with; a number follows.
    pub prefix: String,
    /// The number of the first node.
    pub first: u32,
    pub count: u32,
    pub machine: Machine,
    /// More labels for the Node objects.
    pub labels: BTreeMap<String, String>,
    /// Zones that nodes are in, one after the other; none without any.
    pub zones: u32,
    /// Whether only pods that tolerate [`object::LABEL`] come, so that those of real nodes stay there.
    pub tainted: bool,
    pub watching: Watching,
    pub times: Times,
    /// Whether the Node objects are deleted at the end.
    pub remove: bool,
    /// What the Node objects say.
    pub version: String,
    pub figures: Arc<Figures>,
}

impl Config {
    /// Nodes `hollow-1` to `hollow-COUNT`, with everything else as usual.
    pub fn new(client: Client, clock: Arc<dyn Clock>, count: u32) -> Self {
        Self {
            client,
            clock,
            prefix: "hollow-".into(),
            first: 1,
            count,
            machine: Machine::default(),
            labels: BTreeMap::new(),
            zones: 3,
            tainted: false,
            watching: Watching::default(),
            times: Times::default(),
            remove: false,
            version: "v1.36.2+pintle".into(),
            figures: Arc::default(),
        }
    }

    fn numbers(&self) -> std::ops::Range<u32> {
        self.first..self.first.saturating_add(self.count)
    }

    fn name(&self, number: u32) -> String {
        format!("{}{number}", self.prefix)
    }
}

/// What was done so far.
#[derive(Debug, Default)]
pub struct Figures {
    /// Nodes that are registered.
    pub nodes: AtomicU64,
    /// Leases that were renewed.
    pub renewals: AtomicU64,
    /// Pods that were said to run.
    pub started: AtomicU64,
    /// Pods that were said to have ended, or were removed after their deletion.
    pub ended: AtomicU64,
    /// Requests that failed and are tried again.
    pub failures: AtomicU64,
}

fn count(figure: &AtomicU64) {
    figure.fetch_add(1, Ordering::Relaxed);
}

/// Runs the nodes until `stop`. What fails is tried again.
pub async fn run(config: Config, stop: CancellationToken) {
    let config = Arc::new(config);
    let mut tasks = JoinSet::new();
    let registered = {
        let (config, stop) = (&config, stop.clone());
        stop.run_until_cancelled_owned(async move {
            let one = |number| async move { (number, node::register(config, number).await) };
            futures::stream::iter(config.numbers().map(one)).buffer_unordered(WIDTH).collect::<Vec<_>>().await
        })
        .await
    };
    for (number, uid) in registered.unwrap_or_default() {
        tasks.spawn(node::live(Arc::clone(&config), number, uid, stop.clone()));
    }
    pods::run(&config, &stop).await;
    tasks.join_all().await;
    if config.remove {
        let one = |number| node::remove(&config, number);
        futures::stream::iter(config.numbers().map(one)).buffer_unordered(WIDTH).collect::<()>().await;
    }
}

//! How large a cluster may be: the real store, API server, scheduler and controllers with pretending nodes, in one
//! thread on virtual time, under the load of many Deployments.
//!
//! Virtual are the times that somebody waits for: back-offs, leases, a pod's pretended start, a millisecond of network
//! for each request. Real are the processor times: the clock stands while anybody has something to do, so what a
//! request takes, and what the whole takes, is measured in the processor time of this process.

mod load;
mod meter;
mod report;
mod tracker;

pub(crate) use meter::Meter;
use meter::processor_time;
pub use report::Report;

use crate::plane::Plane;
use anyhow::{Context, Result, ensure};
use parking_lot::Mutex;
use pintle_apiserver::User;
use pintle_clock::{RuntimeClock, Timestamp};
use pintle_hollow::Machine;
use pintle_store::{EmbeddedStore, Store};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tracker::Tracker;

/// When virtual time begins: 2026-01-01T00:00:00Z.
const BEGINNING: i64 = 1_767_225_600;
/// Between two looks how far things are, in virtual time.
const LOOK: Duration = Duration::from_millis(200);
/// How long the cluster is watched at rest, in virtual time.
const REST: Duration = Duration::from_secs(60);
/// How long registering or starting may take, in virtual time.
const PATIENCE: Duration = Duration::from_secs(3600);

/// What the pods of a Deployment ask of the scheduler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// Processor and memory alone.
    #[default]
    Plain,
    /// As well: an even spread over the zones.
    Spread,
    /// As well: no two pods of a Deployment on a node.
    Apart,
}

/// What is tried.
#[derive(Clone, Debug)]
pub struct Capacity {
    pub nodes: u32,
    pub pods: u32,
    pub deployments: u32,
    pub shape: Shape,
    /// Whether each Deployment has a Service.
    pub services: bool,
    /// What each pod asks for.
    pub pod_milli_cpu: u64,
    pub pod_memory_bytes: u64,
    pub machine: Machine,
    /// How long a pod takes to start, in virtual time.
    pub start: Duration,
    pub seed: u64,
}

/// Runs the cluster in this thread until all pods are ready, and a minute of virtual time at rest. `say` is told how
/// far it is.
///
/// # Errors
/// When the pods can't fit, or are not ready after an hour of virtual time.
pub fn measure(capacity: &Capacity, say: impl Fn(String)) -> Result<Report> {
    let Capacity { nodes, pods, deployments, machine, .. } = capacity;
    ensure!(*nodes > 0 && *deployments > 0, "there must be a node and a Deployment at least");
    let room = u64::from(*nodes) * u64::from(machine.max_pods);
    ensure!(u64::from(*pods) <= room, "{nodes} nodes of {} pods have no room for {pods}", machine.max_pods);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
    runtime.block_on(run(capacity, &say))
}

/// A phase: what it took of the processor, and of virtual time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Took {
    pub(crate) real: Duration,
    pub(crate) virtual_time: Duration,
}

struct Stopwatch(Duration, tokio::time::Instant);

impl Stopwatch {
    fn start() -> Self {
        Self(processor_time(), tokio::time::Instant::now())
    }

    fn took(&self) -> Took {
        Took { real: processor_time().saturating_sub(self.0), virtual_time: self.1.elapsed() }
    }
}

async fn run(capacity: &Capacity, say: &impl Fn(String)) -> Result<Report> {
    let whole = Stopwatch::start();
    let directory = crate::world::temporary_directory()?;
    let clock = RuntimeClock::new(Timestamp::from_second(BEGINNING)?);
    let store: Arc<dyn Store> = Arc::new(EmbeddedStore::in_memory()?);
    let mut plane = Plane::new(capacity.seed, Arc::clone(&store), clock, directory.path())?;
    plane.pod_range = ipnet::Ipv4Net::new_assert([10, 0, 0, 0].into(), 8);
    let meter = Arc::new(Meter::default());
    plane.set_meter(&meter);
    plane.start_server().await.context("the start of the API server")?;
    plane.restart_controllers().await;
    plane.restart_scheduler().await;
    let mut report = Report { capacity: capacity.clone(), idle_bytes: memory(), ..Report::default() };

    let stop = CancellationToken::new();
    report.registering = register(capacity, &plane, &meter, &stop).await?;
    report.node_bytes = memory();
    let Took { real, .. } = report.registering;
    say(format!("{} nodes are there after {:.1} s of processor time", capacity.nodes, real.as_secs_f64()));

    let tracker = Tracker::start(&store).await?;
    let link = plane.link(User::new("kubernetes-admin", &["system:masters"]), "load");
    link.set_meter(Arc::clone(&meter));
    let client = link.client("kubectl");
    load::prepare(&client, capacity).await.context("the namespaces")?;
    let starting = Stopwatch::start();
    load::create(&client, capacity).await.context("the Deployments")?;
    report.applying = starting.took();
    until(
        || tracker.ready() >= capacity.pods as usize,
        say,
        || format!("{} of {} pods are ready", tracker.ready(), capacity.pods),
    )
    .await?;
    report.starting = starting.took();
    report.pod_bytes = memory();
    report.pods = tracker.latencies();
    report.requests = meter.table();
    // What the pods left to do, such as the last events and statuses, is no part of the rest.
    tokio::time::sleep(REST).await;
    let resting = Stopwatch::start();
    tokio::time::sleep(REST).await;
    report.resting = resting.took();
    report.whole = whole.took();
    stop.cancel();
    Ok(report)
}

async fn register(capacity: &Capacity, plane: &Plane, meter: &Arc<Meter>, stop: &CancellationToken) -> Result<Took> {
    let began = Stopwatch::start();
    let link = plane.link(User::new("hollow", &["system:masters"]), "hollow");
    link.set_meter(Arc::clone(meter));
    let mut config = pintle_hollow::Config::new(link.client("kubelet"), plane.clock(), capacity.nodes);
    config.machine = capacity.machine.clone();
    config.times.start = capacity.start;
    let figures = Arc::clone(&config.figures);
    tokio::spawn(pintle_hollow::run(config, stop.clone()));
    let there = || figures.nodes.load(Ordering::Relaxed);
    until(|| there() >= u64::from(capacity.nodes), &|_| (), String::new).await?;
    // The taints of new nodes go once the controllers have seen that they are ready.
    tokio::time::sleep(Duration::from_secs(5)).await;
    Ok(began.took())
}

/// Waits, and tells every few seconds of real time how far it is.
async fn until(holds: impl Fn() -> bool, say: &impl Fn(String), how_far: impl Fn() -> String) -> Result<()> {
    let began = tokio::time::Instant::now();
    let told = Mutex::new(Instant::now());
    while !holds() {
        ensure!(began.elapsed() < PATIENCE, "not done after {PATIENCE:?} of virtual time: {}", how_far());
        tokio::time::sleep(LOOK).await;
        let mut told = told.lock();
        if told.elapsed() > Duration::from_secs(10) {
            *told = Instant::now();
            say(how_far());
        }
    }
    Ok(())
}

/// The bytes of this process in memory; zero where the machine does not tell.
fn memory() -> u64 {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()).unwrap_or_default() * 1024
}

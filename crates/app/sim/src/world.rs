//! One run: a cluster is made, used while things go wrong, mended, and has to come to rest.

use crate::chance::Chance;
use crate::faults::Faults;
use crate::link::Weather;
use crate::node::SimNode;
use crate::observer::Observer;
use crate::plane::Plane;
use crate::rest::{Look, lost, short, unrest};
use crate::users::Users;
use anyhow::{Context, Result};
use pintle_apiserver::User;
use pintle_clock::{RuntimeClock, Timestamp};
use pintle_store::{EmbeddedStore, Store};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// When virtual time begins: 2026-01-01T00:00:00Z.
const BEGINNING: i64 = 1_767_225_600;
/// Between two looks whether the cluster is at rest.
const LOOK: Duration = Duration::from_secs(10);

/// What is simulated.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where all choices come from.
    pub seed: u64,
    pub nodes: u16,
    /// How long things go wrong, in virtual time.
    pub trouble: Duration,
    /// How long the cluster may then take to come to rest, in virtual time.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        // A crash loop waits for up to five minutes, a pod on a silent node for as long.
        Self { seed: 1, nodes: 4, trouble: Duration::from_secs(240), patience: Duration::from_secs(1800) }
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub seed: u64,
    /// What must never be and was; empty when all is well.
    pub violations: Vec<String>,
    /// Changes of the store.
    pub changes: u64,
    /// Of all changes in their order: equal for runs that were the same.
    pub digest: String,
    /// Virtual time until the cluster was at rest.
    pub took: Duration,
}

/// Runs a cluster in this thread, on a clock of its own.
pub fn run(options: &Options) -> Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
    runtime.block_on(simulate(options))
}

async fn simulate(options: &Options) -> Result<Outcome> {
    let directory = temporary_directory()?;
    let began = Instant::now();
    let clock = RuntimeClock::new(Timestamp::from_second(BEGINNING)?);
    let store: Arc<dyn Store> = Arc::new(EmbeddedStore::in_memory()?);
    let mut plane = Plane::new(options.seed, Arc::clone(&store), clock, directory.path())?;
    plane.start_server().await.context("the first start of the API server")?;
    plane.restart_controllers().await;
    plane.restart_scheduler().await;
    let mut nodes: Vec<SimNode> = (1..=options.nodes).map(|n| SimNode::new(n, &plane, directory.path())).collect();
    nodes.iter_mut().for_each(|node| node.start_kubelet(&plane));
    let runtimes = nodes.iter().map(|node| (node.name.clone(), Arc::clone(&node.runtime))).collect();
    let observer = Observer::start(&store, plane.clock(), runtimes).await?;
    let link = plane.link(User::new("kubernetes-admin", &["system:masters"]), "users");
    let names = nodes.iter().map(|node| node.name.clone()).collect();
    let users = Users::new(&link, Chance::of(options.seed, "what users do"), names);
    users.arrive().await.context("the namespaces")?;

    let mut faults = Faults::new(Chance::of(options.seed, "faults"));
    let weather = faults.weather();
    tracing::info!(?weather, "begins");
    set_weather(&plane, &nodes, weather);
    link.set_weather(weather);
    let working = tokio::spawn(Arc::clone(&users).work());
    faults.run(&mut plane, &mut nodes, began + options.trouble).await?;
    working.abort();
    set_weather(&plane, &nodes, Weather::default());
    link.set_weather(Weather::default());
    users.uncordon_all().await.context("making the nodes schedulable")?;

    let mut look = Look::new(&store);
    let restless = settle(&mut look, &nodes, options.patience).await?;
    let took = began.elapsed();
    observer.check_ordinals(u64::MAX);
    for difference in lost(&mut look, &users).await? {
        observer.violated(difference);
    }
    if !restless.is_empty() {
        observer.violated(format!("not at rest after {:?}: {}", options.patience, short(&restless)));
    }
    let (violations, changes, digest) = observer.report();
    Ok(Outcome { seed: options.seed, violations, changes, digest, took })
}

/// In memory where the machine has such a place: pods' volumes are written and removed all the time.
pub(crate) fn temporary_directory() -> std::io::Result<tempfile::TempDir> {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())
}

fn set_weather(plane: &Plane, nodes: &[SimNode], weather: Weather) {
    plane.set_weather(weather);
    nodes.iter().for_each(|node| node.link.set_weather(weather));
}

/// Waits until the cluster is at rest; tells what is not when the time is over.
async fn settle(look: &mut Look, nodes: &[SimNode], patience: Duration) -> Result<Vec<String>> {
    let until = Instant::now() + patience;
    loop {
        let restless = unrest(look, nodes).await?;
        if restless.is_empty() || Instant::now() >= until {
            return Ok(restless);
        }
        tokio::time::sleep(LOOK).await;
    }
}

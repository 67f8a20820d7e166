//! Runs one shape and prints its row.

use crate::api::Api;
use crate::shapes::{Beside, Pods, Shape, node};
use anyhow::{Context, Result, ensure};
use pintle_client::Client;
use pintle_informer::Informers;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Pods that wait at a time.
const WINDOW: usize = 1000;
/// A pod that is not bound after this time never will be.
const PATIENCE: Duration = Duration::from_secs(120);
const NAMESPACES: [&str; 3] = ["default", "sched-0", "sched-1"];

#[allow(clippy::print_stdout, reason = "printing is what the program is for")]
fn say(line: &str) {
    println!("{line}");
    // A closed pipe only means that nobody reads on.
    let _ = std::io::stdout().flush();
}

pub(crate) fn head() {
    say("shape                    nodes    pods  pods/s  CPU/pod  p99/pod  last/first  memory   per pod  floor");
}

/// Processor time of this process so far.
fn processor() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// Resident memory in KiB.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

pub(crate) fn run(shape: &Shape) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.context("start the runtime")?.block_on(measure(shape))
}

struct Measured {
    times: Vec<Instant>,
    begin: Instant,
    /// Processor time of the whole, of the first tenth and of the last.
    processor: [Duration; 3],
}

async fn measure(shape: &Shape) -> Result<()> {
    let api = Api::default();
    NAMESPACES.iter().for_each(|name| api.add_namespace(name));
    (0..shape.nodes).for_each(|number| api.add_node(node(number, shape)));
    if shape.beside == Beside::Gated {
        (0..shape.others.count).for_each(|i| api.create(format!("gated-{i}"), &shape.others.template));
    }
    let stop = CancellationToken::new();
    let client = Client::new(Arc::new(api.clone()));
    let config = pintle_scheduler::Config {
        informers: Informers::new(client.clone(), stop.clone()),
        client,
        clock: pintle_clock::system(),
        seed: 1,
        configuration: Arc::default(),
        metrics: pintle_scheduler::Metrics::new(&pintle_metrics::Registry::default()),
    };
    let running = tokio::spawn(pintle_scheduler::run(config, stop.clone()));
    api.watched.notified().await;
    feed(&api, "before", &shape.before, &mut |_| {}).await?;
    let mut besides = tokio::task::JoinSet::new();
    match shape.beside {
        Beside::Churn => drop(besides.spawn(churn(api.clone(), Arc::clone(&shape.others.template)))),
        Beside::Gated => drop(besides.spawn(unbind(api.clone(), shape.before.count))),
        Beside::Nothing => {}
    }
    let empty = memory();
    let measured = measure_pods(&api, &shape.measured).await?;
    row(shape, &measured, empty);
    besides.shutdown().await;
    stop.cancel();
    running.await.context("the scheduler panicked")?.context("the scheduler failed")
}

async fn measure_pods(api: &Api, pods: &Pods) -> Result<Measured> {
    api.measure("measured-");
    let (begin, start) = (Instant::now(), processor());
    let tenth = (pods.count / 10).max(1);
    let mut marks: Vec<Duration> = Vec::new();
    feed(api, "measured", pods, &mut |bound| {
        while marks.len() < bound / tenth {
            marks.push(processor());
        }
    })
    .await?;
    let end = processor();
    let first = marks.first().map(|mark| *mark - start).unwrap_or_default();
    let last = marks.get(8).map(|mark| end - *mark).unwrap_or_default();
    Ok(Measured { times: api.times(), begin, processor: [end - start, first, last] })
}

/// Creates the pods, a window at a time, and waits until all are bound.
async fn feed(api: &Api, prefix: &'static str, pods: &Pods, progress: &mut dyn FnMut(usize)) -> Result<()> {
    let measured = prefix == "measured";
    let earlier = if measured { 0 } else { api.bound_in_all() };
    let bound = |api: &Api| if measured { api.measured() } else { api.bound_in_all() - earlier };
    let mut created = 0;
    loop {
        let done = bound(api);
        progress(done);
        if done >= pods.count {
            return Ok(());
        }
        while created < pods.count && created < done + WINDOW {
            api.create(format!("{prefix}-{created}"), &pods.template);
            created += 1;
        }
        let moved = tokio::time::timeout(PATIENCE, api.binding.notified()).await;
        ensure!(moved.is_ok(), "{done} of {} pods were bound, and no more for {PATIENCE:?}", pods.count);
    }
}

async fn churn(api: Api, template: Arc<crate::api::Template>) {
    let mut ticks = tokio::time::interval(Duration::from_millis(200));
    for i in 0.. {
        ticks.tick().await;
        api.create(format!("churn-{i}"), &template);
    }
}

/// Pods go, 50 each second.
async fn unbind(api: Api, count: usize) {
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    for i in 0..count {
        ticks.tick().await;
        api.delete(&format!("before-{i}"));
    }
}

fn row(shape: &Shape, measured: &Measured, empty: u64) {
    let pods = measured.times.len().max(1);
    let took = measured.times.last().map(|end| end.duration_since(measured.begin)).unwrap_or_default();
    let mut gaps: Vec<Duration> = measured.times.windows(2).map(|two| two[1].duration_since(two[0])).collect();
    gaps.sort_unstable();
    let p99 = gaps.get(gaps.len() * 99 / 100).copied().unwrap_or_default();
    let [whole, first, last] = measured.processor;
    let now = memory();
    let floor = shape.floor.map_or_else(String::new, |(floor, workload)| format!("{floor} ({workload})"));
    say(&format!(
        "{:<24} {:>5}  {:>6}  {:>6.0}  {:>4.0} µs  {:>5.2} ms  {:>10.2}  {:>3} MiB  {:>3.1} KiB  {floor}",
        shape.name,
        shape.nodes,
        pods,
        pods as f64 / took.as_secs_f64(),
        whole.as_secs_f64() * 1e6 / pods as f64,
        p99.as_secs_f64() * 1e3,
        last.as_secs_f64() / first.as_secs_f64(),
        now / 1024,
        now.saturating_sub(empty) as f64 / pods as f64,
    ));
}

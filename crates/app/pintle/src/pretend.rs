//! `pintle hollow` and `pintle sim`: pretending nodes for a real server, and a whole cluster of them in one process.

use crate::{logging, say};
use anyhow::{Context, Result};
use pintle_cli::{Hollow, Machine, PodShape, Sim};
use pintle_client::{Client, Kubeconfig};
use pintle_hollow::{Config, Figures, Times, Watching};
use pintle_sim::{Capacity, Shape};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Between two lines that tell what was done.
const TELL: Duration = Duration::from_secs(10);

pub(crate) async fn hollow(arguments: Hollow) -> Result<()> {
    logging::start(&arguments.log_level, None)?;
    let config = config(&arguments)?;
    let figures = Arc::clone(&config.figures);
    let stop = CancellationToken::new();
    let running = tokio::spawn(pintle_hollow::run(config, stop.clone()));
    let told = tokio::spawn(tell(figures, arguments.nodes));
    ended().await?;
    told.abort();
    if !arguments.keep {
        say(format_args!("removing the nodes"));
    }
    stop.cancel();
    running.await.context("the nodes ended")
}

fn config(arguments: &Hollow) -> Result<Config> {
    let transport = Kubeconfig::load(&arguments.kubeconfig)?.transport()?;
    let client = Client::new(Arc::new(transport)).with_user_agent("kubelet");
    let duration = crate::cluster::duration;
    let times = Times {
        start: duration("pod-start", &arguments.pod_start)?,
        end: duration("pod-end", &arguments.pod_end)?,
        run: duration("pod-run", &arguments.pod_run)?,
        renew: duration("renew", &arguments.renew)?.max(Duration::from_secs(1)),
        ..Times::default()
    };
    Ok(Config {
        prefix: arguments.prefix.clone(),
        first: arguments.first,
        machine: machine(&arguments.machine),
        labels: labels(&arguments.labels)?,
        zones: arguments.zones,
        tainted: arguments.tainted,
        watching: if arguments.watch_each { Watching::Each } else { Watching::Together },
        times,
        remove: !arguments.keep,
        ..Config::new(client, pintle_clock::system(), arguments.nodes)
    })
}

fn machine(arguments: &Machine) -> pintle_hollow::Machine {
    let Machine { node_cpu, node_memory, node_pods } = *arguments;
    let memory_bytes = node_memory.saturating_mul(1 << 20);
    pintle_hollow::Machine { milli_cpu: node_cpu, memory_bytes, max_pods: node_pods }
}

fn labels(given: &[String]) -> Result<BTreeMap<String, String>> {
    let one = |text: &String| {
        let (key, value) = text.split_once('=').with_context(|| format!("--labels: {text:?} is not KEY=VALUE"))?;
        Ok((key.to_owned(), value.to_owned()))
    };
    given.iter().map(one).collect()
}

/// Tells now and then what was done, for ever.
async fn tell(figures: Arc<Figures>, nodes: u32) {
    loop {
        tokio::time::sleep(TELL).await;
        let Figures { nodes: there, renewals, started, ended, failures } = &*figures;
        let [there, renewals, started, ended, failures] =
            [there, renewals, started, ended, failures].map(|figure| figure.load(Ordering::Relaxed));
        say(format_args!(
            "{there} of {nodes} nodes; {renewals} leases renewed; pods: {started} started, {ended} ended; \
             {failures} requests failed"
        ));
    }
}

/// Waits until a person or the system asks this process to end.
async fn ended() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result.context("listen for SIGINT"),
        _ = terminate.recv() => Ok(()),
    }
}

pub(crate) async fn sim(arguments: Sim) -> Result<()> {
    const PODS_OF_A_DEPLOYMENT: u32 = 30;
    let capacity = Capacity {
        nodes: arguments.nodes,
        pods: arguments.pods,
        deployments: arguments.deployments.unwrap_or((arguments.pods / PODS_OF_A_DEPLOYMENT).max(1)),
        shape: match arguments.shape {
            PodShape::Plain => Shape::Plain,
            PodShape::Spread => Shape::Spread,
            PodShape::Apart => Shape::Apart,
        },
        services: arguments.services,
        pod_milli_cpu: arguments.pod_cpu,
        pod_memory_bytes: arguments.pod_memory.saturating_mul(1 << 20),
        machine: machine(&arguments.machine),
        start: crate::cluster::duration("pod-start", &arguments.pod_start)?,
        seed: arguments.seed,
    };
    // It has a runtime of its own, whose clock is virtual.
    let report = tokio::task::spawn_blocking(move || pintle_sim::measure(&capacity, say));
    say(report.await.context("the simulation ended")??);
    Ok(())
}

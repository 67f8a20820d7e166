//! Measures the first cluster: from start to Ready, idle memory and CPU, and from `kubectl apply` to Running.
#![allow(clippy::print_stdout)]

use anyhow::Result;
use pintle_e2e::{Cluster, Space, memory, processor_time};
use rustix::process::Signal;
use std::time::{Duration, Instant};

const STARTS: usize = 10;
const PODS: usize = 50;
const IDLE: Duration = Duration::from_secs(30);
const MIB: f64 = 1048576.0;
const LIMIT: Duration = Duration::from_secs(60);

fn main() -> Result<()> {
    let cluster = Cluster::start()?;
    starts(&cluster)?;
    idle(&cluster)?;
    pods(&cluster)?;
    cluster.finish()
}

/// One line per figure.
fn tell(name: &str, value: String) {
    println!("{name:<44} {value}");
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.0} ms", duration.as_secs_f64() * 1000.0)
}

fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let index = (sorted.len() as f64 * share).ceil() as usize;
    sorted[index.clamp(1, sorted.len()) - 1]
}

/// What a program costs that starts, asks, and does nothing: part of every figure that kubectl is in.
fn starts(cluster: &Cluster) -> Result<()> {
    let (mut answering, mut ready, mut kubectl) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..STARTS {
        cluster.stop_server(Signal::TERM)?;
        let start = Instant::now();
        cluster.start_server()?;
        answering.push(start.elapsed());
        cluster.wait_ready()?;
        ready.push(start.elapsed());
        let start = Instant::now();
        cluster.kubectl(&["version", "--client"])?.ok()?;
        kubectl.push(start.elapsed());
    }
    for (name, figures) in [
        ("start to a server that answers, median", &mut answering),
        ("start to node Ready (asked by kubectl wait), median", &mut ready),
        ("kubectl version --client, median (the floor)", &mut kubectl),
    ] {
        figures.sort();
        tell(name, milliseconds(quantile(figures, 0.5)));
    }
    Ok(())
}

fn idle(cluster: &Cluster) -> Result<()> {
    let pid = cluster.server_pid()?;
    let before = processor_time(pid)?;
    let start = Instant::now();
    while start.elapsed() < IDLE {
        std::thread::park_timeout(IDLE - start.elapsed());
    }
    let share = (processor_time(pid)? - before).as_secs_f64() / start.elapsed().as_secs_f64();
    tell("idle server, memory (PSS)", format!("{:.1} MiB", memory(pid)? as f64 / MIB));
    tell("idle server, CPU", format!("{:.2} % of a core", share * 100.0));
    Ok(())
}

fn pods(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("bench")?;
    let columns = "-o=custom-columns=N:.metadata.labels.app,P:.status.phase";
    let watching = space.spawn(&["get", "pods", "-w", "--no-headers", columns])?;
    let mut latencies = Vec::new();
    for i in 0..PODS {
        let manifest = format!(
            "---\n{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: d{i}}}, spec: {{selector: {{matchLabels: {{app: d{i}x}}}}, \
             template: {{metadata: {{labels: {{app: d{i}x}}}}, spec: {{containers: [{{name: c, image: pintle/hello, imagePullPolicy: IfNotPresent}}]}}}}}}}}"
        );
        let start = Instant::now();
        space.ok_with(&["apply", "--validate=false", "-f", "-"], &manifest)?;
        watching.expect_line(|line| line.starts_with(&format!("d{i}x ")) && line.ends_with("Running"), LIMIT)?;
        latencies.push(start.elapsed());
    }
    report_pods(cluster, &space, latencies)
}

fn report_pods(cluster: &Cluster, space: &Space<'_>, mut latencies: Vec<Duration>) -> Result<()> {
    let half = latencies.len() / 2;
    let mean = |part: &[Duration]| part.iter().sum::<Duration>() / part.len() as u32;
    let growth = mean(&latencies[half..]).as_secs_f64() / mean(&latencies[..half]).as_secs_f64();
    latencies.sort();
    tell("kubectl apply of a Deployment to Running, p50", milliseconds(quantile(&latencies, 0.5)));
    tell("kubectl apply of a Deployment to Running, p99", milliseconds(quantile(&latencies, 0.99)));
    tell("the same, second half over first half", format!("{growth:.2}"));
    let pid = cluster.server_pid()?;
    tell(&format!("server with {PODS} pods, memory (PSS)"), format!("{:.1} MiB", memory(pid)? as f64 / MIB));
    let shims = cluster.shims()?;
    let total: u64 = shims.iter().filter_map(|pid| memory(*pid).ok()).sum();
    tell("shim, memory per pod (PSS)", format!("{:.2} MiB", total as f64 / MIB / shims.len().max(1) as f64));
    drop(space.ok(&["delete", "deployments", "--all"])?);
    Ok(())
}

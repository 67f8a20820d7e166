//! Measures scheduler and controllers with many pods: from `kubectl create` of Deployments until all their pods are
//! ready on pretending nodes, and what the server uses when nothing happens any more.
//!
//! Server, nodes and kubectl share the machine. The server is a real `pintle server` over its real wire; the nodes are
//! one `pintle hollow`, whose pods are ready as soon as they are bound and seen.
#![allow(clippy::print_stdout)]

use anyhow::{Context, Result, bail, ensure};
use pintle_e2e::{Cluster, Space, Spawned, memory, processor_time, until};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(3600);
/// Deployments that one kubectl creates: fewer than its client lets through at once.
const CHUNK: usize = 100;
const LABEL: &str = "pintle.io/hollow";
/// The store keeps the past for five minutes, and deletes then what the creation of so many pods has left in it.
const SETTLED: Duration = Duration::from_secs(400);
const USAGE: &str =
    "usage: bench-controllers [--nodes 100] [--deployments 500] [--pods 10000] [--idle SECONDS] [--settled SECONDS]";

struct Arguments {
    nodes: usize,
    deployments: usize,
    pods: usize,
    /// How long is measured each time.
    idle: Duration,
    /// From the last pod that is ready until the cluster is held to be idle.
    settled: Duration,
}

impl Arguments {
    fn parse() -> Result<Self> {
        let idle = Duration::from_secs(60);
        let mut all = Self { nodes: 100, deployments: 500, pods: 10_000, idle, settled: SETTLED };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let value = words.next().and_then(|value| value.parse::<usize>().ok());
            let value = value.with_context(|| format!("{word} needs a number; {USAGE}"))?;
            match word.as_str() {
                "--nodes" => all.nodes = value,
                "--deployments" => all.deployments = value,
                "--pods" => all.pods = value,
                "--idle" => all.idle = Duration::from_secs(value as u64),
                "--settled" => all.settled = Duration::from_secs(value as u64),
                _ => bail!(USAGE),
            }
        }
        ensure!(all.nodes > 0 && all.deployments > 0 && all.idle > Duration::ZERO, USAGE);
        Ok(all)
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse()?;
    let cluster = Cluster::start()?;
    let mut hollow = nodes(&cluster, &arguments)?;
    let space = cluster.space("bench")?;
    pods(&cluster, &space, &arguments)?;
    idle(&cluster, hollow.id(), &arguments)?;
    space.ok(&["delete", "deployments", "--all", "--wait=false"])?;
    until("the pods are gone", LIMIT, || Ok((count(&space, "pods", |_| 1)? == 0).then_some(())))?;
    drop(space);
    hollow.signal(Signal::TERM)?;
    hollow.wait()?;
    cluster.finish()
}

/// One line per figure.
fn tell(name: &str, value: String) {
    println!("{name:<60} {value}");
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

/// The `pintle` beside this program.
fn pintle() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    Ok(own.parent().context("the folder of this program")?.join("pintle"))
}

fn nodes(cluster: &Cluster, arguments: &Arguments) -> Result<Spawned> {
    let wanted = arguments.nodes.to_string();
    let began = Instant::now();
    let mut command = cluster.host.command(&pintle()?.to_string_lossy());
    command.args(["hollow", "--nodes", &wanted, "--pod-start", "0s", "--pod-end", "0s", "--tainted"]);
    command.args(["--node-pods", "250"]).arg("--kubeconfig").arg(cluster.path("kubeconfig"));
    let hollow = Spawned::start(command)?;
    // The taints of new nodes go once they are seen to be ready.
    until("the nodes are ready", LIMIT, || {
        let listed = get(cluster, &format!("/api/v1/nodes?labelSelector={LABEL}"))?;
        let open = |node: &&Value| node["spec"]["taints"].as_array().is_none_or(|taints| taints.len() == 1);
        Ok((items(&listed).iter().filter(open).count() == arguments.nodes).then_some(()))
    })?;
    tell(&format!("{wanted} nodes joined"), seconds(began.elapsed()));
    Ok(hollow)
}

fn get(cluster: &Cluster, path: &str) -> Result<Value> {
    Ok(serde_json::from_str(&cluster.kubectl(&["get", "--raw", path])?.ok()?)?)
}

fn items(list: &Value) -> &[Value] {
    list["items"].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Sums up a figure of the objects in the namespace.
fn count(space: &Space<'_>, resource: &str, of: impl Fn(&Value) -> u64) -> Result<u64> {
    let api = if resource == "pods" { "api/v1" } else { "apis/apps/v1" };
    let path = format!("/{api}/namespaces/{}/{resource}", space.name);
    Ok(items(&get(space.cluster, &path)?).iter().map(of).sum())
}

fn deployment(number: usize, replicas: usize) -> Value {
    let labels = json!({"app": format!("d{number}")});
    let container = json!({
        "name": "main", "image": "app:1", "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
    });
    let pod = json!({
        "nodeSelector": {LABEL: "true"}, "tolerations": [{"key": LABEL, "operator": "Exists"}],
        "containers": [container],
    });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": format!("d{number}")},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    })
}

fn pods(cluster: &Cluster, space: &Space<'_>, arguments: &Arguments) -> Result<()> {
    let Arguments { deployments, pods, .. } = *arguments;
    let replicas = |number: usize| pods / deployments + usize::from(number < pods % deployments);
    let all: Vec<Value> = (0..deployments).map(|number| deployment(number, replicas(number))).collect();
    let lists: Vec<String> = all
        .chunks(CHUNK)
        .map(|chunk| json!({"apiVersion": "v1", "kind": "List", "items": chunk}).to_string())
        .collect();
    let pid = cluster.server_pid()?;
    let (before, used, began) = (memory(pid)?, processor_time(pid)?, Instant::now());
    std::thread::scope(|scope| {
        let create = |list: &String| space.ok_with(&["create", "--validate=false", "-f", "-"], list).map(drop);
        let started: Vec<_> = lists.iter().map(|list| scope.spawn(move || create(list))).collect();
        started.into_iter().try_for_each(|one| one.join().unwrap_or_else(|_| bail!("kubectl panicked")))
    })?;
    tell(&format!("{deployments} Deployments created by kubectl"), seconds(began.elapsed()));
    until("all pods are ready", LIMIT, || {
        let ready = count(space, "deployments", |d| d["status"]["readyReplicas"].as_u64().unwrap_or_default())?;
        Ok((ready >= pods as u64).then_some(()))
    })?;
    let (took, used) = (began.elapsed(), processor_time(pid)? - used);
    tell(&format!("{pods} pods, from the first Deployment to the last Ready"), seconds(took));
    tell("the same, pods per second", format!("{:.0}", pods as f64 / took.as_secs_f64()));
    tell(
        "the same, processor time of the server for each pod",
        format!("{:.2} ms", used.as_secs_f64() * 1e3 / pods as f64),
    );
    let more = memory(pid)?.saturating_sub(before) as f64 / 1024.0;
    tell("memory of the server (PSS) for each pod", format!("{:.1} KiB", more / pods as f64));
    Ok(())
}

/// What is used soon after the last pod is ready, and once nothing is left to do of the creation of so many.
fn idle(cluster: &Cluster, hollow: u32, arguments: &Arguments) -> Result<()> {
    let ready = Instant::now();
    let pids = [("server", cluster.server_pid()?), ("pretending nodes", hollow)];
    for after in [arguments.idle, arguments.settled.max(arguments.idle * 2)] {
        wait_until(ready + after);
        let before: Vec<Duration> = pids.iter().map(|(_, pid)| processor_time(*pid)).collect::<Result<_>>()?;
        let began = Instant::now();
        wait_until(began + arguments.idle);
        for ((who, pid), before) in pids.iter().zip(before) {
            let share = (processor_time(*pid)? - before).as_secs_f64() / began.elapsed().as_secs_f64();
            tell(
                &format!("{} pods, {} s after the last was Ready, CPU of the {who}", arguments.pods, after.as_secs()),
                format!("{:.2} % of a core", share * 100.0),
            );
        }
    }
    tell("idle, memory of the server (PSS)", format!("{} MiB", memory(cluster.server_pid()?)? >> 20));
    Ok(())
}

fn wait_until(then: Instant) {
    while let Some(left) = then.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        std::thread::park_timeout(left);
    }
}

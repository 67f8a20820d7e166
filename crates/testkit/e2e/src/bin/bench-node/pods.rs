//! A node full of pods that are created at once: how soon each runs, and what it costs in memory.

use crate::Sizes;
use crate::watched::{Seen, Watched};
use anyhow::{Context, Result};
use pintle_e2e::figures::{mebibytes, milliseconds, quantile, tell};
use pintle_e2e::{Cluster, Space, memory, processor_time, until};
use serde_json::json;
use std::collections::HashMap;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(600);

pub fn measure(sizes: &Sizes) -> Result<()> {
    let cluster = crowded(sizes.pods)?;
    let space = cluster.space("pods")?;
    // The first pod of a node pays for what is loaded lazily.
    deploy(&space)?;
    start(&space, 1)?;
    remove(&space)?;
    full(&cluster, &space, sizes.pods).with_context(|| space.describe())?;
    drop(space);
    cluster.finish()
}

/// A cluster whose node takes so many pods, and a few more.
pub fn crowded(pods: usize) -> Result<Cluster> {
    Cluster::start_with_flags(&["--max-pods", &(pods + 10).to_string()])
}

/// A Deployment without pods; theirs only are there.
pub fn deploy(space: &Space<'_>) -> Result<()> {
    let labels = json!({"app": "hello"});
    let container = json!({"name": "hello", "image": "pintle/hello:v1"});
    let template = json!({"metadata": {"labels": labels},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]}});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "hello"},
        "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}});
    space.ok_with(&["create", "-f", "-"], &deployment.to_string()).map(drop)
}

/// The controller creates all pods that are missing at once.
fn scale(space: &Space<'_>, count: usize) -> Result<()> {
    space.ok(&["scale", "deployment/hello", "--replicas", &count.to_string()]).map(drop)
}

/// Creates the pods and waits until they run.
pub fn start(space: &Space<'_>, count: usize) -> Result<HashMap<String, Seen>> {
    let watched = Watched::start(space)?;
    scale(space, count)?;
    watched.until_running(count, LIMIT)
}

/// Deletes all pods, and waits until they are gone and their shims with them.
pub fn remove(space: &Space<'_>) -> Result<()> {
    scale(space, 0)?;
    until("the pods are gone", LIMIT, || {
        let left = space.ok(&["get", "pods", "-o", "name"])?;
        Ok((left.is_empty() && space.cluster.shims()?.is_empty()).then_some(()))
    })
}

fn full(cluster: &Cluster, space: &Space<'_>, count: usize) -> Result<()> {
    let pid = cluster.server_pid()?;
    let (before, used, begun) = (memory(pid)?, processor_time(pid)?, Instant::now());
    let seen = start(space, count)?;
    let created = seen.values().map(|one| one.created).max().context("a pod")?;
    tell(&format!("{count} pods, from the scaling until the last is created"), milliseconds(created - begun));
    let last = seen.values().filter_map(|one| one.running).max().context("a pod that runs")?;
    tell(&format!("{count} pods, from the scaling until the last is Running"), milliseconds(last - begun));
    let used = processor_time(pid)? - used;
    let starts: Vec<Duration> = seen.values().filter_map(|one| Some(one.running? - one.created)).collect();
    let of = |share| milliseconds(quantile(&starts, share));
    tell("a pod, from creation to Running as a watch sees it, p50 and p99", format!("{} {}", of(0.5), of(0.99)));
    tell("processor time of the server for each pod", milliseconds(used / count as u32));
    let grown = memory(pid)?.saturating_sub(before);
    let shims = cluster.shims()?.iter().map(|pid| memory(*pid)).sum::<Result<u64>>()?;
    let each = |bytes: u64| format!("{:.0} KiB", bytes as f64 / 1024.0 / count as f64);
    tell("server before, and with the pods (PSS)", format!("{} {}", mebibytes(before), mebibytes(before + grown)));
    tell("memory per pod: what the server grew by, and shim (PSS)", format!("{} {}", each(grown), each(shims)));
    let begun = Instant::now();
    remove(space)?;
    tell(&format!("{count} pods deleted and gone"), milliseconds(begun.elapsed()));
    Ok(())
}

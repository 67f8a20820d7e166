//! The server dies without warning, and another takes over.

use anyhow::{Context, Result, ensure};
use pintle_e2e::{BUSYBOX, Cluster, suite, until};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    // One test, since it takes the server away from all others.
    suite(&[("acknowledged writes and running containers survive kill -9", survive)])
}

/// What must not change while the server is away.
fn identity(pods: &Value) -> BTreeSet<String> {
    let container = |pod: &Value| {
        let status = &pod["status"]["containerStatuses"][0];
        format!("{} {} {}", pod["metadata"]["name"], status["containerID"], status["state"]["running"]["startedAt"])
    };
    pods["items"].as_array().into_iter().flatten().map(container).collect()
}

fn survive(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("restart")?;
    space.ok(&["create", "deployment", "steady", "--image", BUSYBOX, "--replicas=3", "--", "sleep", "3600"])?;
    space.ok(&["rollout", "status", "deployment/steady", "--timeout=60s"])?;
    let before = identity(&space.json(&["pods", "-l", "app=steady"])?);
    ensure!(before.len() == 3, "{before:?}");

    let acknowledged = create_while_it_is_killed(cluster, &space)?;
    cluster.start_server()?;
    cluster.wait_ready()?;
    let kept = space.ok(&["get", "configmaps", "-o", "name"])?;
    let kept: BTreeSet<&str> = kept.lines().filter_map(|l| l.strip_prefix("configmap/")).collect();
    let lost: Vec<&String> = acknowledged.iter().filter(|name| !kept.contains(name.as_str())).collect();
    ensure!(!acknowledged.is_empty() && lost.is_empty(), "of {} acknowledged, lost: {lost:?}", acknowledged.len());

    let after = identity(&space.json(&["pods", "-l", "app=steady"])?);
    ensure!(before == after, "before: {before:?}\nafter: {after:?}");
    // The new server is in charge of the old containers, and of new ones.
    let name = before.first().and_then(|line| line.split('"').nth(1)).context("a pod")?.to_owned();
    ensure!(space.ok(&["exec", &name, "--", "echo", "adopted"])?.trim() == "adopted");
    space.ok(&["delete", "pod", &name, "--grace-period=1", "--timeout=60s"])?;
    space.ok(&["rollout", "status", "deployment/steady", "--timeout=60s"])?;
    space.ok(&["run", "fresh", "--image", BUSYBOX, "--", "sleep", "3600"])?;
    space.ok(&["wait", "--for=condition=Ready", "pod/fresh", "--timeout=60s"])?;
    until("restarts are not counted", SOON, || {
        let pods = space.json(&["pods", "-l", "app=steady"])?;
        let counts: Vec<&Value> = pods["items"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|p| &p["status"]["containerStatuses"][0]["restartCount"])
            .collect();
        Ok((counts.len() == 3 && counts.iter().all(|c| **c == 0)).then_some(()))
    })
}

/// Creates 200 objects, kills the server in the middle, and returns the names of those that it had acknowledged.
fn create_while_it_is_killed(cluster: &Cluster, space: &pintle_e2e::Space<'_>) -> Result<Vec<String>> {
    let manifest: String = (0..200)
        .map(|i| format!("---\n{{apiVersion: v1, kind: ConfigMap, metadata: {{name: map-{i}}}, data: {{n: '{i}'}}}}\n"))
        .collect();
    let file = cluster.path("maps.yaml");
    std::fs::write(&file, manifest)?;
    let creating = space.spawn(&["create", "-f", &file.to_string_lossy()])?;
    creating.expect("map-60 created", SOON)?;
    cluster.stop_server(Signal::KILL)?;
    let told = creating.output();
    drop(creating);
    let created =
        |line: &str| line.strip_suffix(" created").and_then(|l| l.strip_prefix("configmap/")).map(str::to_owned);
    let names: Vec<String> = told.lines().filter_map(created).collect();
    ensure!(names.len() >= 60 && names.len() < 200, "{} were acknowledged before the kill", names.len());
    Ok(names)
}

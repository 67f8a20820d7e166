//! Rolling updates of a Deployment that is asked all the time, from another node and from a machine that is no node.

use crate::Sizes;
use crate::load::{Load, Outcome, Target};
use anyhow::{Context, Result, ensure};
use pintle_e2e::figures::{milliseconds, quantile, tell};
use pintle_e2e::{Nodes, Space, Subject};
use serde_json::json;
use std::time::{Duration, Instant};

/// Before the first update, between them, and after the last one.
const STEADY: Duration = Duration::from_secs(5);

pub fn measure(sizes: &Sizes) -> Result<()> {
    let nodes = Nodes::start()?;
    let space = nodes.cluster.space("rolling")?;
    let result = under_load(&nodes, &space, sizes).with_context(|| space.describe());
    drop(space);
    let finished = nodes.finish();
    let outcome = result?;
    finished?;
    ensure!(outcome.failed() == 0, "{} of {} requests failed", outcome.failed(), outcome.took.len());
    Ok(())
}

fn under_load(nodes: &Nodes, space: &Space<'_>, sizes: &Sizes) -> Result<Outcome> {
    deploy(space, sizes.replicas)?;
    let spec = space.json(&["service/web"])?["spec"].take();
    let node_port = spec["ports"][0]["nodePort"].as_u64().context("a node port")?;
    let inside = spec["clusterIP"].as_str().context("a cluster address")?;
    // The node whose port is asked is not the one that asks.
    let [second, third] = nodes.agents.as_slice() else { anyhow::bail!("two agents") };
    let targets = [
        Target { from: &third.host, to: format!("{inside}:80").parse()? },
        Target { from: nodes.cluster.client(), to: format!("{}:{node_port}", second.host.address).parse()? },
    ];
    let load = Load::start(&targets, sizes.rate)?;
    let took = rolls(space, sizes.rolls);
    let outcome = load.finish()?;
    let took = took?;
    report(sizes, &outcome, &took);
    Ok(outcome)
}

fn deploy(space: &Space<'_>, replicas: u32) -> Result<()> {
    let labels = json!({"app": "web"});
    let spread = json!([{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": labels}}]);
    let probe = json!({"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1});
    // Pods that ask for no processor time have the least share there is, and wait for whatever else a node does.
    let asked = json!({"requests": {"cpu": "100m"}});
    let container = json!({"name": "hello", "image": "pintle/hello:v1", "readinessProbe": probe, "resources": asked,
        "env": [{"name": "VERSION", "value": "v0"}]});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels},
            "spec": {"topologySpreadConstraints": spread, "containers": [container]},
        }},
    });
    let ports = json!([{"port": 80, "targetPort": 8080}]);
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"type": "NodePort", "selector": labels, "ports": ports}});
    for object in [deployment, service] {
        space.ok_with(&["create", "-f", "-"], &object.to_string())?;
    }
    space.ok(&["rollout", "status", "deployment/web", "--timeout=120s"])?;
    Ok(())
}

/// How long each update took.
fn rolls(space: &Space<'_>, count: u32) -> Result<Vec<Duration>> {
    wait(STEADY);
    let mut took = Vec::new();
    for n in 1..=count {
        let begun = Instant::now();
        space.ok(&["set", "env", "deployment/web", &format!("VERSION=v{n}")])?;
        space.ok(&["rollout", "status", "deployment/web", "--timeout=150s"])?;
        took.push(begun.elapsed());
        wait(STEADY);
    }
    Ok(took)
}

fn wait(time: Duration) {
    let begun = Instant::now();
    while let Some(rest) = time.checked_sub(begun.elapsed()).filter(|rest| !rest.is_zero()) {
        std::thread::park_timeout(rest);
    }
}

fn report(sizes: &Sizes, outcome: &Outcome, took: &[Duration]) {
    let (count, seconds) = (outcome.took.len(), outcome.lasted.as_secs_f64());
    tell("requests, and per second", format!("{count} {:.0} (asked for {})", count as f64 / seconds, sizes.rate));
    tell("requests that failed", outcome.failed());
    for (what, times) in &outcome.failures {
        tell(&format!("  of them: {what}"), times);
    }
    tell("pods that answered", outcome.answers.len());
    let versions = (0..=sizes.rolls).filter(|n| outcome.answers.iter().any(|said| said.ends_with(&format!("(v{n})"))));
    tell("versions that answered", format!("{} of {}", versions.count(), sizes.rolls + 1));
    let of = |share| milliseconds(quantile(&outcome.took, share));
    tell("request on a new connection, from when it was due, p50 and p99", format!("{} {}", of(0.5), of(0.99)));
    tell(&format!("rolling update of {} pods, p50", sizes.replicas), milliseconds(quantile(took, 0.5)));
}

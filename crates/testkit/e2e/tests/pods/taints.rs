//! Pods that leave a node for its taints, or stay. These tests have the cluster for themselves.

use crate::api::{sleeper, text};
use crate::{SOON, apply, ready};
use anyhow::{Context, Result, ensure};
use pintle_e2e::{NODES, Nodes, Space, Test, until};
use serde_json::{Value, json};

pub const TESTS: &[Test<Nodes>] = &[
    ("pods stay on a tainted node for as long as they tolerate it", limits),
    ("a taint that goes in time evicts nobody", removed),
];

/// A pod of the last node that tolerates these taints, each for so many seconds or for ever.
fn tolerant(name: &str, taints: &[(&str, Option<u64>)]) -> Value {
    let tolerations = taints.iter().map(|(key, seconds)| {
        let mut toleration = json!({"key": key, "operator": "Exists", "effect": "NoExecute"});
        if let Some(seconds) = seconds {
            toleration["tolerationSeconds"] = (*seconds).into();
        }
        toleration
    });
    sleeper(name, json!({"nodeName": NODES[2], "tolerations": tolerations.collect::<Vec<_>>()}))
}

fn taint(space: &Space<'_>, what: &str) -> Result<()> {
    space.ok(&["taint", "node", NODES[2], what]).map(drop)
}

fn is_there(space: &Space<'_>, pod: &str) -> Result<bool> {
    let found = space.ok(&["get", "pod", pod, "--ignore-not-found", "-o", "json"])?;
    if found.trim().is_empty() {
        return Ok(false);
    }
    let pod: Value = serde_json::from_str(&found)?;
    Ok(pod["metadata"]["deletionTimestamp"].is_null())
}

fn leaves(space: &Space<'_>, pod: &str) -> Result<()> {
    let left = until(&format!("{pod} leaves"), SOON, || Ok((!is_there(space, pod)?).then_some(())));
    left.with_context(|| space.describe())
}

/// Runs a test that taints the last node, whose taints go whatever comes of it.
fn with_taints(space: &Space<'_>, test: impl FnOnce() -> Result<()>) -> Result<()> {
    let result = test();
    for key in ["example.com/a", "example.com/b"] {
        // It may be gone.
        let _ = space.run(&["taint", "node", NODES[2], &format!("{key}:NoExecute-")]);
    }
    result
}

fn limits(nodes: &Nodes) -> Result<()> {
    let space = nodes.cluster.space("taints")?;
    let pods = [
        tolerant("never", &[]),
        tolerant("short", &[("example.com/a", Some(3))]),
        tolerant("longer", &[("example.com/a", Some(8))]),
        tolerant("ever", &[("example.com/a", None)]),
    ];
    apply(&space, &pods)?;
    for pod in ["never", "short", "longer", "ever"] {
        ready(&space, pod)?;
    }
    with_taints(&space, || {
        taint(&space, "example.com/a=x:NoExecute")?;
        leaves(&space, "never")?;
        ensure!(is_there(&space, "longer")?, "longer has left with the one that tolerates nothing");
        leaves(&space, "short")?;
        leaves(&space, "longer")?;
        ensure!(is_there(&space, "ever")?, "ever has left");
        let events = space.json(&["events", "--field-selector", "reason=TaintManagerEviction"])?;
        let told = events["items"].as_array().into_iter().flatten().map(|event| text(&event["message"]));
        let marked = told.filter(|message| message.contains("Marking for deletion Pod")).count();
        ensure!(marked >= 3, "{events}");
        Ok(())
    })
}

fn removed(nodes: &Nodes) -> Result<()> {
    let space = nodes.cluster.space("untainted")?;
    // Both would leave at about the same time; the second taint stays, and says when that time has passed.
    let spared = tolerant("spared", &[("example.com/a", Some(4)), ("example.com/b", None)]);
    let clock = tolerant("clock", &[("example.com/a", None), ("example.com/b", Some(7))]);
    apply(&space, &[spared, clock])?;
    for pod in ["spared", "clock"] {
        ready(&space, pod)?;
    }
    with_taints(&space, || {
        taint(&space, "example.com/a=x:NoExecute")?;
        taint(&space, "example.com/a:NoExecute-")?;
        taint(&space, "example.com/b=x:NoExecute")?;
        leaves(&space, "clock")?;
        ensure!(is_there(&space, "spared")?, "a pod has left for a taint that was gone:\n{}", space.describe());
        Ok(())
    })
}

//! Room on a node for pods that it must have.

use crate::{SOON, sleeper, status_in};
use anyhow::{Context, Result, ensure};
use pintle_e2e::{BUSYBOX, Cluster, Space, until};
use serde_json::{Value, json};

/// Nothing else of the suite asks for it, so that nobody else is in the way.
const SCARCE: &str = "ephemeral-storage";

/// A pod of this node that asks for so many GiB of it.
fn asking(name: &str, gibibytes: u64, spec: Value) -> Value {
    let resources = json!({"requests": {SCARCE: format!("{gibibytes}Gi")}});
    let container = json!({"name": "c", "image": BUSYBOX, "command": ["sleep", "3600"], "resources": resources});
    let mut pod = sleeper(name, json!({"nodeName": "node-1", "containers": [container]}));
    if let (Some(fields), Some(more)) = (pod["spec"].as_object_mut(), spec.as_object()) {
        fields.extend(more.clone());
    }
    pod
}

fn create(space: &Space<'_>, pod: &Value) -> Result<()> {
    space.ok_with(&["create", "-f", "-"], &pod.to_string()).map(drop)
}

/// Whole GiB of it that the node has.
fn capacity(space: &Space<'_>) -> Result<u64> {
    let said = space.json(&["node/node-1"])?["status"]["allocatable"][SCARCE].clone();
    let kibibytes = said.as_str().and_then(|text| text.strip_suffix("Ki")?.parse::<u64>().ok());
    kibibytes.map(|kibibytes| kibibytes >> 20).with_context(|| format!("KiB of {SCARCE}: {said}"))
}

fn is_preempted(space: &Space<'_>, pod: &str) -> Result<()> {
    let status = status_in(space, pod, "Failed")?;
    ensure!(status["reason"] == "Preempting", "{status}");
    ensure!(status["message"] == "Preempted in order to admit critical pod", "{status}");
    let ended = &status["containerStatuses"][0]["state"]["terminated"];
    ensure!(ended.is_object(), "it is told before its container has ended: {status}");
    let conditions = status["conditions"].as_array().context("conditions")?;
    let target = conditions.iter().find(|c| c["type"] == "DisruptionTarget").context("its disruption")?;
    ensure!(target["reason"] == "TerminationByKubelet", "{target}");
    ensure!(target["message"] == "Pod was preempted by Kubelet to accommodate a critical pod.", "{target}");
    let told = until("the event", SOON, || {
        let field = format!("involvedObject.name={pod},reason=Preempting");
        let events = space.json(&["events", "--field-selector", &field])?["items"].clone();
        Ok(events.as_array().and_then(|list| list.first().cloned()))
    })?;
    ensure!(told["type"] == "Warning" && told["message"] == "Preempted in order to admit critical pod", "{told}");
    Ok(())
}

pub fn critical(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("room")?;
    let eighth = capacity(&space)? / 8;
    ensure!(eighth > 0, "the disk of this machine is too small to be shared out");
    for (name, eighths) in [("large", 4), ("small", 2)] {
        create(&space, &asking(name, eighths * eighth, json!({})))?;
        status_in(&space, name, "Running")?;
    }
    create(&space, &asking("usual", 5 * eighth, json!({})))?;
    let refused = status_in(&space, "usual", "Failed")?;
    ensure!(refused["reason"] == "OutOfephemeral-storage", "{refused}");
    // The larger one goes, since the smaller one alone is not enough.
    let class = json!({"priorityClassName": "system-node-critical"});
    create(&space, &asking("critical", 5 * eighth, class.clone()))?;
    status_in(&space, "critical", "Running")?;
    is_preempted(&space, "large")?;
    status_in(&space, "small", "Running")?;
    // A pod of a file is critical as it is; what is as critical stays.
    let mut own = asking("own", 3 * eighth, json!({}));
    own["metadata"]["namespace"] = space.name.clone().into();
    let file = cluster.path("manifests/own.json");
    std::fs::write(&file, own.to_string())?;
    status_in(&space, "own-node-1", "Running")?;
    is_preempted(&space, "small")?;
    create(&space, &asking("late", 4 * eighth, class))?;
    let refused = status_in(&space, "late", "Failed")?;
    ensure!(refused["reason"] == "UnexpectedAdmissionError", "{refused}");
    let message = refused["message"].as_str().context("a message")?;
    ensure!(
        message.contains("no set of running pods found to reclaim resources: [(res: ephemeral-storage, q: "),
        "{message}"
    );
    status_in(&space, "critical", "Running")?;
    std::fs::remove_file(&file)?;
    space.ok(&["wait", "--for=delete", "pod/own-node-1", "--timeout=60s"]).map(drop)
}

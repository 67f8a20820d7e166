//! Volumes on nodes that are not the server's.

use crate::claims::{SOON, apply, claim, event, gone, ready, text, user, volume_of};
use anyhow::{Result, ensure};
use pintle_e2e::{NODES, Nodes};
use std::path::PathBuf;

/// The volume is made where the pod goes, keeps later pods there, and is removed by that node's kubelet.
pub fn away(nodes: &Nodes) -> Result<()> {
    let space = nodes.cluster.space("away")?;
    let on = |name: &str, node: &str, script: &str| {
        let selector = format!("spec:\n  nodeSelector: {{kubernetes.io/hostname: {node}}}\n");
        user(name, script).replace("spec:\n", &selector)
    };
    apply(&space, &(claim("data", "") + &on("writer", NODES[1], "echo far > /data/file")))?;
    ready(&space, "writer")?;
    let volume = volume_of(&space, "data")?;
    let path = PathBuf::from(text(&volume["spec"]["local"]["path"]));
    ensure!(path.starts_with(nodes.agent(NODES[1])?.path("data")), "{}", path.display());
    ensure!(std::fs::read_to_string(path.join("file"))?.trim() == "far");
    space.ok(&["delete", "pod", "writer"])?;
    // Without a word about nodes the next pod follows the volume; with another node in mind it fits nowhere.
    apply(&space, &user("reader", "cat /data/file"))?;
    ready(&space, "reader")?;
    ensure!(space.json(&["pod/reader"])?["spec"]["nodeName"] == NODES[1]);
    ensure!(space.logs(&["reader"])?.trim() == "far");
    apply(&space, &on("stranger", NODES[2], "true"))?;
    let words = "1 node(s) didn't match PersistentVolume's node affinity, 2 node(s) didn't match Pod's node \
                 affinity/selector";
    event(&space, "FailedScheduling", words)?;
    space.ok(&["delete", "pod", "reader", "stranger"])?;
    // A node that is away keeps the directory until it is back.
    let agent = nodes.agent(NODES[1])?;
    agent.kill()?;
    space.ok(&["delete", "pvc", "data"])?;
    event_of_volume(nodes, &text(&volume["metadata"]["name"]))?;
    ensure!(path.exists());
    agent.start()?;
    gone(&space, &format!("pv/{}", text(&volume["metadata"]["name"])))?;
    ensure!(!path.exists(), "{} is still there", path.display());
    nodes.wait_ready(&NODES)
}

/// Events of volumes are in the default namespace.
fn event_of_volume(nodes: &Nodes, name: &str) -> Result<()> {
    let selector = format!("involvedObject.name={name},reason=VolumeFailedDelete");
    pintle_e2e::until("the failure is told", SOON, || {
        let told = nodes.cluster.kubectl(&["get", "events", "--field-selector", &selector, "-o", "name"])?.ok()?;
        Ok((!told.trim().is_empty()).then_some(()))
    })
}

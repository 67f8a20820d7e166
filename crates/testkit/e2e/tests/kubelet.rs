//! What a node does by itself: static pods, limits that it holds, pods that it refuses, sizes that it changes, and what
//! it tells of all that.

#[path = "kubelet/devices.rs"]
mod devices;
#[path = "kubelet/huge.rs"]
mod huge;
#[path = "kubelet/room.rs"]
mod room;
#[path = "kubelet/users.rs"]
mod users;

use anyhow::{Context, Result, ensure};
use pintle_e2e::{BUSYBOX, Cluster, Space, suite, until};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    suite(&[
        ("a static pod runs, has a mirror and ends with its file", static_pod),
        ("pods that fill their volumes are evicted", full_volume),
        ("pods that the node can't take are refused", refusals),
        ("a pod is resized in place", resize),
        ("what is used is told", usage),
        ("pods have users of their own", users::own),
        ("devices of a plugin that registers are given to pods", devices::registered),
        ("a device plugin is found by its socket", devices::found),
        ("critical pods displace others on a full node", room::critical),
        ("huge pages are counted and given", huge::pages),
    ])
}

fn sleeper(name: &str, spec: Value) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "terminationGracePeriodSeconds": 1,
        "containers": [{"name": "c", "image": BUSYBOX, "command": ["sleep", "3600"]}]}});
    let more = spec.as_object().cloned().unwrap_or_default();
    if let Some(fields) = pod["spec"].as_object_mut() {
        fields.extend(more);
    }
    pod
}

/// The status of a pod once it is in that phase.
fn status_in(space: &Space<'_>, pod: &str, phase: &str) -> Result<Value> {
    let is_in = |pod: &Value| pod["status"]["phase"] == phase;
    let found = space.until(&format!("{pod} is {phase}"), &[&format!("pod/{pod}")], SOON, is_in);
    Ok(found.with_context(|| space.describe())?["status"].take())
}

fn static_pod(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("static")?;
    let mut pod = sleeper("web", json!({}));
    pod["metadata"]["namespace"] = space.name.clone().into();
    let file = cluster.path("manifests/web.json");
    std::fs::write(&file, pod.to_string())?;
    let running = || {
        let found = space.run(&["get", "pod", "web-node-1", "-o", "json"])?.ok().ok();
        let pod = found.and_then(|text| serde_json::from_str::<Value>(&text).ok());
        Ok(pod.filter(|p| p["status"]["phase"] == "Running" && p["metadata"]["deletionTimestamp"].is_null()))
    };
    let first = until("the mirror of a static pod", SOON, running)?;
    ensure!(first["metadata"]["annotations"]["kubernetes.io/config.source"] == "file");
    space.ok(&["exec", "web-node-1", "--", "true"])?;
    space.ok(&["delete", "pod", "web-node-1", "--wait=false"])?;
    let second =
        until("another mirror", SOON, || Ok(running()?.filter(|p| p["metadata"]["uid"] != first["metadata"]["uid"])))?;
    let container = |pod: &Value| pod["status"]["containerStatuses"][0]["containerID"].clone();
    ensure!(container(&first) == container(&second), "the container ended with its mirror");
    std::fs::remove_file(&file)?;
    space.ok(&["wait", "--for=delete", "pod/web-node-1", "--timeout=60s"]).map(drop)
}

fn full_volume(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("full")?;
    let fill = "dd if=/dev/zero of=/v/x bs=1024 count=3000; sleep 3600";
    let container = json!({"name": "c", "image": BUSYBOX, "command": ["sh", "-c", fill],
        "volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    let volumes = json!([{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}]);
    let pod = sleeper("fill", json!({"containers": [container], "volumes": volumes}));
    space.ok_with(&["create", "-f", "-"], &pod.to_string())?;
    let status = status_in(&space, "fill", "Failed")?;
    ensure!(status["reason"] == "Evicted", "{status}");
    ensure!(status["message"] == "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". ", "{status}");
    Ok(())
}

fn refusals(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("refused")?;
    let sysctls = json!({"securityContext": {"sysctls": [{"name": "kernel.sem", "value": "1"}]}});
    let large = json!([{"name": "c", "image": BUSYBOX, "resources": {"requests": {"cpu": "100000"}}}]);
    for (name, spec, reason) in [
        ("sysctl", sysctls, "SysctlForbidden"),
        ("large", json!({"nodeName": "node-1", "containers": large}), "OutOfcpu"),
    ] {
        space.ok_with(&["create", "-f", "-"], &sleeper(name, spec).to_string())?;
        let status = status_in(&space, name, "Failed")?;
        ensure!(status["reason"] == reason, "{status}");
        let message = status["message"].as_str().context("a message")?;
        ensure!(message.starts_with("Pod was rejected: "), "{message}");
    }
    Ok(())
}

fn resize(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("resize")?;
    let container = |cpu: &str| json!([{"name": "c", "image": BUSYBOX, "command": ["sleep", "3600"], "resources": {"requests": {"cpu": cpu}}}]);
    let pod = sleeper("p", json!({"containers": container("10m")}));
    space.ok_with(&["create", "-f", "-"], &pod.to_string())?;
    space.ok(&["wait", "--for=condition=Ready", "pod/p", "--timeout=60s"])?;
    let resize = |cpu: &str| {
        let patch = json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}});
        space.ok(&["patch", "pod", "p", "--subresource=resize", "-p", &patch.to_string()])
    };
    resize("20m")?;
    until("the new size", SOON, || {
        let status = space.json(&["pod/p"])?["status"]["containerStatuses"][0].clone();
        let has = status["resources"]["requests"]["cpu"] == "20m" && status["allocatedResources"]["cpu"] == "20m";
        Ok((has && status["restartCount"] == 0).then_some(()))
    })?;
    resize("100000")?;
    until("the word that this is too much", SOON, || {
        let conditions = space.json(&["pod/p"])?["status"]["conditions"].to_string();
        Ok(conditions.contains("\"Infeasible\"").then_some(()))
    })
}

fn usage(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("usage")?;
    space.ok_with(&["create", "-f", "-"], &sleeper("p", json!({})).to_string())?;
    space.ok(&["wait", "--for=condition=Ready", "pod/p", "--timeout=60s"])?;
    let ask = |path: &str| space.ok(&["get", "--raw", &format!("/api/v1/nodes/node-1/proxy/{path}")]);
    let metrics = ask("metrics/resource")?;
    let line = format!("pod_memory_working_set_bytes{{namespace=\"{}\",pod=\"p\"}}", space.name);
    ensure!(metrics.contains(&line) && metrics.contains("resource_scrape_error 0"), "{metrics}");
    until("a rate of the node's processors", SOON, || {
        let summary: Value = serde_json::from_str(&ask("stats/summary")?)?;
        let pods = summary["pods"].as_array().context("pods")?;
        let pod = pods.iter().find(|p| p["podRef"]["namespace"] == space.name.as_str()).context("the pod")?;
        ensure!(pod["memory"]["workingSetBytes"].as_u64() > Some(0), "{pod}");
        ensure!(summary["node"]["memory"]["availableBytes"].as_u64() > Some(0), "{}", summary["node"]);
        Ok(summary["node"]["cpu"]["usageNanoCores"].as_u64().filter(|rate| *rate > 0).map(drop))
    })
}

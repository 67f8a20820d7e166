//! CRI from both sides: our socket serves a client's whole round, and our kubelet runs pods by Debian's containerd.

use anyhow::{Context, Result, ensure};
use pintle_e2e::{BUSYBOX, Cluster, Engine, Host, Subject, suite_on};
use serde_json::{Value, json};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// A cluster whose kubelet runs pods by containerd.
struct OnContainerd(Cluster);

impl Subject for OnContainerd {
    fn start() -> Result<Self> {
        Cluster::start_on_containerd().map(Self)
    }

    fn log(&self) -> String {
        self.0.server_log()
    }

    fn finish(self) -> Result<()> {
        self.0.finish()
    }
}

fn main() -> ExitCode {
    let ours = suite_on::<Engine>(&[("a client's round on our socket", our_round)]);
    let theirs = suite_on::<OnContainerd>(&[
        ("a client's round on containerd's socket", their_round),
        ("containerd: a pod runs, is asked and goes", pod),
        ("containerd: what ends is started again", restarts),
        ("containerd: volumes and their parts", volumes),
        ("containerd: connections are forwarded", forwarded),
        ("containerd: what is used is told", usage),
        ("containerd: logs that have grown are set aside", logs),
    ]);
    if ours == ExitCode::SUCCESS { theirs } else { ours }
}

/// The round takes place in the runtime's network: its streams are on loopback.
fn go_round(host: &Host, socket: &Path, directory: &Path) -> Result<()> {
    let words = [
        env!("CARGO_BIN_EXE_cri-round").to_owned(),
        format!("unix://{}", socket.display()),
        format!("docker.io/{BUSYBOX}"),
        directory.to_string_lossy().into_owned(),
        format!("/{}", host.name),
    ];
    host.run(&words.each_ref().map(String::as_str))?.ok().map(drop)
}

fn our_round(engine: &Engine) -> Result<()> {
    let socket = engine.path("run/cri.sock");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&socket)?.permissions());
    ensure!(mode & 0o777 == 0o660, "the socket's mode is {mode:o}");
    go_round(&engine.host, &socket, &engine.path("round"))
}

fn their_round(cluster: &OnContainerd) -> Result<()> {
    let OnContainerd(cluster) = cluster;
    go_round(&cluster.host, &cluster.containerd_socket()?, &cluster.path("round"))
}

fn with(name: &str, containers: Value, volumes: Value) -> String {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "terminationGracePeriodSeconds": 1, "containers": containers, "volumes": volumes}})
    .to_string()
}

fn pod(cluster: &OnContainerd) -> Result<()> {
    let space = cluster.0.space("pod")?;
    let node = space.json(&["node/node-1"])?;
    let version = node["status"]["nodeInfo"]["containerRuntimeVersion"].as_str().unwrap_or_default();
    ensure!(version.starts_with("containerd://1."), "{version}");
    let work = "echo hello from $HOSTNAME; echo and $COLOUR >&2; exec sleep 3600";
    let container = json!([{"name": "c", "image": BUSYBOX, "command": ["sh", "-c", work],
        "env": [{"name": "COLOUR", "value": "blue"}]}]);
    space.ok_with(&["create", "-f", "-"], &with("web", container, json!([])))?;
    space.ok(&["wait", "--for=condition=Ready", "pod/web", "--timeout=60s"])?;
    let status = space.json(&["pod/web"])?["status"].clone();
    ensure!(status["podIP"].as_str().is_some_and(|ip| ip.starts_with("10.42.")), "{status}");
    let id = status["containerStatuses"][0]["containerID"].as_str().unwrap_or_default();
    let id = id.strip_prefix("containerd://").unwrap_or_default();
    ensure!(cluster.0.ctr(&["containers", "list", "--quiet"])?.contains(id) && !id.is_empty(), "{status}");
    let logs = space.ok(&["logs", "web"])?;
    ensure!(logs.contains("hello from web\n") && logs.contains("and blue\n"), "{logs}");
    ensure!(space.ok_with(&["exec", "-i", "web", "--", "cat"], "typed")? == "typed");
    let ended = space.run(&["exec", "web", "--", "sh", "-c", "echo out; exit 3"])?;
    ensure!(ended.status.code() == Some(3) && ended.stdout == "out\n", "{}{}", ended.stdout, ended.stderr);
    space.ok(&["delete", "pod/web", "--timeout=60s"])?;
    let left = cluster.0.ctr(&["containers", "list", "--quiet"])?;
    ensure!(!left.contains(id), "{left}");
    Ok(())
}

fn restarts(cluster: &OnContainerd) -> Result<()> {
    let space = cluster.0.space("restarts")?;
    let container = json!([{"name": "c", "image": BUSYBOX, "command": ["sh", "-c", "echo once; exit 7"]}]);
    space.ok_with(&["create", "-f", "-"], &with("ends", container, json!([])))?;
    let pod = space.until("a restart", &["pod/ends"], SOON, |pod| {
        pod["status"]["containerStatuses"][0]["restartCount"].as_i64() >= Some(1)
    })?;
    let last = &pod["status"]["containerStatuses"][0]["lastState"]["terminated"];
    ensure!(last["exitCode"] == 7 && last["reason"] == "Error", "{last}");
    ensure!(space.ok(&["logs", "--previous", "ends"])? == "once\n");
    Ok(())
}

fn volumes(cluster: &OnContainerd) -> Result<()> {
    let space = cluster.0.space("volumes")?;
    space.ok(&["create", "configmap", "conf", "--from-literal=key=value", "--from-literal=other=thing"])?;
    let read = "cat /conf/key /one /part/made; grep -c ' /memory tmpfs' /proc/mounts; exec sleep 3600";
    let mounts = json!([{"name": "conf", "mountPath": "/conf"},
        {"name": "conf", "mountPath": "/one", "subPath": "other"}, {"name": "disk", "mountPath": "/part", "subPath": "a/b"},
        {"name": "memory", "mountPath": "/memory"}]);
    let write = json!([{"name": "disk", "mountPath": "/disk"}]);
    let volumes = json!([{"name": "conf", "configMap": {"name": "conf"}}, {"name": "disk", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory"}}]);
    let mut pod: Value = serde_json::from_str(&with(
        "reads",
        json!([{"name": "c", "image": BUSYBOX, "command": ["sh", "-c", read], "volumeMounts": mounts}]),
        volumes,
    ))?;
    pod["spec"]["initContainers"] = json!([{"name": "first", "image": BUSYBOX,
        "command": ["sh", "-c", "mkdir -p /disk/a/b && echo made > /disk/a/b/made"], "volumeMounts": write}]);
    space.ok_with(&["create", "-f", "-"], &pod.to_string())?;
    space.ok(&["wait", "--for=condition=Ready", "pod/reads", "--timeout=60s"])?;
    let logs = pintle_e2e::until("what was read", SOON, || {
        let logs = space.ok(&["logs", "reads"])?;
        Ok((logs.lines().count() >= 2).then_some(logs))
    })?;
    ensure!(logs == "valuethingmade\n1\n", "{logs}");
    space.ok(&["delete", "pod/reads", "--timeout=60s"]).map(drop)
}

fn forwarded(cluster: &OnContainerd) -> Result<()> {
    let space = cluster.0.space("forwarded")?;
    let serve = ["httpd", "-f", "-p", "8080", "-h", "/etc"];
    let container = json!([{"name": "c", "image": BUSYBOX, "command": serve,
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1}}]);
    space.ok_with(&["create", "-f", "-"], &with("serves", container, json!([])))?;
    space.ok(&["wait", "--for=condition=Ready", "pod/serves", "--timeout=60s"])?;
    let forward = space.spawn(&["port-forward", "pod/serves", "18081:8080"])?;
    forward.expect("Forwarding from 127.0.0.1:18081", SOON)?;
    let asked = space.cluster.host.run(&["busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:18081/passwd"])?.ok()?;
    ensure!(asked.contains("root:x:0:0"), "{asked}");
    Ok(())
}

fn usage(cluster: &OnContainerd) -> Result<()> {
    let space = cluster.0.space("usage")?;
    let container = json!([{"name": "c", "image": BUSYBOX, "command": ["sh", "-c", "while :; do :; done"],
        "resources": {"limits": {"cpu": "100m"}}}]);
    space.ok_with(&["create", "-f", "-"], &with("busy", container, json!([])))?;
    space.ok(&["wait", "--for=condition=Ready", "pod/busy", "--timeout=60s"])?;
    let used = pintle_e2e::until("usage", SOON, || {
        let summary = space.ok(&["get", "--raw", "/api/v1/nodes/node-1/proxy/stats/summary"])?;
        let summary: Value = serde_json::from_str(&summary)?;
        let mut pods = summary["pods"].as_array().into_iter().flatten();
        let pod = pods.find(|pod| pod["podRef"]["namespace"] == space.name.as_str()).context("the pod")?.clone();
        Ok((pod["containers"][0]["cpu"]["usageCoreNanoSeconds"].as_u64() > Some(0)).then_some(pod))
    })?;
    ensure!(used["containers"][0]["memory"]["workingSetBytes"].as_u64() > Some(0), "{used}");
    ensure!(used["network"]["interfaces"][0]["name"].is_string(), "{used}");
    Ok(())
}

fn logs(cluster: &OnContainerd) -> Result<()> {
    let space = cluster.0.space("logs")?;
    let work = "seq 1 250000; while :; do echo still here; sleep 1; done";
    let container = json!([{"name": "c", "image": BUSYBOX, "command": ["sh", "-c", work]}]);
    space.ok_with(&["create", "-f", "-"], &with("talks", container, json!([])))?;
    space.ok(&["wait", "--for=condition=Ready", "pod/talks", "--timeout=60s"])?;
    let uid = space.json(&["pod/talks"])?["metadata"]["uid"].as_str().context("a uid")?.to_owned();
    let folder = cluster.0.path(&format!("logs/{}_talks_{uid}/c", space.name));
    // Looked at every ten seconds.
    pintle_e2e::until("a log that was set aside", SOON, || Ok(folder.join("0.log.1").exists().then_some(())))?;
    let aside = std::fs::metadata(folder.join("0.log.1"))?.len();
    ensure!(aside >= 10 << 20, "the log was set aside at {aside} bytes");
    pintle_e2e::until("words in the new log", SOON, || {
        let told = space.ok(&["logs", "talks", "--tail=1"])?;
        let size = std::fs::metadata(folder.join("0.log"))?.len();
        Ok((told == "still here\n" && size < 1 << 20).then_some(()))
    })?;
    space.ok(&["delete", "pod/talks", "--timeout=60s"])?;
    // A moment after the pod's object.
    pintle_e2e::until("the logs of a pod that is gone are gone", SOON, || Ok((!folder.exists()).then_some(())))
}

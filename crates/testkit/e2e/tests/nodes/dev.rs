//! `pintle dev`: a cluster of several nodes on one machine is made, used from outside, and leaves nothing behind.

use anyhow::{Context, Result, ensure};
use pintle_e2e::{Dev, Nodes, until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

pub fn test(nodes: &Nodes) -> Result<()> {
    nodes.cluster.only_on_own_runtime("`pintle dev` makes nodes that run pods by themselves")?;
    let dev = Dev::new()?;
    ensure!(dev.dev(&["ls"])?.ok()?.trim() == "NAME   RUNNING   API SERVER   KUBECONFIG");
    ensure!(dev.named(&["down"])?.failed()?.contains("there is no cluster"));
    let forwarded = dev.forwards()?;
    let told = dev.named(&["up", "--nodes", "3", "--subnet", "172.30.230.0/24"])?.ok()?;
    ensure!(told.contains("of 3 nodes is ready after") && told.contains("export KUBECONFIG="), "{told}");
    ensure!(dev.named(&["up"])?.failed()?.contains("there is a cluster"));
    let checked = used(&dev);
    if checked.is_ok() {
        kill_one(&dev)?;
    }
    let gone = dev.named(&["down"])?.ok();
    checked?;
    ensure!(gone?.contains("is removed"));
    let left = dev.leftovers()?;
    ensure!(left.is_empty(), "left behind:\n{}", left.join("\n"));
    ensure!(dev.forwards()? == forwarded, "the machine passes packets on as it did before");
    Ok(())
}

const WEB: &str = "
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: hello, image: 'pintle/hello:v1', readinessProbe: {httpGet: {path: /healthz, port: 8080}}}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
";

/// The API and the nodes are reached from the user's machine; pods run on all nodes, behind one service.
fn used(dev: &Dev) -> Result<()> {
    let nodes: Value = serde_json::from_str(&dev.kubectl(&["get", "nodes", "-o", "json"], "")?)?;
    let names: BTreeSet<&str> =
        nodes["items"].as_array().into_iter().flatten().filter_map(|node| node["metadata"]["name"].as_str()).collect();
    let expected: Vec<String> = (1..=3).map(|number| dev.node(number)).collect();
    ensure!(names.iter().copied().eq(expected.iter().map(String::as_str)), "{names:?}");
    let listed = dev.dev(&["ls"])?.ok()?;
    ensure!(listed.contains("3/3") && listed.contains("https://172.30.230.2:6443"), "{listed}");
    dev.kubectl(&["apply", "-f", "-"], WEB)?;
    dev.kubectl(&["rollout", "status", "daemonset/web", "--timeout=90s"], "")?;
    let port = dev.kubectl(&["get", "service", "web", "-o", "jsonpath={.spec.ports[0].nodePort}"], "")?;
    let mut answered = BTreeSet::new();
    until("pods of all nodes answer at the third one", SOON, || {
        let request = format!("exec 3<>/dev/tcp/172.30.230.4/{port}; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3");
        let said = dev.host.run(&["timeout", "5", "bash", "-c", &request])?.ok()?;
        let who = said.split("Hello from ").nth(1).and_then(|rest| rest.split_whitespace().next());
        answered.insert(who.context("an answer")?.to_owned());
        Ok((answered.len() == 3).then_some(()))
    })?;
    let host = dev.host.run(&["uname", "-n"])?.ok()?;
    ensure!(host.trim() != dev.node(1), "the user's machine keeps its name");
    Ok(())
}

/// A node whose agent was killed is noticed, and goes with the cluster all the same.
fn kill_one(dev: &Dev) -> Result<()> {
    let path = dev.path(&dev.node(2)).join("run/pintle.pid");
    let pid = Pid::from_raw(std::fs::read_to_string(path)?.trim().parse()?).context("a process id")?;
    kill_process(pid, Signal::KILL)?;
    until("two of three nodes run", SOON, || Ok(dev.dev(&["ls"])?.ok()?.contains("2/3").then_some(())))
}

//! Pods that answer and pods that ask, on every node, and what they say to each other.

use anyhow::{Context, Result};
use pintle_e2e::{BUSYBOX, Host, NODES, Nodes, Space, until};
use serde_json::{Value, json};
use std::time::Duration;

pub const SOON: Duration = Duration::from_secs(60);

/// A pod that answers (`web-N`) and a pod that asks (`shell-N`) on every node.
pub fn everywhere(space: &Space<'_>) -> Result<()> {
    let mut pods = Vec::new();
    for (n, node) in (1..).zip(NODES) {
        for (app, container) in [
            (
                "web",
                json!({"name": "hello", "image": "pintle/hello:v1", "ports": [{"name": "http", "containerPort": 8080}]}),
            ),
            ("shell", json!({"name": "c", "image": BUSYBOX, "command": ["sleep", "3600"]})),
        ] {
            pods.push(json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": format!("{app}-{n}"), "labels": {"app": app, "number": n.to_string()}},
                "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container]},
            }));
        }
    }
    apply(space, &json!({"apiVersion": "v1", "kind": "List", "items": pods}))?;
    space.ok(&["wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s"]).map(drop)
}

pub fn apply(space: &Space<'_>, object: &Value) -> Result<()> {
    space.ok_with(&["apply", "-f", "-"], &object.to_string()).map(drop)
}

pub fn service(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

pub fn address(space: &Space<'_>, pod: &str) -> Result<String> {
    Ok(text(&space.json(&[&format!("pod/{pod}")])?["status"]["podIP"]))
}

pub fn ask(space: &Space<'_>, pod: &str, url: &str) -> Result<String> {
    space.ok(&["exec", pod, "--", "timeout", "2", "wget", "-q", "-O", "-", url]).map(|said| said.trim().to_owned())
}

/// Asks until somebody answers, or until nobody does.
pub fn reaches(space: &Space<'_>, pod: &str, url: &str, expected: bool) -> Result<()> {
    let what = format!("{url} {} {pod}", if expected { "answers" } else { "is silent to" });
    until(&what, SOON, || Ok((ask(space, pod, url).is_ok() == expected).then_some(())))
}

/// Sends a datagram and reads a line of the answer: from a pod of this address, or else from a host itself.
pub fn datagram(nodes: &Nodes, host: &Host, from: Option<&str>, to: &str, port: u64) -> Result<String> {
    // The shell's own `read` would take one byte of the datagram and lose the rest.
    let request = format!("exec 3<>/dev/udp/{to}/{port}; printf x >&3; timeout 2 head -n 1 <&3");
    let mut words = vec!["timeout".to_owned(), "5".into(), "bash".into(), "-c".into(), request];
    if let Some(address) = from {
        words.splice(0..0, ["nsenter".to_owned(), format!("--net=/proc/{}/ns/net", process_at(nodes, address)?)]);
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    host.run(&words)?.ok()
}

/// A process in the network of the pod of this address.
fn process_at(nodes: &Nodes, address: &str) -> Result<u32> {
    let host = &nodes.cluster.host;
    let has = |pid: &u32| {
        let links = ["nsenter", &format!("--net=/proc/{pid}/ns/net"), "ip", "-o", "address", "show", "to", address];
        host.run(&links).is_ok_and(|said| said.stdout.contains("eth0"))
    };
    nodes.pod_processes()?.into_iter().find(has).with_context(|| format!("no pod has the address {address}"))
}

/// What an HTTP server says to a host itself.
pub fn fetch(host: &Host, address: &str, port: u64) -> Result<String> {
    let request = format!("exec 3<>/dev/tcp/{address}/{port}; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3");
    host.run(&["timeout", "5", "bash", "-c", &request])?.ok()
}

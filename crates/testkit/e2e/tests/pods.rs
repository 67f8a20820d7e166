//! What upstream's list for certified clusters says of pods and nodes, shown from outside on three nodes.

#[path = "pods/api.rs"]
mod api;
#[path = "pods/containers.rs"]
mod containers;
#[path = "pods/env.rs"]
mod env;
#[path = "pods/hooks.rs"]
mod hooks;
#[path = "pods/node_api.rs"]
mod node_api;
#[path = "pods/probes.rs"]
mod probes;
#[path = "pods/resize.rs"]
mod resize;
#[path = "pods/security.rs"]
mod security;
#[path = "pods/taints.rs"]
mod taints;
#[path = "pods/templates.rs"]
mod templates;

use anyhow::{Context, Result, ensure};
use pintle_e2e::{BUSYBOX, Nodes, Space, Subject, suite_on};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// On the server's node delays before restarts do not grow, so that many are seen in one minute.
const DELAYS: [&str; 2] = ["--max-container-restart-period", "10s"];

/// A test of one of the modules.
type Test = pintle_e2e::Test<Three>;

/// Three nodes that tests share at the same time: none may take a node away from the others, or taint one.
struct Three(Nodes);

impl Three {
    fn space(&self, name: &str) -> Result<Space<'_>> {
        self.0.cluster.space(name)
    }
}

impl Subject for Three {
    const PARALLEL: usize = 4;

    fn start() -> Result<Self> {
        Nodes::start_with_flags(&DELAYS).map(Self)
    }

    fn log(&self) -> String {
        self.0.log()
    }

    fn finish(self) -> Result<()> {
        self.0.finish()
    }
}

fn main() -> ExitCode {
    let modules = [
        env::TESTS,
        probes::TESTS,
        hooks::TESTS,
        containers::TESTS,
        node_api::TESTS,
        resize::TESTS,
        security::TESTS,
        templates::TESTS,
    ];
    let together = suite_on(&modules.concat());
    let alone = suite_on::<Nodes>(taints::TESTS);
    if together == ExitCode::SUCCESS { alone } else { together }
}

/// A container of the image for tests that runs a shell script, with more fields or other ones.
fn container(name: &str, script: &str, more: Value) -> Value {
    let mut container = json!({ "name": name, "image": BUSYBOX, "command": ["sh", "-c", script] });
    merge(&mut container, more);
    container
}

/// A pod of containers that is not started again, with more fields of its spec or other ones.
fn pod(name: &str, containers: &[Value], more: Value) -> Value {
    let mut spec = json!({ "restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": containers });
    merge(&mut spec, more);
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name }, "spec": spec })
}

/// Sets the fields of an object; what is set to null goes.
fn merge(object: &mut Value, more: Value) {
    let (Some(object), Value::Object(more)) = (object.as_object_mut(), more) else { return };
    for (key, value) in more {
        match value.is_null() {
            true => drop(object.remove(&key)),
            false => drop(object.insert(key, value)),
        }
    }
}

/// Creates objects.
fn apply(space: &Space<'_>, objects: &[Value]) -> Result<()> {
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
    space.ok_with(&["create", "-f", "-"], &list.to_string()).map(drop)
}

/// Waits for the end of a pod.
fn ended(space: &Space<'_>, name: &str) -> Result<Value> {
    let over = |pod: &Value| matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    let ended = space.until("the pod ends", &[&format!("pod/{name}")], SOON, over);
    ended.with_context(|| space.describe())
}

/// Creates a pod, which must succeed, and returns it as it is then.
fn succeeded(space: &Space<'_>, object: &Value) -> Result<Value> {
    apply(space, std::slice::from_ref(object))?;
    let pod = ended(space, object["metadata"]["name"].as_str().unwrap_or_default())?;
    ensure!(pod["status"]["phase"] == "Succeeded", "{}\n{}", pod["status"], space.describe());
    Ok(pod)
}

/// Creates a pod of such a container, which must succeed, and returns what it printed.
fn printed(space: &Space<'_>, name: &str, container: Value) -> Result<String> {
    succeeded(space, &pod(name, &[container], Value::Null))?;
    space.ok(&["logs", name])
}

/// Waits until a pod is Ready.
fn ready(space: &Space<'_>, name: &str) -> Result<Value> {
    let wait = ["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=60s"];
    space.ok(&wait).with_context(|| space.describe())?;
    space.json(&[&format!("pod/{name}")])
}

/// What each line must be found in a text.
fn has_lines(text: &str, lines: &[&str]) -> Result<()> {
    for line in lines {
        ensure!(text.lines().any(|l| l == *line), "no line {line:?} in:\n{text}");
    }
    Ok(())
}

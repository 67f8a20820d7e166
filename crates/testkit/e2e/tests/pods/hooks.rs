//! What is done after the start and before the end of containers.

use crate::{SOON, Test, Three, apply, container, pod, ready};
use anyhow::{Context, Result, ensure};
use pintle_e2e::{Space, until};
use serde_json::{Value, json};

pub const TESTS: &[Test] = &[
    ("hooks are run after the start", post_start),
    ("hooks are run before the end", pre_stop),
    ("a container hears of its end when its hook is through", in_order),
];

/// A pod that tells in its log what it was asked for; returns its address.
fn listener(space: &Space<'_>) -> Result<String> {
    let listens = json!({ "name": "c", "image": "pintle/hello:v1" });
    apply(space, &[pod("listener", &[listens], Value::Null)])?;
    let listener = ready(space, "listener")?;
    Ok(listener["status"]["podIP"].as_str().context("an address")?.to_owned())
}

fn heard(space: &Space<'_>, path: &str) -> Result<()> {
    let told = || Ok(space.ok(&["logs", "listener"])?.lines().any(|line| line.ends_with(path)).then_some(()));
    until(&format!("{path} is asked for"), SOON, told).with_context(|| space.describe())
}

fn not_heard(space: &Space<'_>, path: &str) -> Result<()> {
    let said = space.ok(&["logs", "listener"])?;
    ensure!(!said.lines().any(|line| line.ends_with(path)), "{said}");
    Ok(())
}

/// A hook that asks by a command.
fn exec(address: &str, path: &str) -> Value {
    let script = format!("wget -q -O - http://{address}:8080{path}");
    json!({ "exec": { "command": ["sh", "-c", script] } })
}

/// A hook that asks by itself.
fn http(address: &str, path: &str) -> Value {
    json!({ "httpGet": { "host": address, "port": 8080, "path": path } })
}

fn hooked(name: &str, hook: &str, action: Value) -> Value {
    let container = container("c", "exec sleep 3600", json!({ "lifecycle": { hook: action } }));
    // Hooks before the end have a grace to be run in.
    pod(name, &[container], json!({ "terminationGracePeriodSeconds": 5 }))
}

fn post_start(nodes: &Three) -> Result<()> {
    let space = nodes.space("post-start")?;
    let address = listener(&space)?;
    let pods = [
        hooked("by-command", "postStart", exec(&address, "/hello")),
        hooked("by-request", "postStart", http(&address, "/env")),
        hooked("fails", "postStart", json!({ "exec": { "command": ["false"] } })),
    ];
    apply(&space, &pods)?;
    heard(&space, "/hello")?;
    heard(&space, "/env")?;
    ready(&space, "by-command")?;
    ready(&space, "by-request")?;
    // A container whose hook fails goes.
    let failed = crate::ended(&space, "fails")?;
    ensure!(failed["status"]["phase"] == "Failed", "{}", failed["status"]);
    let events = || Ok(space.ok(&["get", "events"])?.contains("FailedPostStartHook").then_some(()));
    until("an event tells", SOON, events)
}

fn pre_stop(nodes: &Three) -> Result<()> {
    let space = nodes.space("pre-stop")?;
    let address = listener(&space)?;
    let pods = [
        hooked("by-command", "preStop", exec(&address, "/healthz")),
        hooked("by-request", "preStop", http(&address, "/env")),
    ];
    apply(&space, &pods)?;
    ready(&space, "by-command")?;
    ready(&space, "by-request")?;
    not_heard(&space, "/healthz")?;
    not_heard(&space, "/env")?;
    space.ok(&["delete", "pod", "by-command", "by-request", "--timeout=60s"])?;
    heard(&space, "/healthz")?;
    heard(&space, "/env")
}

fn in_order(nodes: &Three) -> Result<()> {
    let space = nodes.space("in-order")?;
    let script = "trap 'echo told to end; exit 0' TERM; while true; do sleep 0.1; done";
    let hook = "echo hook begins > /proc/1/fd/1; sleep 1; echo hook ends > /proc/1/fd/1";
    let hook = json!({ "lifecycle": { "preStop": { "exec": { "command": ["sh", "-c", hook] } } } });
    let waits = pod("p", &[container("c", script, hook)], json!({ "terminationGracePeriodSeconds": 30 }));
    let sleeps = hooked("sleeps", "preStop", json!({ "sleep": { "seconds": 1 } }));
    apply(&space, &[waits, sleeps])?;
    ready(&space, "p")?;
    ready(&space, "sleeps")?;
    let following = space.spawn(&["logs", "-f", "p"])?;
    let start = std::time::Instant::now();
    space.ok(&["delete", "pod", "p", "--timeout=60s"])?;
    let took = start.elapsed().as_secs_f64();
    ensure!((1.0..15.0).contains(&took), "took {took} s: the end was not heard");
    following.expect("told to end", SOON)?;
    let said = following.output();
    ensure!(said.contains("hook begins\nhook ends\ntold to end"), "{said}");
    space.ok(&["delete", "pod", "sleeps", "--timeout=60s"]).map(drop)
}

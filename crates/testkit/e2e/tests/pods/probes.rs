//! How containers are asked whether they have started, live and are ready, and what comes of the answers.

use crate::{SOON, Test, Three, apply, container, pod, ready};
use anyhow::{Context, Result, ensure};
use pintle_e2e::{NODES, Space, until};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

/// Four back-offs of 10 s are waited for.
const BACK_OFFS: Duration = Duration::from_secs(150);

pub const TESTS: &[Test] = &[
    ("containers that fail their probes are restarted", restarted),
    ("a container is restarted as often as it fails its probe", many_times),
    ("containers that pass their probes are left alone", left_alone),
    ("a container is ready when it says so", readiness),
    ("a container has its time to start", startup),
];

/// A probe every second of which one failure is enough.
fn every_second(handler: Value) -> Value {
    let mut probe = json!({ "periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 5 });
    crate::merge(&mut probe, handler);
    probe
}

fn exec(script: &str) -> Value {
    json!({ "exec": { "command": ["sh", "-c", script] } })
}

fn http(path: &str, port: u16) -> Value {
    json!({ "httpGet": { "path": path, "port": port } })
}

/// What a server says to a client that asks for its health, byte for byte: its settings and that it heard the client's;
/// then, of stream 1, the head of an answer, a message that says "serving", and that all went well.
const SERVING: &str = r"printf '\0\0\0\4\0\0\0\0\0\0\0\0\4\1\0\0\0\0'; echo asked >> /tmp/asked; sleep 0.3; \
    printf '\0\0\024\1\4\0\0\0\1\210\017\020\020application/grpc'; \
    printf '\0\0\7\0\0\0\0\0\1\0\0\0\0\2\10\1'; \
    printf '\0\0\017\1\5\0\0\0\1\0\013grpc-status\0010'; sleep 0.3";

fn statuses(pod: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let all = pod["status"]["containerStatuses"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().map(|status| (status["name"].as_str().unwrap_or_default(), status))
}

fn status<'a>(pod: &'a Value, name: &str) -> &'a Value {
    statuses(pod).find_map(|(of, status)| (of == name).then_some(status)).unwrap_or(&Value::Null)
}

/// Waits until a container was asked so often.
fn asked(space: &Space<'_>, pod: &str, name: &str, times: usize) -> Result<()> {
    until(&format!("{name} is asked {times} times"), SOON, || {
        let said = match name {
            "http" => space.ok(&["logs", pod, "-c", name])?.replace("200 OK /healthz", "asked"),
            _ => space.ok(&["exec", pod, "-c", name, "--", "cat", "/tmp/asked"])?,
        };
        Ok((said.matches("asked").count() >= times).then_some(()))
    })
}

fn left_alone(nodes: &Three) -> Result<()> {
    let space = nodes.space("alone")?;
    let rpc = json!({ "command": ["nc", "-ll", "-p", "5000", "-e", "sh", "-c", SERVING],
        "livenessProbe": every_second(json!({ "grpc": { "port": 5000 } })) });
    let socket = json!({ "command": ["nc", "-ll", "-p", "6000", "-e", "sh", "-c", "echo asked >> /tmp/asked"],
        "livenessProbe": every_second(json!({ "tcpSocket": { "port": 6000 } })) });
    let file = json!({ "livenessProbe": every_second(exec("echo asked >> /tmp/asked; cat /tmp/health")) });
    // A folder is where its name with a slash leads.
    let moved = json!({ "livenessProbe": every_second(http("/folder", 7000)) });
    let folder = "mkdir -p /tmp/w/folder; echo here > /tmp/w/folder/index.html; exec httpd -f -p 7000 -h /tmp/w";
    let containers = [
        container("grpc", "", rpc),
        container("tcp", "", socket),
        container("file", "touch /tmp/health; exec sleep 3600", file),
        container("moved", folder, moved),
        json!({ "name": "http", "image": "pintle/hello:v1", "livenessProbe": every_second(http("/healthz", 8080)) }),
    ];
    // Servers need a moment until they listen.
    let delayed = containers.map(|mut container| {
        container["livenessProbe"]["initialDelaySeconds"] = 2.into();
        container
    });
    apply(&space, &[pod("p", &delayed, json!({ "restartPolicy": "Always" }))])?;
    ready(&space, "p")?;
    for name in ["grpc", "tcp", "file", "http"] {
        asked(&space, "p", name, 3).with_context(|| space.describe())?;
    }
    let seen = space.json(&["pod/p"])?;
    ensure!(statuses(&seen).count() == 5, "{seen}");
    for (name, status) in statuses(&seen) {
        ensure!(status["restartCount"] == 0 && status["ready"] == true, "{name}: {}", space.describe());
    }
    Ok(())
}

/// A liveness probe that leaves a server two seconds to come up.
fn liveness(handler: Value) -> Value {
    let mut probe = every_second(handler);
    probe["initialDelaySeconds"] = 2.into();
    json!({ "livenessProbe": probe })
}

/// Serves its health for three seconds.
const DIES: &str = "mkdir -p /tmp/w; echo ok > /tmp/w/healthz; httpd -p 8080 -h /tmp/w; sleep 3; rm /tmp/w/healthz; \
    exec sleep 3600";

fn restarted(nodes: &Three) -> Result<()> {
    let space = nodes.space("restarted")?;
    let folder = "mkdir -p /tmp/w/folder; cd /tmp/w; echo ok > folder/index.html; httpd -p 7000 -h /tmp/w; sleep 3; \
                  rm folder/index.html; exec sleep 3600";
    let containers = [
        container(
            "file",
            "touch /tmp/health; sleep 3; rm /tmp/health; exec sleep 3600",
            liveness(exec("cat /tmp/health")),
        ),
        container("http", DIES, liveness(http("/healthz", 8080))),
        container("moved", folder, liveness(http("/folder", 7000))),
        container("tcp", "exec sleep 3600", liveness(json!({ "tcpSocket": { "port": 6000 } }))),
        container("grpc", "exec sleep 3600", liveness(json!({ "grpc": { "port": 2333 } }))),
    ];
    apply(&space, &[pod("p", &containers, json!({ "restartPolicy": "Always" }))])?;
    let each = space.until("each was restarted", &["pod/p"], SOON, |pod| {
        ["file", "http", "moved", "tcp", "grpc"].iter().all(|name| restarts(pod, name) > 0)
    });
    each.with_context(|| space.describe())?;
    until("the events tell", SOON, || {
        let events = space.ok(&["get", "events"])?;
        let told = ["statuscode: 404", "can't open '/tmp/health'", "connection refused", "failed to connect service"];
        let lacking: Vec<_> = told.iter().filter(|words| !events.contains(**words)).collect();
        ensure!(lacking.is_empty(), "no {lacking:?} in {events}");
        Ok(Some(()))
    })
}

fn restarts(pod: &Value, name: &str) -> u64 {
    status(pod, name)["restartCount"].as_u64().unwrap_or_default()
}

fn many_times(nodes: &Three) -> Result<()> {
    let space = nodes.space("many-times")?;
    let dying = container("c", DIES, liveness(http("/healthz", 8080)));
    apply(&space, &[pod("p", &[dying], json!({ "restartPolicy": "Always", "nodeName": NODES[0] }))])?;
    let first = ready(&space, "p")?["status"]["startTime"].clone();
    // What was restarted is what there was: the pod stays, and counts never go down. Delays stay what the node allows.
    let (mut last, mut delays) = (0, BTreeSet::new());
    until("restarted five times", BACK_OFFS, || {
        let pod = space.json(&["pod/p"])?;
        let now = restarts(&pod, "c");
        ensure!(now >= last && pod["status"]["startTime"] == first, "{}", pod["status"]);
        last = now;
        let waiting = &status(&pod, "c")["state"]["waiting"];
        delays.extend((waiting["reason"] == "CrashLoopBackOff").then(|| waiting["message"].to_string()));
        Ok((now >= 5).then_some(()))
    })
    .with_context(|| space.describe())?;
    ensure!(delays.len() == 1 && delays.iter().all(|d| d.contains("back-off 10s restarting failed")), "{delays:?}");
    Ok(())
}

fn readiness(nodes: &Three) -> Result<()> {
    let space = nodes.space("readiness")?;
    let mut delayed = every_second(exec("true"));
    delayed["initialDelaySeconds"] = 5.into();
    let delayed = container("c", "exec sleep 3600", json!({ "readinessProbe": delayed }));
    let failing = every_second(exec("echo asked >> /tmp/asked; false"));
    let failing = container("c", "exec sleep 3600", json!({ "readinessProbe": failing }));
    apply(&space, &[pod("late", &[delayed], Value::Null), pod("never", &[failing], Value::Null)])?;
    let late = ready(&space, "late")?;
    let conditions = late["status"]["conditions"].as_array().context("conditions")?;
    let since = conditions.iter().find(|c| c["type"] == "Ready").map(|c| &c["lastTransitionTime"]);
    let (since, started) = (seconds(since)?, seconds(Some(&status(&late, "c")["state"]["running"]["startedAt"]))?);
    // Both are whole seconds.
    let delay = (since - started).rem_euclid(3600);
    ensure!((4..60).contains(&delay), "ready after {delay} s: {}", late["status"]);
    ensure!(status(&late, "c")["restartCount"] == 0);
    asked(&space, "never", "c", 4)?;
    let never = space.json(&["pod/never"])?;
    let status = status(&never, "c");
    ensure!(status["ready"] == false && status["restartCount"] == 0 && status["started"] == true, "{status}");
    ensure!(never["status"]["phase"] == "Running", "{}", never["status"]);
    Ok(())
}

/// Of a time, its seconds within the hour.
fn seconds(time: Option<&Value>) -> Result<i64> {
    let text = time.and_then(Value::as_str).context("a time")?;
    let (minute, second) = (text.get(14..16), text.get(17..19));
    Ok(minute.context("minutes")?.parse::<i64>()? * 60 + second.context("seconds")?.parse::<i64>()?)
}

fn startup(nodes: &Three) -> Result<()> {
    let space = nodes.space("startup")?;
    let up = || exec("test -e /tmp/up");
    let mut starting = every_second(up());
    starting["failureThreshold"] = 60.into();
    let probes = json!({ "startupProbe": starting, "livenessProbe": every_second(up()), "readinessProbe": every_second(exec("true")) });
    let mut short = every_second(up());
    short["failureThreshold"] = 2.into();
    let late = container("c", "exec sleep 3600", json!({ "startupProbe": short }));
    let slow = container("c", "exec sleep 3600", probes);
    let always = json!({ "restartPolicy": "Always" });
    apply(&space, &[pod("slow", &[slow], always.clone()), pod("late", &[late], always)])?;
    // The others are not asked before it has started.
    space.until("the late one is restarted", &["pod/late"], SOON, |pod| status(pod, "c")["restartCount"] == 1)?;
    let slow = space.until("it runs", &["pod/slow"], SOON, |pod| status(pod, "c")["state"]["running"].is_object())?;
    let slow = status(&slow, "c");
    ensure!(slow["started"] == false && slow["ready"] == false && slow["restartCount"] == 0, "{slow}");
    space.ok(&["exec", "slow", "--", "touch", "/tmp/up"])?;
    let started = ready(&space, "slow")?;
    let started = status(&started, "c");
    ensure!(started["started"] == true && started["restartCount"] == 0, "{started}");
    Ok(())
}

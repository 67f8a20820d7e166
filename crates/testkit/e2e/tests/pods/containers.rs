//! How containers start, end and tell of it: those that go first, those that fail, and what is left in files.

use crate::{SOON, Test, Three, apply, container, ended, pod, ready, succeeded};
use anyhow::{Context, Result, ensure};
use pintle_e2e::{Space, until};
use serde_json::{Value, json};
use std::time::Duration;

/// Back-offs are waited for: 10 s, then 20 s.
const BACK_OFFS: Duration = Duration::from_secs(100);

pub const TESTS: &[Test] = &[
    ("a pod waits for containers that go first and fail", first_fails),
    ("restart policies decide about restarts and phases", restarts),
    ("containers that go first do so in order", first),
    ("containers beside the others start first and end last", beside),
    ("a pod that fails says why and can be deleted", failed),
    ("containers leave words at their end", last_words),
    ("the file of hosts is managed where nobody else does", hosts),
    ("a pod may be called something else than it is", renamed),
    ("parts of volumes are named by variables", sub_paths),
];

fn condition<'a>(pod: &'a Value, kind: &str) -> &'a Value {
    let all = pod["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().find(|condition| condition["type"] == kind).unwrap_or(&Value::Null)
}

/// Two containers that go first, and one that comes then.
fn in_order(name: &str, first: &str, policy: &str) -> Value {
    let containers = [container("run1", "touch /tmp/x; exec sleep 3600", Value::Null)];
    let first = [container("init1", first, Value::Null), container("init2", "true", Value::Null)];
    pod(name, &containers, json!({ "initContainers": first, "restartPolicy": policy }))
}

fn first_fails(nodes: &Three) -> Result<()> {
    let space = nodes.space("first-fails")?;
    apply(&space, &[in_order("always", "false", "Always"), in_order("never", "false", "Never")])?;
    let never = ended(&space, "never")?;
    ensure!(never["status"]["phase"] == "Failed", "{}", never["status"]);
    incomplete(&never)?;
    ensure!(never["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 1, "{}", never["status"]);
    until("the first has failed three times", BACK_OFFS, || {
        let always = space.json(&["pod/always"])?;
        let count = always["status"]["initContainerStatuses"][0]["restartCount"].as_u64().unwrap_or_default();
        if count > 0 {
            incomplete(&always)?;
            ensure!(always["status"]["phase"] == "Pending", "{}", always["status"]);
        }
        Ok((count >= 3).then_some(()))
    })
}

/// A pod whose first container has failed: none after it has run.
fn incomplete(pod: &Value) -> Result<()> {
    let initialized = condition(pod, "Initialized");
    ensure!(initialized["status"] == "False" && initialized["reason"] == "ContainersNotInitialized", "{initialized}");
    let words = "containers with incomplete status: [init1 init2]";
    ensure!(initialized["message"] == words, "{initialized}");
    for status in [&pod["status"]["initContainerStatuses"][1], &pod["status"]["containerStatuses"][0]] {
        ensure!(status["state"]["waiting"]["reason"] == "PodInitializing" && status["restartCount"] == 0, "{status}");
    }
    Ok(())
}

fn first(nodes: &Three) -> Result<()> {
    let space = nodes.space("first")?;
    let shared = json!({ "volumeMounts": [{ "name": "v", "mountPath": "/v" }] });
    let volume = json!([{ "name": "v", "emptyDir": {} }]);
    let says = |name: &str, script: &str| container(name, script, shared.clone());
    let with =
        |first: Value, policy: &str| json!({ "initContainers": first, "volumes": volume, "restartPolicy": policy });
    let both = json!([says("init1", "sleep 0.5; echo one >> /v/said"), says("init2", "echo two >> /v/said")]);
    let never = pod("never", &[says("run1", "cat /v/said")], with(both.clone(), "Never"));
    let always = pod("always", &[says("run1", "cat /v/said; exec sleep 3600")], with(both, "Always"));
    apply(&space, &[never, always])?;
    for (name, phase) in [("never", "Succeeded"), ("always", "Running")] {
        let seen = space.until(phase, &[&format!("pod/{name}")], SOON, |pod| pod["status"]["phase"] == phase);
        let seen = seen.with_context(|| space.describe())?;
        ensure!(condition(&seen, "Initialized")["status"] == "True", "{}", seen["status"]);
        let first = seen["status"]["initContainerStatuses"].as_array().context("statuses")?;
        let done = |s: &Value| s["ready"] == true && s["state"]["terminated"]["exitCode"] == 0;
        ensure!(first.len() == 2 && first.iter().all(done), "{first:?}");
        ensure!(space.logs_to("two\n", &[name, "-c", "run1"])? == "one\ntwo\n");
    }
    Ok(())
}

fn beside(nodes: &Three) -> Result<()> {
    let space = nodes.space("beside")?;
    let shared = |more: Value| {
        let mut fields = json!({ "volumeMounts": [{ "name": "v", "mountPath": "/v" }] });
        crate::merge(&mut fields, more);
        fields
    };
    let script = "trap 'echo helper told to end >> /v/said; cat /v/said; exit 0' TERM; sleep 0.5; \
                  echo helper >> /v/said; touch /tmp/up; while true; do sleep 0.1; done";
    let probe = json!({ "exec": { "command": ["test", "-e", "/tmp/up"] }, "periodSeconds": 1 });
    let helper = container("helper", script, shared(json!({ "restartPolicy": "Always", "startupProbe": probe })));
    let then = container("then", "echo then >> /v/said", shared(json!({})));
    let main = container("main", "echo main >> /v/said", shared(json!({})));
    let more = json!({
        "initContainers": [helper, then], "volumes": [{ "name": "v", "emptyDir": {} }],
        "terminationGracePeriodSeconds": 20,
    });
    // A pod is not over before those beside the others have ended.
    let over = succeeded(&space, &pod("p", &[main], more))?;
    let said = space.ok(&["logs", "p", "-c", "helper"])?;
    ensure!(said == "helper\nthen\nmain\nhelper told to end\n", "{said}");
    let helper = &over["status"]["initContainerStatuses"][0];
    ensure!(helper["state"]["terminated"]["exitCode"] == 0 && helper["restartCount"] == 0, "{helper}");
    Ok(())
}

fn failed(nodes: &Three) -> Result<()> {
    let space = nodes.space("failed")?;
    apply(&space, &[pod("p", &[container("c", "", json!({ "command": ["/bin/false"] }))], Value::Null)])?;
    let over = ended(&space, "p")?;
    let state = &over["status"]["containerStatuses"][0]["state"]["terminated"];
    ensure!(over["status"]["phase"] == "Failed" && state["reason"] == "Error" && state["exitCode"] == 1, "{state}");
    space.ok(&["delete", "pod", "p", "--timeout=30s"])?;
    let gone = space.refused(&["get", "pod", "p"], "")?;
    ensure!(gone.contains("pods \"p\" not found"), "{gone}");
    Ok(())
}

fn restarts(nodes: &Three) -> Result<()> {
    let space = nodes.space("policies")?;
    // It fails, then ends well, then stays.
    let script = "echo x >> /v/count; n=$(cat /v/count | wc -l); test $n = 1 && exit 1; test $n = 2 && exit 0; \
                  exec sleep 3600";
    let cases = [
        ("rpa", "Always", 2, "Running", "running", true),
        ("rpof", "OnFailure", 1, "Succeeded", "terminated", false),
        ("rpn", "Never", 0, "Failed", "terminated", false),
    ];
    let made = cases.map(|(name, policy, ..)| {
        let c = container("c", script, json!({ "volumeMounts": [{ "name": "v", "mountPath": "/v" }] }));
        let volume = json!([{ "name": "v", "emptyDir": { "medium": "Memory" } }]);
        pod(name, &[c], json!({ "restartPolicy": policy, "volumes": volume }))
    });
    apply(&space, &made)?;
    for (name, _, count, phase, state, ready) in cases {
        let seen = space.until(phase, &[&format!("pod/{name}")], SOON, |pod| {
            let status = &pod["status"]["containerStatuses"][0];
            status["restartCount"] == count && pod["status"]["phase"] == phase && status["state"][state].is_object()
        });
        let seen = seen.with_context(|| format!("{name}\n{}", space.describe()))?;
        let is_ready = condition(&seen, "Ready")["status"] == "True";
        ensure!(is_ready == ready, "{}", seen["status"]);
        space.ok(&["delete", "pod", name, "--timeout=60s"])?;
    }
    Ok(())
}

fn last_words(nodes: &Three) -> Result<()> {
    let space = nodes.space("words")?;
    let logs = || json!({ "terminationMessagePolicy": "FallbackToLogsOnError" });
    let custom = json!({
        "terminationMessagePath": "/dev/termination-custom-log", "securityContext": { "runAsUser": 10000 },
    });
    let cases = [
        (container("file", "echo -n OK > /dev/termination-log; echo DONE", logs()), "OK"),
        (container("custom", "echo -n DONE > /dev/termination-custom-log", custom), "DONE"),
        (container("silent", "echo -n DONE", logs()), ""),
        (container("failing", "echo -n DONE; exit 1", logs()), "DONE"),
        (container("whole-lines", "echo LAST; echo DONE; exit 1", logs()), "LAST\nDONE\n"),
        (container("both", "echo -n LOG; echo -n FILE > /dev/termination-log; exit 1", logs()), "FILE"),
        (container("by-file", "echo -n DONE; exit 1", Value::Null), ""),
    ];
    let containers: Vec<Value> = cases.iter().map(|(container, _)| container.clone()).collect();
    apply(&space, &[pod("p", &containers, Value::Null)])?;
    let over = ended(&space, "p")?;
    let statuses = over["status"]["containerStatuses"].as_array().context("statuses")?;
    for (container, words) in &cases {
        let status = statuses.iter().find(|status| status["name"] == container["name"]).context("a status")?;
        let message = status["state"]["terminated"]["message"].as_str().unwrap_or_default();
        ensure!(message == *words, "{message:?} is not {words:?}: {status}");
    }
    Ok(())
}

fn hosts(nodes: &Three) -> Result<()> {
    let space = nodes.space("hosts")?;
    let script = "cat /etc/hosts; echo x >> /etc/hosts && echo can write";
    let mount = json!({ "volumeMounts": [{ "name": "v", "mountPath": "/etc/hosts", "readOnly": true }] });
    let containers = [
        container("managed", script, Value::Null),
        container("second", "cat /etc/hosts", Value::Null),
        container("own", "cat /etc/hosts", mount),
    ];
    let volume = json!([{ "name": "v", "hostPath": { "path": "/etc/hosts", "type": "File" } }]);
    let host = [container("managed", "cat /etc/hosts", Value::Null)];
    let seen = succeeded(&space, &pod("p", &containers, json!({ "volumes": volume })))?;
    succeeded(&space, &pod("of-host", &host, json!({ "hostNetwork": true })))?;
    let said = |pod: &str, name: &str| space.ok(&["logs", pod, "-c", name]);
    let managed = "# Kubernetes-managed hosts file.";
    for name in ["managed", "second"] {
        let said = said("p", name)?;
        let own = format!("{}\tp\n", seen["status"]["podIP"].as_str().unwrap_or_default());
        ensure!(said.starts_with(managed) && said.contains(&own), "{said}");
    }
    ensure!(said("p", "managed")?.ends_with("can write\n"));
    ensure!(!said("p", "own")?.contains(managed));
    let of_host = said("of-host", "managed")?;
    ensure!(!of_host.contains(managed) && of_host.contains("localhost"), "{of_host}");
    Ok(())
}

fn renamed(nodes: &Three) -> Result<()> {
    let space = nodes.space("renamed")?;
    let names = json!({ "hostnameOverride": "all.of.it", "hostname": "h", "subdomain": "s" });
    let asks = container("c", "hostname; cat /etc/hosts", Value::Null);
    let seen = succeeded(&space, &pod("p", &[asks], names))?;
    let said = space.ok(&["logs", "p"])?;
    let own = format!("{}\tall.of.it\n", seen["status"]["podIP"].as_str().context("an address")?);
    ensure!(said.starts_with("all.of.it\n") && said.contains(&own), "{said}");
    Ok(())
}

/// A container that sees a volume whole, and the part of it that its variables name.
fn parted(name: &str, expression: &str, value: &str, notes: Value) -> Value {
    let env = json!([
        { "name": "POD_NAME", "value": value },
        { "name": "NOTE", "valueFrom": { "fieldRef": { "fieldPath": "metadata.annotations['sub']" } } },
    ]);
    let mounts = json!([
        { "name": "v", "mountPath": "/part", "subPathExpr": expression }, { "name": "v", "mountPath": "/whole" },
    ]);
    let c = container("c", "exec sleep 3600", json!({ "env": env, "volumeMounts": mounts }));
    let mut made = pod(name, &[c], json!({ "volumes": [{ "name": "v", "emptyDir": {} }] }));
    made["metadata"]["annotations"] = notes;
    made
}

/// Waits until a container can't be made.
fn not_made(space: &Space<'_>, name: &str) -> Result<()> {
    let seen = space.until("it can't be made", &[&format!("pod/{name}")], SOON, |pod| {
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "CreateContainerConfigError"
    });
    seen.map(drop).with_context(|| space.describe())
}

fn sub_paths(nodes: &Three) -> Result<()> {
    let space = nodes.space("sub-paths")?;
    let pods = [
        parted("absolute", "$(POD_NAME)", "/tmp", json!({})),
        parted("above", "$(POD_NAME)", "..", json!({})),
        parted("mended", "$(NOTE)/$(POD_NAME)", "foo", json!({ "other": "x" })),
        parted("writes", "$(NOTE)/$(POD_NAME)", "foo", json!({ "sub": "mine" })),
    ];
    apply(&space, &pods)?;
    ready(&space, "writes")?;
    let exec = |script: &str| space.ok(&["exec", "writes", "--", "sh", "-c", script]);
    exec("touch /whole/mine/foo/test.log; test -f /part/test.log")?;
    let annotate = |pod: &str| space.ok(&["annotate", "--overwrite", "pod", pod, "sub=new"]);
    annotate("writes")?;
    for name in ["absolute", "above", "mended"] {
        not_made(&space, name)?;
    }
    annotate("mended")?;
    ready(&space, "mended")?;
    space.ok(&["exec", "mended", "--", "sh", "-c", "touch /part/x; test -f /whole/new/foo/x"])?;
    ready(&space, "writes")?;
    exec("test -f /part/test.log && ! test -e /whole/new")?;
    space.ok(&["delete", "pod", "writes", "mended", "absolute", "above", "--timeout=60s"]).map(drop)
}

//! What containers may do: users and groups, file systems, privileges, and settings of the kernel.

use crate::api::{event, sleeper, text};
use crate::{Test, Three, apply, container, ended, pod};
use anyhow::{Context, Result, ensure};
use pintle_e2e::Space;
use serde_json::{Value, json};

pub const TESTS: &[Test] = &[
    ("containers run as the users that they are to", users),
    ("containers write and gain what they may", privileges),
    ("settings of the kernel are made where that is safe", settings),
    ("classes of runtimes are checked, and cost what they say", classes),
];

/// What is asked of a pod: its name, the security contexts of pod and container, a script, and what it is to print.
type Asked<'a> = (&'a str, Value, Value, &'a str, &'a str);

/// Runs all pods at the same time, and compares what they print.
fn compare(space: &Space<'_>, asked: &[Asked<'_>]) -> Result<()> {
    let made = asked.iter().map(|(name, of_pod, of_container, script, _)| {
        let container = container("c", script, json!({"securityContext": of_container}));
        pod(name, &[container], json!({"securityContext": of_pod}))
    });
    apply(space, &made.collect::<Vec<_>>())?;
    for (name, _, _, _, expected) in asked {
        let ended = ended(space, name)?;
        let said = space.ok(&["logs", name])?;
        ensure!(ended["status"]["phase"] == "Succeeded", "{name} said {said:?}: {}", ended["status"]);
        ensure!(said.trim() == *expected, "{name} said {said:?} instead of {expected:?}");
    }
    Ok(())
}

fn users(three: &Three) -> Result<()> {
    let space = three.space("users")?;
    let who = "echo $(id -u) $(id -g) $(id -G)";
    compare(
        &space,
        &[
            ("root", json!({}), json!({"runAsUser": 0}), who, "0 0 0"),
            ("nobody", json!({}), json!({"runAsUser": 65534}), who, "65534 65534 65534"),
            (
                "of-container",
                json!({"runAsUser": 3}),
                json!({"runAsUser": 1001, "runAsGroup": 2002}),
                who,
                "1001 2002 2002",
            ),
            ("of-pod", json!({"runAsUser": 1001, "runAsGroup": 2002}), json!({}), who, "1001 2002 2002"),
            (
                "further",
                json!({"runAsUser": 1001, "fsGroup": 7, "supplementalGroups": [8]}),
                json!({"runAsGroup": 2002}),
                who,
                "1001 2002 2002 7 8",
            ),
        ],
    )?;
    // Who may not be root is not started as root.
    let container = container("c", who, json!({"securityContext": {"runAsNonRoot": true, "runAsUser": 0}}));
    apply(&space, &[pod("not-root", &[container], Value::Null)])?;
    event(&space, "not-root", "Failed", "container's runAsUser breaks non-root policy")
}

fn privileges(three: &Three) -> Result<()> {
    let space = three.space("privileges")?;
    let write = "if touch /checkfile 2>/dev/null; then echo written; else echo refused; fi";
    let privileges = "grep NoNewPrivs /proc/self/status";
    let mount = "if mount -t tmpfs none /tmp 2>/dev/null; then echo mounted; else echo refused; fi";
    let link = "ip link add dummy0 type dummy 2>&1 | grep -o 'Operation not permitted'";
    compare(
        &space,
        &[
            ("read-only", json!({}), json!({"readOnlyRootFilesystem": true}), write, "refused"),
            ("writable", json!({}), json!({"readOnlyRootFilesystem": false}), write, "written"),
            (
                "no-more",
                json!({}),
                json!({"allowPrivilegeEscalation": false, "runAsUser": 1000}),
                privileges,
                "NoNewPrivs:\t1",
            ),
            ("unsaid", json!({}), json!({"runAsUser": 1000}), privileges, "NoNewPrivs:\t0"),
            (
                "more",
                json!({}),
                json!({"allowPrivilegeEscalation": true, "runAsUser": 1000}),
                privileges,
                "NoNewPrivs:\t0",
            ),
            ("unprivileged", json!({}), json!({"privileged": false}), mount, "refused"),
            ("no-link", json!({}), json!({"privileged": false}), link, "Operation not permitted"),
            ("privileged", json!({}), json!({"privileged": true}), mount, "mounted"),
        ],
    )
}

fn with_settings(settings: &[(&str, &str)]) -> Value {
    let settings: Vec<_> = settings.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    json!({"sysctls": settings})
}

fn settings(three: &Three) -> Result<()> {
    let space = three.space("sysctls")?;
    let read = "cat /proc/sys/kernel/shm_rmid_forced";
    let set = |value| with_settings(&[("kernel.shm_rmid_forced", value)]);
    compare(&space, &[("forced", set("1"), json!({}), read, "1"), ("not-forced", set("0"), json!({}), read, "0")])?;
    // Names that are none are not taken, and those beside them are not blamed.
    let wrong = [("foo-", "bar"), ("kernel.shmmax", "100000000"), ("safe-and-unsafe", "100000000"), ("bar..", "42")];
    let wrong = pod("wrong", &[container("c", "true", Value::Null)], json!({"securityContext": with_settings(&wrong)}));
    let refused = space.refused(&["create", "-f", "-"], &wrong.to_string())?;
    for name in ["foo-", "bar.."] {
        ensure!(refused.contains(&format!("Invalid value: \"{name}\"")), "{name}: {refused}");
    }
    ensure!(!refused.contains("safe-and-unsafe") && !refused.contains("kernel.shmmax"), "{refused}");
    // Those that could harm others are the node's to allow.
    apply(
        &space,
        &[sleeper("unsafe", json!({"securityContext": with_settings(&[("kernel.msgmax", "10000000000")])}))],
    )?;
    let status = ended(&space, "unsafe")?["status"].clone();
    ensure!(status["phase"] == "Failed" && status["reason"] == "SysctlForbidden", "{status}");
    event(&space, "unsafe", "SysctlForbidden", "forbidden sysctl: \"kernel.msgmax\" not allowlisted")
}

fn class(name: &str, handler: &str, overhead: Value) -> Value {
    json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name}, "handler": handler,
        "overhead": overhead})
}

/// The name of a handler that nodes have. containerd 1 has them, and doesn't tell.
fn handler(space: &Space<'_>) -> Result<String> {
    let told = space.json(&["node/node-1"])?["status"]["runtimeHandlers"].clone();
    if space.cluster.is_on_containerd() {
        ensure!(told.is_null(), "{told}");
        return Ok("runc".to_owned());
    }
    let names = told.as_array().into_iter().flatten().map(|handler| text(&handler["name"]));
    names.into_iter().find(|name| !name.is_empty()).with_context(|| format!("no handler with a name: {told}"))
}

fn classes(three: &Three) -> Result<()> {
    let space = three.space("runtimes")?;
    let named = |what: &str| format!("{}-{what}", space.name);
    let of_class = |name: &str, class: &str| sleeper(name, json!({"runtimeClassName": class}));
    let rejected = |class: &str| -> Result<()> {
        let told = space.refused(&["create", "-f", "-"], &of_class("rejected", class).to_string())?;
        ensure!(told.contains("Forbidden") || told.contains("forbidden"), "{told}");
        ensure!(told.contains(&format!("pod rejected: RuntimeClass \"{class}\" not found")), "{told}");
        Ok(())
    };
    rejected(&named("unknown"))?;
    let known = handler(&space)?;
    let overhead = json!({"podFixed": {"cpu": "10m", "memory": "1Mi"}});
    let classes = [
        class(&named("plain"), &known, Value::Null),
        class(&named("dear"), &known, overhead.clone()),
        class(&named("lost"), "nobody-knows", Value::Null),
        class(&named("deleted"), &known, Value::Null),
    ];
    apply(&space, &classes)?;
    let result = with_classes(&space, &named, &of_class, &overhead).and_then(|()| {
        space.ok(&["delete", "runtimeclass", &named("deleted")])?;
        rejected(&named("deleted"))
    });
    for name in ["plain", "dear", "lost"] {
        space.ok(&["delete", "runtimeclass", &named(name)])?;
    }
    result.with_context(|| space.describe())
}

fn with_classes(
    space: &Space<'_>,
    named: &dyn Fn(&str) -> String,
    of_class: &dyn Fn(&str, &str) -> Value,
    overhead: &Value,
) -> Result<()> {
    let names = ["plain", "dear", "lost"];
    let pods: Vec<_> = names.iter().map(|name| of_class(name, &named(name))).collect();
    apply(space, &pods)?;
    event(space, "lost", "FailedCreatePodSandBox", "nobody-knows")?;
    let lost = space.json(&["pod/lost"])?;
    ensure!(lost["status"]["phase"] == "Pending", "{}", lost["status"]);
    let plain = crate::ready(space, "plain")?;
    ensure!(plain["spec"]["overhead"].is_null(), "{}", plain["spec"]);
    let dear = crate::ready(space, "dear")?;
    ensure!(dear["spec"]["overhead"] == overhead["podFixed"], "{}", dear["spec"]);
    Ok(())
}

//! Pods as the API shows them: their lives and generations, what they tell over WebSockets, and the end that they are
//! given by a deadline or together with others.

use crate::api::{Heard, Proxy, create, delete, get, history, items, replace, sleeper, text, update};
use crate::{SOON, Test, Three, apply, container, ended, pod, ready};
use anyhow::{Context, Result, ensure};
use pintle_e2e::{BUSYBOX, Space};
use serde_json::{Value, json};

pub const TESTS: &[Test] = &[
    ("a pod lives its life", lifecycle),
    ("the status of a pod is patched and put", status),
    ("pods go together", collection),
    ("a pod ends at its deadline", deadline),
    ("the class of a pod is told", quality),
    ("the generation of a pod counts what is asked of it", generation),
    ("five hundred updates are followed", many_updates),
    ("logs, commands and events come over websockets", websockets),
    ("containers are added to a pod that runs", ephemeral),
];

fn pods(space: &Space<'_>) -> String {
    format!("/api/v1/namespaces/{}/pods", space.name)
}

fn labelled(mut pod: Value, label: &str) -> Value {
    pod["metadata"]["labels"] = json!({"round": label});
    pod
}

fn lifecycle(three: &Three) -> Result<()> {
    let space = three.space("lifecycle")?;
    let path = pods(&space);
    let before = text(&get(&space, &path)?["metadata"]["resourceVersion"]);
    create(&space, &path, &labelled(sleeper("p", json!({})), "life"))?;
    let seen = ready(&space, "p")?;
    let status = &seen["status"];
    let node = space.json(&[&format!("node/{}", text(&seen["spec"]["nodeName"]))])?;
    let addresses = node["status"]["addresses"].to_string();
    ensure!(addresses.contains(&text(&status["hostIP"])) && !text(&status["hostIP"]).is_empty(), "{status}");
    ensure!(status["hostIPs"][0]["ip"] == status["hostIP"] && status["podIPs"][0]["ip"] == status["podIP"], "{status}");
    let patch = json!({"metadata": {"labels": {"patched": "yes"}},
        "spec": {"containers": [{"name": "c", "image": "pintle/pause:latest"}]}});
    space.ok(&["patch", "pod/p", "-p", &patch.to_string()])?;
    let updated = update(&space, &format!("{path}/p"), |pod| pod["metadata"]["labels"]["updated"] = "yes".into())?;
    ensure!(updated["metadata"]["labels"]["patched"] == "yes", "{}", updated["metadata"]);
    let listed = get(&space, "/api/v1/pods?labelSelector=updated%3Dyes,round%3Dlife")?;
    ensure!(items(&listed).iter().any(|pod| pod["metadata"]["namespace"] == space.name.as_str()), "{listed}");
    // What may not change is not changed.
    let fixed = space.refused(&["patch", "pod/p", "-p", r#"{"spec": {"nodeName": "other"}}"#], "")?;
    ensure!(fixed.contains("pod updates may not change fields other than"), "{fixed}");
    space.ok(&["delete", "pod/p", "--timeout=60s"])?;
    let events = history(&space, &path, "round%3Dlife", &before)?;
    let kinds: Vec<_> = events.iter().map(|event| text(&event["type"])).collect();
    ensure!(kinds.first().is_some_and(|kind| kind == "ADDED"), "{kinds:?}");
    ensure!(kinds.last().is_some_and(|kind| kind == "DELETED"), "{kinds:?}");
    ensure!(kinds.len() > 3 && kinds[1..kinds.len() - 1].iter().all(|kind| kind == "MODIFIED"), "{kinds:?}");
    let phases = events.iter().map(|event| text(&event["object"]["status"]["phase"])).collect::<Vec<_>>();
    let first =
        |phase: &str| phases.iter().position(|seen| seen == phase).with_context(|| format!("{phase}: {phases:?}"));
    ensure!(first("Pending")? < first("Running")?, "{phases:?}");
    Ok(())
}

/// Conditions that nobody else writes stay as they are put.
fn status(three: &Three) -> Result<()> {
    let space = three.space("status")?;
    let path = format!("{}/p", pods(&space));
    apply(&space, &[sleeper("p", json!({"readinessGates": [{"conditionType": "example.com/opened"}]}))])?;
    space.until("its container is ready", &["pod/p"], SOON, |pod| condition(pod, "ContainersReady") == "True")?;
    ensure!(condition(&space.json(&["pod/p"])?, "Ready") == "False");
    let opened = json!({"status": {"conditions": [{"type": "example.com/opened", "status": "True"}]}});
    space.ok(&["patch", "pod/p", "--subresource=status", "-p", &opened.to_string()])?;
    space.until("the gate is open", &["pod/p"], SOON, |pod| condition(pod, "Ready") == "True")?;
    let put = update(&space, &format!("{path}/status"), |pod| {
        for condition in pod["status"]["conditions"].as_array_mut().into_iter().flatten() {
            if condition["type"] == "example.com/opened" {
                condition["status"] = "False".into();
                condition["reason"] = "Closed".into();
            }
        }
        // Only the status is put this way.
        pod["spec"]["activeDeadlineSeconds"] = 3.into();
    })?;
    ensure!(put["spec"]["activeDeadlineSeconds"].is_null(), "{}", put["spec"]);
    let closed = |pod: &Value| condition(pod, "Ready") == "False" && condition(pod, "example.com/opened") == "False";
    space.until("the gate is closed", &["pod/p"], SOON, closed)?;
    let seen = get(&space, &format!("{path}/status"))?;
    ensure!(seen["status"]["conditions"].to_string().contains("\"Closed\""), "{}", seen["status"]);
    Ok(())
}

fn condition(pod: &Value, kind: &str) -> String {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.filter(|condition| condition["type"] == kind).map(|condition| text(&condition["status"])).collect()
}

fn collection(three: &Three) -> Result<()> {
    let space = three.space("together")?;
    let path = pods(&space);
    let of = |name: &str, label: &str| labelled(sleeper(name, json!({})), label);
    apply(&space, &[of("one", "go"), of("two", "go"), of("three", "go"), of("stays", "stay")])?;
    delete(&space, &format!("{path}?labelSelector=round%3Dgo"))?;
    let left = space.until("three are gone", &["pods"], SOON, |list| items(list).len() == 1)?;
    ensure!(items(&left)[0]["metadata"]["name"] == "stays", "{left}");
    Ok(())
}

fn deadline(three: &Three) -> Result<()> {
    let space = three.space("deadline")?;
    apply(&space, &[sleeper("p", json!({}))])?;
    ready(&space, "p")?;
    update(&space, &format!("{}/p", pods(&space)), |pod| pod["spec"]["activeDeadlineSeconds"] = 5.into())?;
    let over = ended(&space, "p")?["status"].clone();
    ensure!(over["phase"] == "Failed" && over["reason"] == "DeadlineExceeded", "{over}");
    ensure!(over["message"] == "Pod was active on the node longer than the specified deadline", "{over}");
    Ok(())
}

fn quality(three: &Three) -> Result<()> {
    let space = three.space("quality")?;
    let sized = |name: &str, resources: Value| {
        pod(name, &[container("c", "true", json!({"resources": resources}))], Value::Null)
    };
    let size = json!({"cpu": "100m", "memory": "100Mi"});
    apply(
        &space,
        &[
            sized("guaranteed", json!({"requests": size, "limits": size})),
            sized("burstable", json!({"requests": size})),
            sized("best", json!({})),
        ],
    )?;
    for (name, class) in [("guaranteed", "Guaranteed"), ("burstable", "Burstable"), ("best", "BestEffort")] {
        let pod = space.json(&[&format!("pod/{name}")])?;
        ensure!(pod["status"]["qosClass"] == class, "{name}: {}", pod["status"]);
    }
    Ok(())
}

/// Waits until the kubelet says that it has seen such a generation of a pod.
fn observed(space: &Space<'_>, name: &str, generation: u64) -> Result<()> {
    let what = format!("generation {generation} is observed");
    let seen = |pod: &Value| {
        let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        let mut ready = conditions.filter(|condition| condition["type"] == "Ready");
        pod["status"]["observedGeneration"] == generation && ready.all(|c| c["observedGeneration"] == generation)
    };
    space.until(&what, &[&format!("pod/{name}")], SOON, seen).map(drop)
}

type Change = fn(&mut Value);

fn generation(three: &Three) -> Result<()> {
    let space = three.space("generation")?;
    let path = pods(&space);
    let init = json!([container("i", "true", Value::Null)]);
    let mut first = sleeper("p", json!({"initContainers": init, "terminationGracePeriodSeconds": 1}));
    first["metadata"]["generation"] = 100.into();
    let made = create(&space, &path, &first)?;
    ensure!(made["metadata"]["generation"] == 1, "{}", made["metadata"]);
    ready(&space, "p")?;
    observed(&space, "p", 1)?;
    let changes: [(Change, u64); 7] = [
        (|_| {}, 1),
        (
            |pod| {
                let toleration = json!({"key": "a", "operator": "Equal", "value": "b", "effect": "NoSchedule"});
                if let Some(all) = pod["spec"]["tolerations"].as_array_mut() {
                    all.push(toleration);
                }
            },
            2,
        ),
        (|pod| pod["spec"]["activeDeadlineSeconds"] = 5000.into(), 3),
        (|pod| pod["spec"]["containers"][0]["image"] = "docker.io/e2e/busybox:1".into(), 4),
        (|pod| pod["spec"]["initContainers"][0]["image"] = "pintle/pause:latest".into(), 5),
        (|pod| pod["metadata"]["annotations"] = json!({"key": "value"}), 5),
        (|pod| pod["metadata"]["generation"] = 1.into(), 5),
    ];
    for (number, (change, expected)) in changes.into_iter().enumerate() {
        let updated = update(&space, &format!("{path}/p"), change)?;
        ensure!(updated["metadata"]["generation"] == expected, "change {number}: {}", updated["metadata"]);
    }
    observed(&space, "p", 5)?;
    // A pod that is to go gracefully has been asked something, too.
    create(&space, &path, &sleeper("gone", json!({"terminationGracePeriodSeconds": 60})))?;
    ready(&space, "gone")?;
    delete(&space, &format!("{path}/gone?gracePeriodSeconds=60"))?;
    let going = get(&space, &format!("{path}/gone"))?;
    ensure!(going["metadata"]["generation"] == 2 && !going["metadata"]["deletionTimestamp"].is_null(), "{going}");
    space.ok(&["delete", "pod", "gone", "--force", "--grace-period=0"]).map(drop)
}

/// Changes the deadline of a pod so many times, as fast as it goes.
const UPDATES: &str = r#"
import http.client, json, sys
client = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=60)
for number in range(int(sys.argv[3])):
    change = json.dumps({"spec": {"activeDeadlineSeconds": 10000 - number}})
    client.request("PATCH", sys.argv[2], change, {"Content-Type": "application/merge-patch+json"})
    answer = client.getresponse()
    words = answer.read()
    assert answer.status == 200, words
"#;

fn many_updates(three: &Three) -> Result<()> {
    let space = three.space("updates")?;
    apply(&space, &[sleeper("p", json!({}))])?;
    ready(&space, "p")?;
    let path = format!("{}/p", pods(&space));
    Proxy::start(&space)?.python(UPDATES, &[&path, "500"])?;
    let pod = get(&space, &path)?;
    ensure!(pod["metadata"]["generation"] == 501, "{}", pod["metadata"]);
    observed(&space, "p", 501)?;
    let container = &space.json(&["pod/p"])?["status"]["containerStatuses"][0];
    ensure!(container["restartCount"] == 0, "{container}");
    Ok(())
}

/// The messages that say something, put together.
fn words(heard: &Heard, kind: &str) -> String {
    heard.messages.iter().filter(|(is, _)| is == kind).map(|(_, text)| text.as_str()).collect()
}

fn websockets(three: &Three) -> Result<()> {
    let space = three.space("websockets")?;
    let alive = container("main", "echo container is alive; exec sleep 3600", Value::Null);
    apply(&space, &[pod("p", &[alive], Value::Null)])?;
    ready(&space, "p")?;
    space.logs(&["p"])?;
    let (proxy, path) = (Proxy::start(&space)?, pods(&space));
    let log = format!("{path}/p/log?container=main");
    for (protocol, kind, expected) in [
        ("binary.k8s.io", "binary", "container is alive\n"),
        ("", "binary", "container is alive\n"),
        ("base64.binary.k8s.io", "text", "Y29udGFpbmVyIGlzIGFsaXZlCg=="),
    ] {
        let heard = proxy.listen(&log, protocol)?;
        ensure!(heard.code == 101 && heard.protocol == protocol, "{heard:?}");
        ensure!(words(&heard, kind) == expected, "{heard:?}");
        ensure!(
            heard.messages.last().is_some_and(|(kind, code)| kind == "close" && code == "\u{3}\u{e8}"),
            "{heard:?}"
        );
    }
    ensure!(proxy.listen(&log, "v9.example.com")?.code == 403);
    // The first byte of a message says which stream it is of.
    let exec = format!("{path}/p/exec?container=main&stdout=1&stderr=1&command=echo&command=remote%20execution%20test");
    let heard = proxy.listen(&exec, "v4.channel.k8s.io")?;
    ensure!(heard.code == 101 && heard.protocol == "v4.channel.k8s.io", "{heard:?}");
    let channel =
        |number: char| -> String { heard.messages.iter().filter_map(|(_, text)| text.strip_prefix(number)).collect() };
    ensure!(channel('\u{1}') == "remote execution test\n", "{heard:?}");
    ensure!(channel('\u{3}').contains("\"status\":\"Success\""), "{heard:?}");
    let heard = proxy.listen(&format!("{path}?watch=1&timeoutSeconds=1&fieldSelector=metadata.name%3Dp"), "")?;
    let event: Value = serde_json::from_str(words(&heard, "text").lines().next().unwrap_or_default())?;
    ensure!(event["type"] == "ADDED" && event["object"]["metadata"]["name"] == "p", "{event}");
    Ok(())
}

fn ephemeral(three: &Three) -> Result<()> {
    let space = three.space("ephemeral")?;
    apply(&space, &[sleeper("p", json!({}))])?;
    ready(&space, "p")?;
    let path = format!("{}/p/ephemeralcontainers", pods(&space));
    let debugger = |name: &str| {
        json!({"name": name, "image": BUSYBOX, "command": ["sh", "-c", format!("echo here is {name}; exec sleep 3600")],
            "terminationMessagePolicy": "File"})
    };
    let first = json!({"spec": {"ephemeralContainers": [debugger("first")]}});
    space.ok(&["patch", "pod/p", "--subresource=ephemeralcontainers", "-p", &first.to_string()])?;
    let runs = |count: usize| {
        move |pod: &Value| {
            let all = pod["status"]["ephemeralContainerStatuses"].as_array().into_iter().flatten();
            all.filter(|status| status["state"]["running"].is_object()).count() == count
        }
    };
    space.until("the first runs", &["pod/p"], SOON, runs(1)).with_context(|| space.describe())?;
    let second = |pod: &mut Value| {
        if let Some(all) = pod["spec"]["ephemeralContainers"].as_array_mut() {
            all.push(debugger("second"));
        }
    };
    update(&space, &path, second)?;
    let both = space.until("both run", &["pod/p"], SOON, runs(2)).with_context(|| space.describe())?;
    ensure!(both["status"]["containerStatuses"][0]["restartCount"] == 0, "{}", both["status"]);
    for name in ["first", "second"] {
        let here = format!("here is {name}\n");
        ensure!(space.logs_to(&here, &["p", "-c", name])? == here);
    }
    // They stay, and stay as they are.
    let mut without = get(&space, &format!("{}/p", pods(&space)))?;
    without["spec"]["ephemeralContainers"] = json!([debugger("first")]);
    let kept = replace(&space, &path, &without).err().context("a container was taken away")?;
    ensure!(format!("{kept:#}").contains("existing ephemeral containers"), "{kept:#}");
    Ok(())
}

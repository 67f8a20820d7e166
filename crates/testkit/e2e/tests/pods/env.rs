//! What containers get in their environment: from maps and secrets, from each other, of services and of their pod.

use crate::{Test, Three, apply, container, ended, has_lines, pod, printed, succeeded};
use anyhow::{Context, Result, ensure};
use pintle_e2e::{BUSYBOX, Space};
use serde_json::{Value, json};

pub const TESTS: &[Test] = &[
    ("the environment comes from maps and secrets", sources),
    ("variables are expanded in variables, commands and arguments", expansion),
    ("the commands of images are kept and replaced", commands),
    ("services that are there are told in the environment", services),
    ("a pod tells of itself in the environment", of_itself),
    ("limits and requests are told in the environment", resources),
    ("maps and secrets live their lives", lives),
];

/// A map and a secret with the same keys; some are no names of variables elsewhere.
fn map_and_secret() -> [Value; 2] {
    let data = json!({ "data-1": "value-1", "data_2": "value-2", "3.data": "value-3" });
    let metadata = json!({ "name": "source" });
    [
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data }),
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data }),
    ]
}

fn sources(nodes: &Three) -> Result<()> {
    let space = nodes.space("sources")?;
    apply(&space, &map_and_secret())?;
    let from = |prefix: &str, kind: &str| json!({ "prefix": prefix, kind: { "name": "source" } });
    let key = |kind: &str| json!({ kind: { "name": "source", "key": "data-1" } });
    let env = json!([
        { "name": "CONFIG_DATA", "valueFrom": key("configMapKeyRef") },
        { "name": "SECRET_DATA", "valueFrom": key("secretKeyRef") },
        { "name": "MAYBE", "valueFrom": { "configMapKeyRef": { "name": "none", "key": "none", "optional": true } } },
    ]);
    let plain = [from("", "configMapRef"), from("p-", "configMapRef"), from("s_", "secretRef")];
    let odd = [from("#$%", "configMapRef"), from("1 + ", "secretRef"), from("p.", "secretRef")];
    let secrets = [from("", "secretRef"), from("p-", "secretRef")];
    let containers = [
        container("plain", "", json!({ "command": ["env"], "env": env, "envFrom": plain })),
        container("odd", "", json!({ "command": ["env"], "envFrom": odd })),
        container("secrets", "", json!({ "command": ["env"], "envFrom": secrets })),
    ];
    succeeded(&space, &pod("p", &containers, Value::Null))?;
    let said = |name: &str| space.ok(&["logs", "p", "-c", name]);
    let plain = said("plain")?;
    has_lines(&plain, &["CONFIG_DATA=value-1", "SECRET_DATA=value-1", "data-1=value-1", "3.data=value-3"])?;
    has_lines(&plain, &["p-data_2=value-2", "p-3.data=value-3", "s_data-1=value-1"])?;
    ensure!(!plain.contains("MAYBE"), "{plain}");
    has_lines(&said("odd")?, &["#$%data-1=value-1", "1 + data_2=value-2", "p.3.data=value-3"])?;
    has_lines(&said("secrets")?, &["data-1=value-1", "3.data=value-3", "p-data-1=value-1", "p-data_2=value-2"])
}

fn expansion(nodes: &Three) -> Result<()> {
    let space = nodes.space("expansion")?;
    let env = json!([
        { "name": "FOO", "value": "foo-value" },
        { "name": "BAR", "value": "bar-value" },
        { "name": "FOOBAR", "value": "$(FOO);;$(BAR)" },
        { "name": "KEPT", "value": "$$(FOO) $(NONE) $(LATER)" },
        { "name": "LATER", "value": "x" },
    ]);
    let script = "FOO=wrong echo \"$(FOO)\"";
    let command = container("command", script, json!({ "env": env }));
    let arguments = container("arguments", "", json!({ "env": env, "command": ["sh", "-c"], "args": [script] }));
    let composed = container("composed", "env", json!({ "env": env }));
    succeeded(&space, &pod("p", &[command, arguments, composed], Value::Null))?;
    let said = |name: &str| space.ok(&["logs", "p", "-c", name]);
    ensure!(said("command")? == "foo-value\n" && said("arguments")? == "foo-value\n");
    let lines = ["FOO=foo-value", "FOOBAR=foo-value;;bar-value", "KEPT=$(FOO) $(NONE) $(LATER)"];
    has_lines(&said("composed")?, &lines)
}

fn commands(nodes: &Three) -> Result<()> {
    let space = nodes.space("commands")?;
    // The image of these has a command and no entry point.
    let with = |name: &str, more: Value| {
        let mut made = json!({ "name": name, "image": BUSYBOX });
        crate::merge(&mut made, more);
        made
    };
    let containers = [
        with("neither", json!({})),
        with("arguments", json!({ "args": ["echo", "only", "arguments"] })),
        with("command", json!({ "command": ["echo", "command"] })),
        with("both", json!({ "command": ["echo", "command"], "args": ["and", "arguments"] })),
    ];
    // And that of these has an entry point and no command.
    let greeter = |name: &str, port: &str, more: Value| {
        let env = json!([{ "name": "PORT", "value": port }]);
        let mut made = json!({ "name": name, "image": "pintle/hello:v1", "env": env });
        crate::merge(&mut made, more);
        made
    };
    let greeters = [
        greeter("neither", "8080", json!({})),
        greeter("arguments", "8081", json!({ "args": ["none", "that", "it", "knows"] })),
        greeter("command", "8082", json!({ "command": ["/hello", "again"] })),
    ];
    apply(&space, &[pod("p", &containers, Value::Null), pod("greeters", &greeters, Value::Null)])?;
    let over = ended(&space, "p")?;
    ensure!(over["status"]["phase"] == "Succeeded", "{}", over["status"]);
    let said = |pod: &str, name: &str| space.ok(&["logs", pod, "-c", name]);
    ensure!(said("p", "neither")?.is_empty());
    ensure!(said("p", "arguments")? == "only arguments\n");
    ensure!(said("p", "command")? == "command\n");
    ensure!(said("p", "both")? == "command and arguments\n");
    crate::ready(&space, "greeters")?;
    for (name, port) in [("neither", "8080"), ("arguments", "8081"), ("command", "8082")] {
        let expected = format!("hello v1 from greeters, listening on port {port}");
        space.logs_to(&expected, &["greeters", "-c", name])?;
    }
    Ok(())
}

fn services(nodes: &Three) -> Result<()> {
    let space = nodes.space("services")?;
    let spec = json!({ "ports": [{ "port": 8765, "targetPort": 8080 }] });
    apply(
        &space,
        &[json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "foo-service" }, "spec": spec })],
    )?;
    let service = space.json(&["service/foo-service"])?;
    let address = service["spec"]["clusterIP"].as_str().context("an address")?;
    let said = printed(&space, "p", container("c", "env", Value::Null))?;
    let lines = [
        format!("FOO_SERVICE_SERVICE_HOST={address}"),
        "FOO_SERVICE_SERVICE_PORT=8765".to_owned(),
        format!("FOO_SERVICE_PORT=tcp://{address}:8765"),
        format!("FOO_SERVICE_PORT_8765_TCP=tcp://{address}:8765"),
        "FOO_SERVICE_PORT_8765_TCP_PROTO=tcp".to_owned(),
        "FOO_SERVICE_PORT_8765_TCP_PORT=8765".to_owned(),
        format!("FOO_SERVICE_PORT_8765_TCP_ADDR={address}"),
        "KUBERNETES_SERVICE_PORT_HTTPS=443".to_owned(),
    ];
    has_lines(&said, &lines.each_ref().map(String::as_str))?;
    // A pod may do without them; those of the API server stay.
    succeeded(&space, &pod("q", &[container("c", "env", Value::Null)], json!({ "enableServiceLinks": false })))?;
    let said = space.ok(&["logs", "q"])?;
    ensure!(!said.contains("FOO_SERVICE") && said.contains("KUBERNETES_SERVICE_HOST="), "{said}");
    Ok(())
}

fn of_itself(nodes: &Three) -> Result<()> {
    let space = nodes.space("itself")?;
    let fields = [
        ("UID", "metadata.uid"),
        ("NAME", "metadata.name"),
        ("SPACE", "metadata.namespace"),
        ("IP", "status.podIP"),
        ("IPS", "status.podIPs"),
        ("HOST", "status.hostIP"),
        ("HOSTS", "status.hostIPs"),
        ("NODE", "spec.nodeName"),
        ("ACCOUNT", "spec.serviceAccountName"),
        ("LABEL", "metadata.labels['a/b']"),
        ("NOTE", "metadata.annotations['c']"),
    ];
    let field =
        |(name, path): &(&str, &str)| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
    let env: Vec<Value> = fields.iter().map(field).collect();
    let mut asked = pod("p", &[container("c", "env", json!({ "env": env }))], Value::Null);
    asked["metadata"]["labels"] = json!({ "a/b": "labelled" });
    asked["metadata"]["annotations"] = json!({ "c": "noted here" });
    let seen = succeeded(&space, &asked)?;
    let said = space.ok(&["logs", "p"])?;
    let told =
        |name: &str| said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default();
    let node = space.json(&[&format!("node/{}", told("NODE"))])?;
    let addresses = node["status"]["addresses"].as_array().context("addresses")?;
    let internal = addresses.iter().find(|address| address["type"] == "InternalIP").context("an address")?;
    ensure!(seen["metadata"]["uid"] == told("UID") && !told("UID").is_empty(), "{said}");
    ensure!(told("NAME") == "p" && told("SPACE") == space.name, "{said}");
    ensure!(told("IP").starts_with("10.42.") && told("IPS") == told("IP"), "{said}");
    ensure!(internal["address"] == told("HOST") && told("HOSTS") == told("HOST"), "{said}");
    ensure!(seen["spec"]["nodeName"] == told("NODE") && seen["status"]["hostIP"] == told("HOST"), "{said}");
    ensure!(told("ACCOUNT") == "default" && told("LABEL") == "labelled" && told("NOTE") == "noted here", "{said}");
    Ok(())
}

/// Variables of what a container asks for and may have.
fn measures() -> Value {
    let pairs = [
        ("CPU_LIMIT", "limits.cpu"),
        ("MEMORY_LIMIT", "limits.memory"),
        ("CPU_REQUEST", "requests.cpu"),
        ("MEMORY_REQUEST", "requests.memory"),
    ];
    let one =
        |(name, path): (&str, &str)| json!({ "name": name, "valueFrom": { "resourceFieldRef": { "resource": path } } });
    pairs.map(one).to_vec().into()
}

fn resources(nodes: &Three) -> Result<()> {
    let space = nodes.space("resources")?;
    let asked =
        json!({ "requests": { "cpu": "50m", "memory": "32Mi" }, "limits": { "cpu": "1250m", "memory": "64Mi" } });
    let containers = [
        container("some", "env", json!({ "env": measures(), "resources": asked })),
        container("none", "env", json!({ "env": measures() })),
    ];
    let seen = succeeded(&space, &pod("p", &containers, Value::Null))?;
    let lines = ["CPU_LIMIT=2", "MEMORY_LIMIT=67108864", "CPU_REQUEST=1", "MEMORY_REQUEST=33554432"];
    has_lines(&space.ok(&["logs", "p", "-c", "some"])?, &lines)?;
    // Who has no limit has that of the node, and who asks for nothing, nothing.
    let node = space.json(&[&format!("node/{}", seen["spec"]["nodeName"].as_str().unwrap_or_default())])?;
    let allocatable = |what: &str| node["status"]["allocatable"][what].as_str().unwrap_or_default().to_owned();
    let kibibytes: u64 = allocatable("memory").trim_end_matches("Ki").parse()?;
    let (cpu, memory) = (format!("CPU_LIMIT={}", allocatable("cpu")), format!("MEMORY_LIMIT={}", kibibytes << 10));
    has_lines(&space.ok(&["logs", "p", "-c", "none"])?, &[&cpu, &memory, "CPU_REQUEST=0", "MEMORY_REQUEST=0"])
}

fn lives(nodes: &Three) -> Result<()> {
    let space = nodes.space("lives")?;
    life(&space, "ConfigMap", "configmaps", |text| text.to_owned())?;
    // In base64.
    life(&space, "Secret", "secrets", |text| if text == "first" { "Zmlyc3Q=" } else { "c2Vjb25k" }.to_owned())
}

/// Creates, reads, patches, replaces, finds and deletes objects that hold data.
fn life(space: &Space<'_>, kind: &str, resource: &str, stored: fn(&str) -> String) -> Result<()> {
    let mut object = json!({
        "apiVersion": "v1", "kind": kind,
        "metadata": { "name": "one", "labels": { "life": &space.name } }, "data": { "key": stored("first") },
    });
    apply(space, std::slice::from_ref(&object))?;
    let name = &format!("{resource}/one");
    ensure!(space.json(&[name])?["data"] == object["data"]);
    let patch = json!({ "metadata": { "labels": { "patched": "yes" } }, "data": { "key": stored("second") } });
    space.ok(&["patch", name, "-p", &patch.to_string()])?;
    let chosen = format!("life={},patched=yes", space.name);
    let found = space.json(&[resource, "--all-namespaces", "-l", &chosen])?;
    let found = found["items"].as_array().context("a list")?;
    ensure!(found.len() == 1 && found[0]["data"]["key"] == stored("second"), "{found:?}");
    object["data"] = json!({ "other": stored("first") });
    space.ok_with(&["replace", "-f", "-"], &object.to_string())?;
    let replaced = space.json(&[name])?;
    ensure!(replaced["data"] == object["data"] && replaced["metadata"]["labels"]["patched"].is_null(), "{replaced}");
    let path = format!("/api/v1/namespaces/{}/{resource}?labelSelector=life%3D{}", space.name, space.name);
    space.ok(&["delete", "--raw", &path])?;
    let left = space.json(&[resource, "-l", &format!("life={}", space.name)])?;
    ensure!(left["items"].as_array().is_some_and(Vec::is_empty), "{left}");
    object["data"] = json!({ "": stored("first") });
    let refused = space.refused(&["create", "-f", "-"], &object.to_string())?;
    ensure!(refused.contains("data[]: Invalid value: \"\": a valid config key must consist of"), "{refused}");
    Ok(())
}

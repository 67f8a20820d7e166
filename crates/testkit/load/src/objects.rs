//! The objects that the load is made of.

use crate::connection::{Call, Connection, JSON, Version};
use crate::target::Target;
use anyhow::Result;
use http::Method;
use serde_json::{Value, json};

/// Everything that is measured lives here and goes with it.
pub(crate) const NAMESPACE: &str = "pintle-load";

/// Makes the namespace, with the service account that pods ask for.
pub(crate) async fn prepare(target: &Target) -> Result<()> {
    let mut connection = Connection::open(target, Version::Http2).await?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    connection.call(&post("/api/v1/namespaces", &namespace)).await?;
    if target.is_own() {
        // No controller runs beside a server of our own.
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
        connection.call(&post(format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts"), &account)).await?;
    }
    Ok(())
}

/// Removes what was made. A server of our own goes as a whole.
pub(crate) async fn clean(target: &Target) -> Result<()> {
    if target.is_own() {
        return Ok(());
    }
    let mut connection = Connection::open(target, Version::Http2).await?;
    for definition in 0..crate::memory::DEFINITIONS {
        let name = definition_name(definition);
        let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}");
        // It is not there unless memory was measured.
        let _ = connection.call(&Call::send(Method::DELETE, path, "", "")).await;
    }
    let path = format!("/api/v1/namespaces/{NAMESPACE}");
    connection.call(&Call::send(Method::DELETE, path, "", "")).await.map(drop)
}

pub(crate) fn post(path: impl Into<String>, body: &Value) -> Call {
    Call::send(Method::POST, path, JSON, body.to_string())
}

pub(crate) fn config_maps() -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/configmaps")
}

/// A ConfigMap with 1 KiB of data.
pub(crate) fn config_map(name: &str, value: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "data": {"value": value, "filling": "x".repeat(1024)},
    })
}

/// A pod as clusters have them: two containers, probes, resources, volumes.
pub(crate) fn pod(name: &str) -> Value {
    let container = |name: &str| {
        json!({
            "name": name, "image": "registry.example/team/application:1.2.3",
            "ports": [{"containerPort": 8080, "name": "http"}],
            "env": [{"name": "A", "value": "1"}, {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
            "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}},
            "volumeMounts": [{"name": "settings", "mountPath": "/etc/settings"}],
        })
    };
    let mut second = container("beside");
    second["ports"] = json!([]);
    second["readinessProbe"] = json!({"tcpSocket": {"port": 8080}});
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": "load", "part": name}},
        "spec": {
            "containers": [container("main"), second],
            "volumes": [{"name": "settings", "configMap": {"name": "settings"}}],
            "nodeSelector": {"nobody": "has-this"},
        },
    })
}

pub(crate) fn definition_name(number: usize) -> String {
    format!("things{number}.load.example")
}

/// A definition of the size that operators bring: some 400 described properties, about 60 KB.
pub(crate) fn definition(number: usize) -> Value {
    let leaf = |i: usize| {
        json!({"type": "string", "maxLength": 253, "description": format!(
            "Field {i} of the definition {number} says what the controller is to do with the thing that it stands for.")})
    };
    let group = |outer: usize| {
        let fields: serde_json::Map<String, Value> =
            (0..20).map(|i| (format!("field{i}"), leaf(outer * 20 + i))).collect();
        json!({"type": "object", "description": "A group of settings that belong together.", "properties": fields})
    };
    let groups: serde_json::Map<String, Value> = (0..20).map(|i| (format!("group{i}"), group(i))).collect();
    let (plural, kind) = (format!("things{number}"), format!("Thing{number}"));
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": definition_name(number)},
        "spec": {
            "group": "load.example", "scope": "Namespaced",
            "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List")},
            "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}}, "schema": {
                "openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": groups},
                    "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                }},
            }}],
        },
    })
}

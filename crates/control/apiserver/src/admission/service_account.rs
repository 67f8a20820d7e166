//! ServiceAccount: every pod runs as an account of its namespace and finds that account's token mounted.
//!
//! Source: `plugin/pkg/admission/serviceaccount` of Kubernetes.

use super::{creates, forbidden};
use crate::server::Server;
use futures::StreamExt;
use pintle_registry::{Attributes, EventKind, GetOptions, WatchOptions};
use pintle_types::Status;
use pintle_types::selector::FieldSelector;
use serde_json::{Value, json};
use std::time::Duration;

const DEFAULT_ACCOUNT: &str = "default";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// Also the prefix of pods whose token a mirror pod must not have.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// A little over an hour: such tokens are known to be pods'.
const TOKEN_SECONDS: u32 = 3607;
/// A new namespace's default account is made by a controller; pods of the same manifest wait this long for it.
const PATIENCE: Duration = Duration::from_millis(1500);

pub(super) async fn admit(server: &Server, attributes: &mut Attributes<'_>) -> Result<(), Status> {
    if !creates(attributes, "pods") {
        return Ok(());
    }
    let Some(mut pod) = attributes.object.take() else { return Ok(()) };
    let result = amend(server, attributes, &mut pod).await;
    attributes.object = Some(pod);
    result
}

async fn amend(server: &Server, attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
    if is_mirror(pod) {
        return Ok(());
    }
    let Some(spec) = pod["spec"].as_object_mut() else { return Ok(()) };
    let given = |spec: &serde_json::Map<String, Value>, field: &str| {
        spec.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let mut name = given(spec, "serviceAccountName");
    if name.is_empty() {
        name = given(spec, "serviceAccount");
    }
    if name.is_empty() {
        name = DEFAULT_ACCOUNT.into();
    }
    spec.insert("serviceAccountName".into(), name.as_str().into());
    spec.insert("serviceAccount".into(), name.as_str().into());
    let account = account(server, attributes, &name).await?;
    let wanted = spec.get("automountServiceAccountToken").and_then(Value::as_bool);
    if wanted.or(account["automountServiceAccountToken"].as_bool()).unwrap_or(true) {
        mount_token(spec);
    }
    let secrets = spec.get("imagePullSecrets").and_then(Value::as_array).map_or(0, Vec::len);
    if secrets == 0 && account["imagePullSecrets"].as_array().is_some_and(|list| !list.is_empty()) {
        spec.insert("imagePullSecrets".into(), account["imagePullSecrets"].clone());
    }
    Ok(())
}

fn is_mirror(pod: &Value) -> bool {
    pod["metadata"]["annotations"].get(MIRROR).is_some()
}

/// The pod's account. The default one may be about to be made.
async fn account(server: &Server, attributes: &Attributes<'_>, name: &str) -> Result<Value, Status> {
    let ns = attributes.namespace;
    let table = server.registry.table();
    let def = table.get("", "v1", "serviceaccounts").ok_or_else(Status::no_such_resource)?;
    let found = server.registry.get(def, ns, name, &GetOptions::default()).await;
    match found {
        Ok(account) => return Ok(account.to_value()),
        Err(status) if status.code == 404 => {}
        Err(status) => return Err(status),
    }
    if name == DEFAULT_ACCOUNT {
        let options = WatchOptions {
            fields: FieldSelector::parse(&format!("metadata.name={name}")).unwrap_or_default(),
            timeout: Some(PATIENCE),
            ..WatchOptions::default()
        };
        let mut events = server.registry.watch(def, ns, &options).await?;
        let deadline = tokio::time::sleep(PATIENCE);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                () = &mut deadline => break,
                event = events.next() => match event {
                    Some(event) if matches!(event.kind, EventKind::Added | EventKind::Modified) => {
                        return Ok(event.object.to_value());
                    }
                    Some(_) => {}
                    None => break,
                },
            }
        }
    }
    Err(forbidden(
        attributes,
        &format!("error looking up service account {ns}/{name}: serviceaccount {name:?} not found"),
    ))
}

/// Adds the volume with the token, the authority and the namespace, and mounts it wherever nothing else is mounted.
fn mount_token(spec: &mut serde_json::Map<String, Value>) {
    let existing = spec.get("volumes").and_then(Value::as_array).into_iter().flatten();
    let mut names = existing.filter_map(|v| v["name"].as_str());
    let name = match names.find(|n| n.starts_with(VOLUME_PREFIX)) {
        Some(name) => name.to_owned(),
        None => format!("{VOLUME_PREFIX}{}", random_suffix()),
    };
    let mut used = false;
    for list in ["initContainers", "containers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            used |= add_mount(container, &name);
        }
    }
    let volumes = spec.entry("volumes").or_insert_with(|| json!([]));
    if volumes.is_null() {
        *volumes = json!([]);
    }
    if let Some(volumes) = volumes.as_array_mut()
        && used
        && !volumes.iter().any(|v| v["name"] == name.as_str())
    {
        volumes.push(volume(&name));
    }
    if spec.get("volumes").and_then(Value::as_array).is_some_and(Vec::is_empty) {
        spec.remove("volumes");
    }
}

fn add_mount(container: &mut Value, volume: &str) -> bool {
    let Some(fields) = container.as_object_mut() else { return false };
    let mounts = fields.entry("volumeMounts").or_insert_with(|| json!([]));
    if mounts.is_null() {
        *mounts = json!([]);
    }
    let Some(mounts) = mounts.as_array_mut() else { return false };
    if mounts.iter().any(|m| m["mountPath"] == MOUNT_PATH) {
        return false;
    }
    mounts.push(json!({"name": volume, "readOnly": true, "mountPath": MOUNT_PATH}));
    true
}

fn volume(name: &str) -> Value {
    json!({"name": name, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [
            {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
        ]}},
    ]}})
}

/// Five letters and digits that spell no word: no vowels, nothing that looks like another.
fn random_suffix() -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    (0..5).map(|_| char::from(ALPHABET[rand::random_range(0..ALPHABET.len())])).collect()
}

/// Mirror pods come from files of a node and must not reach for secrets through the API.
pub(super) fn validate(attributes: &Attributes<'_>) -> Result<(), Status> {
    let Some(pod) = &attributes.object else { return Ok(()) };
    if !creates(attributes, "pods") || !is_mirror(pod) {
        return Ok(());
    }
    if pod["spec"]["serviceAccountName"].as_str().is_some_and(|n| !n.is_empty()) {
        return Err(forbidden(attributes, "a mirror pod may not reference service accounts"));
    }
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    if volumes.clone().any(|v| v["secret"].is_object()) {
        return Err(forbidden(attributes, "a mirror pod may not reference secrets"));
    }
    let mut sources = volumes.flat_map(|v| v["projected"]["sources"].as_array().into_iter().flatten());
    if sources.any(|s| s["serviceAccountToken"].is_object()) {
        return Err(forbidden(attributes, "a mirror pod may not use ServiceAccountToken volume projections"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_container_gets_the_token_unless_something_is_mounted_there() {
        let mut pod = json!({"containers": [
            {"name": "a"}, {"name": "b", "volumeMounts": [{"name": "own", "mountPath": MOUNT_PATH}]},
        ], "volumes": [{"name": "own"}]});
        let spec = pod.as_object_mut().unwrap();
        mount_token(spec);
        let name = spec["volumes"][1]["name"].as_str().unwrap().to_owned();
        assert!(name.starts_with(VOLUME_PREFIX) && name.len() == VOLUME_PREFIX.len() + 5, "{name}");
        assert_eq!(spec["containers"][0]["volumeMounts"][0]["name"], name.as_str());
        assert_eq!(spec["containers"][1]["volumeMounts"].as_array().unwrap().len(), 1);
        mount_token(spec);
        assert_eq!(spec["volumes"].as_array().unwrap().len(), 2, "a second run changes nothing");
    }
}

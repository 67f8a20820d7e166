//! Makes pods of manifest files: bounded decoding, a name and uid of this node's own, the defaults that matter here.

use crate::reference::spec;
use crate::volumes::references;
use jiff::Timestamp;
use pintle_schema::decode::{self, Limits};
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{Container, Pod, Toleration};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::Path;

/// A uid as upstream makes them: 128 bits in hexadecimal.
const UID_BYTES: usize = 16;
/// Fields of the spec that are never empty once a pod is defaulted.
const DEFAULTS: [(&str, &str); 3] =
    [("restartPolicy", "Always"), ("dnsPolicy", "ClusterFirst"), ("schedulerName", "default-scheduler")];

/// Why a file is not a pod that this node runs.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("{0}")]
    Decode(#[from] decode::DecodeError),
    #[error("it is a {0}, and only a Pod of version v1 is taken")]
    Kind(String),
    #[error("it has not the form of a Pod: {0}")]
    Form(String),
    #[error("{field}: {why}")]
    Invalid { field: &'static str, why: &'static str },
}

fn invalid(field: &'static str, why: &'static str) -> ManifestError {
    ManifestError::Invalid { field, why }
}

/// The pod of a file, as this node runs it: `NAME-NODE`, with a uid that changes with the file.
pub fn pod(bytes: &[u8], file: &Path, node: &str, seen: Timestamp) -> Result<Pod, ManifestError> {
    let mut value = decode::yaml(bytes, Limits::default())?.value;
    let kind = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let (version, name) = (kind("apiVersion"), kind("kind"));
    if (version.as_str(), name.as_str()) != ("v1", "Pod") {
        return Err(ManifestError::Kind(format!("{name:?} of version {version:?}")));
    }
    apply_defaults(&mut value);
    let mut pod = Pod::from_value(value).map_err(|e| ManifestError::Form(e.to_string()))?;
    check(&pod)?;
    let uid = Some(pod.uid().to_owned()).filter(|uid| !uid.is_empty()).unwrap_or_else(|| uid(bytes, file, node));
    let meta = &mut pod.metadata;
    meta.name = Some(format!("{}-{}", meta.name.as_deref().unwrap_or_default(), node.to_lowercase()));
    meta.namespace.get_or_insert_with(|| "default".into());
    let annotations = meta.annotations.get_or_insert_default();
    annotations.insert(super::HASH.into(), uid.clone());
    annotations.insert(super::SOURCE.into(), "file".into());
    annotations.insert(super::SEEN.into(), seen.to_string());
    meta.uid = Some(uid);
    pod.status = None;
    if let Some(spec) = &mut pod.spec {
        spec.node_name = Some(node.to_owned());
        // A node that is unwell keeps its static pods.
        let forever =
            Toleration { operator: Some("Exists".into()), effect: Some("NoExecute".into()), ..Default::default() };
        let tolerations = spec.tolerations.get_or_insert_default();
        if !tolerations.contains(&forever) {
            tolerations.push(forever);
        }
    }
    Ok(pod)
}

fn uid(bytes: &[u8], file: &Path, node: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("host:{node}\0file:{}\0", file.display()));
    hash.update(bytes);
    hash.finalize().iter().take(UID_BYTES).map(|byte| format!("{byte:02x}")).collect()
}

/// What the API server would fill in, as far as the kubelet reads it.
fn apply_defaults(pod: &mut Value) {
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else { return };
    for (name, value) in DEFAULTS {
        spec.entry(name).or_insert_with(|| value.into());
    }
    spec.entry("terminationGracePeriodSeconds").or_insert_with(|| 30.into());
    spec.entry("enableServiceLinks").or_insert_with(|| true.into());
    spec.entry("securityContext").or_insert_with(|| json!({}));
    let host_network = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for list in ["initContainers", "containers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        containers.into_iter().flatten().for_each(|c| container_defaults(c, host_network));
    }
}

fn container_defaults(container: &mut Value, host_network: bool) {
    let Some(container) = container.as_object_mut() else { return };
    let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
    let last = image.rsplit('/').next().unwrap_or_default();
    let latest = !image.contains('@') && (!last.contains(':') || last.ends_with(":latest"));
    container.entry("imagePullPolicy").or_insert_with(|| if latest { "Always" } else { "IfNotPresent" }.into());
    container.entry("terminationMessagePath").or_insert_with(|| "/dev/termination-log".into());
    container.entry("terminationMessagePolicy").or_insert_with(|| "File".into());
    for port in container.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        let number = port["containerPort"].clone();
        let Some(port) = port.as_object_mut() else { continue };
        port.entry("protocol").or_insert_with(|| "TCP".into());
        if host_network {
            port.entry("hostPort").or_insert(number);
        }
    }
    let limits = container.get("resources").and_then(|r| r.get("limits")).and_then(Value::as_object).cloned();
    let Some(limits) = limits else { return };
    let requests = &mut container["resources"]["requests"];
    if requests.is_null() {
        *requests = json!({});
    }
    for (name, limit) in limits {
        if let Some(requests) = requests.as_object_mut() {
            requests.entry(name).or_insert(limit);
        }
    }
}

fn check(pod: &Pod) -> Result<(), ManifestError> {
    let is_name = |name: &str| {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        !name.is_empty()
            && name.len() <= 253
            && name.bytes().all(|b| plain(b) || matches!(b, b'-' | b'.'))
            && name.bytes().next().is_some_and(plain)
            && name.bytes().last().is_some_and(plain)
    };
    if !is_name(pod.name()) {
        return Err(invalid("metadata.name", "must be a lowercase RFC 1123 subdomain"));
    }
    if !pod.namespace().is_empty() && (!is_name(pod.namespace()) || pod.namespace().contains('.')) {
        return Err(invalid("metadata.namespace", "must be a lowercase RFC 1123 label"));
    }
    if !crate::host::is_plain_name(if pod.uid().is_empty() { "none" } else { pod.uid() }) {
        return Err(invalid("metadata.uid", "must be a plain name"));
    }
    let spec = spec(pod);
    if spec.containers.is_empty() {
        return Err(invalid("spec.containers", "Required value"));
    }
    let named = |c: &Container| is_name(&c.name) && c.image.as_deref().is_some_and(|i| !i.is_empty());
    if !spec.containers.iter().chain(spec.init_containers.iter().flatten()).all(named) {
        return Err(invalid("spec.containers", "each needs a name, in lowercase, and an image"));
    }
    if spec.ephemeral_containers.as_ref().is_some_and(|list| !list.is_empty()) {
        return Err(invalid("spec.ephemeralContainers", "Forbidden: static pods do not support ephemeral containers"));
    }
    // Static pods live without the API server; what is in it is nothing that they could rely on.
    let claims = spec.volumes.iter().flatten().any(|v| v.persistent_volume_claim.is_some() || v.ephemeral.is_some());
    let account = spec.service_account_name.as_deref().is_some_and(|name| !name.is_empty());
    if claims || account || !references(pod).is_empty() {
        return Err(invalid("spec", "a static pod may not reference other API objects"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(text: &str) -> Result<Pod, ManifestError> {
        pod(text.as_bytes(), Path::new("/etc/manifests/web.yaml"), "Node-1", Timestamp::UNIX_EPOCH)
    }

    const WEB: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  hostNetwork: true\n  containers:\n  \
                       - {name: c, image: 'web:1', ports: [{containerPort: 80}], resources: {limits: {cpu: 1}}}\n";

    #[test]
    fn a_file_becomes_a_pod_of_this_node() {
        let web = made(WEB).unwrap();
        assert_eq!((web.name(), web.namespace()), ("web-node-1", "default"));
        assert_eq!(web.uid().len(), 32);
        assert_eq!(web.metadata.annotations.as_ref().unwrap()["kubernetes.io/config.hash"], web.uid());
        let spec = spec(&web);
        assert_eq!(spec.node_name.as_deref(), Some("Node-1"));
        assert_eq!(spec.tolerations.as_ref().unwrap()[0].effect.as_deref(), Some("NoExecute"));
        let container = &spec.containers[0];
        assert_eq!(container.image_pull_policy.as_deref(), Some("IfNotPresent"));
        assert_eq!(container.ports.as_ref().unwrap()[0].host_port, Some(80));
        assert!(container.resources.as_ref().unwrap().requests.as_ref().unwrap().contains_key("cpu"));
        assert_eq!(made(WEB).unwrap().uid(), web.uid(), "the same file is the same pod");
        assert_ne!(made(&WEB.replace("web:1", "web:2")).unwrap().uid(), web.uid());
    }

    #[test]
    fn what_is_no_static_pod_is_refused() {
        let refused = |from: &str, to: &str| made(&WEB.replace(from, to)).unwrap_err().to_string();
        assert!(refused("kind: Pod", "kind: Service").starts_with("it is a \"Service\""));
        assert!(refused("name: web", "name: Web/..").starts_with("metadata.name: "));
        assert!(refused("hostNetwork: true", "serviceAccountName: x").ends_with("reference other API objects"));
        assert!(refused("{name: c,", "{").starts_with("spec.containers: each needs a name"));
        assert!(refused("hostNetwork: true", "hostNetwork: 7").starts_with("it has not the form of a Pod"));
        assert!(made("a: [").is_err());
        let secret = "volumes: [{name: v, secret: {secretName: s}}]";
        assert!(refused("hostNetwork: true", secret).ends_with("reference other API objects"));
    }
}

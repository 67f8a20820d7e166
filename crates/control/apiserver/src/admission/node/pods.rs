//! What a kubelet may do to pods: mirror those of its node's files, report on those bound to it, and remove them.

use super::super::forbidden;
use super::{name_of, refuse, same};
use crate::server::Server;
use pintle_kinds::tree::{flag, has, list, text};
use pintle_registry::{Attributes, Operation};
use pintle_types::Status;
use serde_json::Value;

const MIRROR: &str = "kubernetes.io/config.mirror";

pub(super) async fn restrict(server: &Server, attributes: &Attributes<'_>, node: &str) -> Result<(), Status> {
    match (attributes.subresource, attributes.operation) {
        ("", Operation::Create) => create(server, attributes, node).await,
        ("", Operation::Delete) => {
            let why = format!("node {node:?} can only delete pods with spec.nodeName set to itself");
            let own = attributes.old_object.as_deref().is_some_and(|pod| is_on(pod, node));
            if own { Ok(()) } else { Err(forbidden(attributes, &why)) }
        }
        ("", operation) => {
            let operation = operation.as_str();
            let why =
                format!("unexpected operation {operation:?}, node {node:?} can only create and delete mirror pods");
            Err(forbidden(attributes, &why))
        }
        ("status", Operation::Update) => refuse(attributes, status(attributes, node)),
        ("eviction", Operation::Create) => evict(server, attributes, node).await,
        ("status", operation) => Err(forbidden(attributes, &format!("unexpected operation {:?}", operation.as_str()))),
        ("eviction", operation) => Err(forbidden(attributes, &format!("unexpected operation {}", operation.as_str()))),
        (sub, _) => {
            let why = format!("unexpected pod subresource {sub:?}, only 'status' and 'eviction' are allowed");
            Err(forbidden(attributes, &why))
        }
    }
}

fn is_on(pod: &Value, node: &str) -> bool {
    text(&pod["spec"], "nodeName") == node
}

async fn create(server: &Server, attributes: &Attributes<'_>, node: &str) -> Result<(), Status> {
    let Some(pod) = &attributes.object else { return Ok(()) };
    refuse(attributes, mirrors(pod, node))?;
    let owner = &list(&pod["metadata"], "ownerReferences")[0];
    let found = server.core_object("nodes", "", node).await.map_err(|status| *status)?;
    let (given, uid) = (text(owner, "uid"), text(&found["metadata"], "uid"));
    if given != uid {
        return Err(forbidden(attributes, &format!("node {node} UID mismatch: expected {given} got {uid}")));
    }
    refuse(attributes, refers_to_nothing(pod, node))
}

/// Whether a new pod is the mirror of one that the node has from a file, and belongs to the node.
fn mirrors(pod: &Value, node: &str) -> Result<(), String> {
    if pod["metadata"]["annotations"].get(MIRROR).is_none() {
        return Err(format!("pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"));
    }
    if !is_on(pod, node) {
        return Err(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    let [owner] = list(&pod["metadata"], "ownerReferences") else {
        let which = match list(&pod["metadata"], "ownerReferences").len() {
            0 => "an owner reference",
            _ => "a single owner reference",
        };
        return Err(format!("node {node:?} can only create pods with {which} set to itself"));
    };
    if text(owner, "apiVersion") != "v1" || text(owner, "kind") != "Node" || text(owner, "name") != node {
        return Err(format!("node {node:?} can only create pods with an owner reference set to itself"));
    }
    if !flag(owner, "controller") {
        return Err(format!("node {node:?} can only create pods with a controller owner reference set to itself"));
    }
    if flag(owner, "blockOwnerDeletion") {
        return Err(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
    }
    Ok(())
}

/// Whoever may read what the pods of a node refer to could otherwise read anything.
fn refers_to_nothing(pod: &Value, node: &str) -> Result<(), String> {
    let spec = &pod["spec"];
    let refused = |what: &str| Err(format!("node {node:?} can not create pods that reference {what}"));
    if !text(spec, "serviceAccountName").is_empty() {
        return refused("a service account");
    }
    let holders = || {
        let lists = ["containers", "initContainers", "ephemeralContainers"].into_iter();
        lists.flat_map(|name| list(spec, name))
    };
    let from = |source: &str, key: &str| {
        let env = holders().flat_map(|c| list(c, "env")).any(|e| has(&e["valueFrom"], key));
        env || holders().flat_map(|c| list(c, "envFrom")).any(|e| has(e, source))
    };
    let projected = |source: &str| {
        list(spec, "volumes").iter().flat_map(|volume| list(&volume["projected"], "sources")).any(|s| has(s, source))
    };
    let volume = |source: &str| list(spec, "volumes").iter().any(|volume| has(volume, source));
    let secret = volume("secret") || projected("secret") || from("secretRef", "secretKeyRef");
    if secret || !list(spec, "imagePullSecrets").is_empty() || list(spec, "volumes").iter().any(names_secret) {
        return refused("secrets");
    }
    if volume("configMap") || projected("configMap") || from("configMapRef", "configMapKeyRef") {
        return refused("configmaps");
    }
    if projected("clusterTrustBundle") {
        return refused("clustertrustbundles");
    }
    if volume("persistentVolumeClaim") {
        return refused("persistentvolumeclaims");
    }
    if !list(spec, "resourceClaims").is_empty() {
        return refused("resourceclaims");
    }
    Ok(())
}

/// Whether a volume's driver reads a secret.
fn names_secret(volume: &Value) -> bool {
    let references = ["secretRef", "nodePublishSecretRef"];
    has(&volume["azureFile"], "secretName")
        || volume.as_object().into_iter().flatten().any(|(_, source)| references.iter().any(|r| has(source, r)))
}

fn status(attributes: &Attributes<'_>, node: &str) -> Result<(), String> {
    let (Some(new), Some(old)) = (&attributes.object, attributes.old_object.as_deref()) else { return Ok(()) };
    if !is_on(old, node) {
        return Err(format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself"));
    }
    if !same(&old["metadata"]["labels"], &new["metadata"]["labels"]) {
        return Err(format!("node {node:?} cannot update labels through pod status"));
    }
    if !same(&old["status"]["resourceClaimStatuses"], &new["status"]["resourceClaimStatuses"]) {
        return Err(format!("node {node:?} cannot update resource claim statues"));
    }
    Ok(())
}

async fn evict(server: &Server, attributes: &Attributes<'_>, node: &str) -> Result<(), Status> {
    let name = name_of(attributes);
    if name.is_empty() {
        return Err(forbidden(attributes, "could not determine pod from request data"));
    }
    let pod = server.core_object("pods", attributes.namespace, name).await.map_err(|status| *status)?;
    if is_on(&pod, node) {
        return Ok(());
    }
    Err(forbidden(attributes, &format!("node {node} can only evict pods with spec.nodeName set to itself")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn mirror(change: fn(&mut Value)) -> String {
        let mut pod = json!({
            "metadata": {
                "annotations": {MIRROR: "x"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n", "controller": true}],
            },
            "spec": {"nodeName": "n", "containers": [{"name": "c"}]},
        });
        change(&mut pod);
        mirrors(&pod, "n").and_then(|()| refers_to_nothing(&pod, "n")).err().unwrap_or_default()
    }

    #[test]
    fn a_mirror_belongs_to_its_node_and_refers_to_nothing() {
        let cases: [(fn(&mut Value), &str); 9] = [
            (|_| {}, ""),
            (
                |p| p["metadata"]["annotations"] = json!({}),
                "pod does not have \"kubernetes.io/config.mirror\" annotation",
            ),
            (
                |p| p["spec"]["nodeName"] = "m".into(),
                "node \"n\" can only create pods with spec.nodeName set to itself",
            ),
            (
                |p| p["metadata"]["ownerReferences"] = json!([]),
                "node \"n\" can only create pods with an owner reference",
            ),
            (
                |p| p["metadata"]["ownerReferences"][0]["controller"] = false.into(),
                "node \"n\" can only create pods with a controller owner reference set to itself",
            ),
            (
                |p| p["spec"]["serviceAccountName"] = "a".into(),
                "node \"n\" can not create pods that reference a service",
            ),
            (
                |p| p["spec"]["containers"][0]["envFrom"] = json!([{"secretRef": {"name": "s"}}]),
                "node \"n\" can not create pods that reference secrets",
            ),
            (
                |p| p["spec"]["volumes"] = json!([{"projected": {"sources": [{"configMap": {}}]}}]),
                "node \"n\" can not create pods that reference configmaps",
            ),
            (
                |p| p["spec"]["resourceClaims"] = json!([{"name": "r"}]),
                "node \"n\" can not create pods that reference resourceclaims",
            ),
        ];
        for (change, expected) in cases {
            let why = mirror(change);
            assert!(why.starts_with(expected) && why.is_empty() == expected.is_empty(), "{why}");
        }
    }
}

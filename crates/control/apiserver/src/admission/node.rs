//! TaintNodesByCondition and NodeRestriction: a node starts out as not ready, and a kubelet writes about itself only.
//!
//! Source: `plugin/pkg/admission/{nodetaint,noderestriction}` of Kubernetes.

use super::{creates, forbidden};
use pintle_registry::{Attributes, Operation};
use pintle_types::Status;
use serde_json::{Value, json};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const NODES_GROUP: &str = "system:nodes";
const NODE_USER: &str = "system:node:";

/// A new node takes no pods until the node controller has seen that it is ready.
pub(super) fn taint(attributes: &mut Attributes<'_>) {
    if !creates(attributes, "nodes") {
        return;
    }
    let Some(spec) = attributes.object.as_mut().and_then(Value::as_object_mut) else { return };
    let spec = spec.entry("spec").or_insert_with(|| json!({}));
    let Some(spec) = spec.as_object_mut() else { return };
    let taints = spec.entry("taints").or_insert_with(|| json!([]));
    if taints.is_null() {
        *taints = json!([]);
    }
    let Some(taints) = taints.as_array_mut() else { return };
    if !taints.iter().any(|t| t["key"] == NOT_READY && t["effect"] == "NoSchedule") {
        taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
    }
}

/// Keeps a kubelet to its own node and the pods on it.
pub(super) fn restrict(attributes: &Attributes<'_>) -> Result<(), Status> {
    let is_node = attributes.user.groups.iter().any(|g| g == NODES_GROUP);
    let Some(node) = attributes.user.name.strip_prefix(NODE_USER).filter(|_| is_node) else { return Ok(()) };
    if !attributes.def.group.is_empty() {
        return Ok(());
    }
    match &*attributes.def.resource {
        "nodes" => own_node(attributes, node),
        "pods" => own_pod(attributes, node),
        _ => Ok(()),
    }
}

fn own_node(attributes: &Attributes<'_>, node: &str) -> Result<(), Status> {
    let name = match attributes.name {
        "" => attributes.object.as_ref().and_then(|o| o["metadata"]["name"].as_str()).unwrap_or_default(),
        name => name,
    };
    if name != node {
        return Err(forbidden(attributes, &format!("node {node:?} is not allowed to modify node {name:?}")));
    }
    let (Some(new), Some(old)) = (&attributes.object, &attributes.old_object) else { return Ok(()) };
    if attributes.subresource.is_empty() && new["spec"]["taints"] != old["spec"]["taints"] {
        return Err(forbidden(attributes, &format!("node {node:?} is not allowed to modify taints")));
    }
    if new["metadata"]["ownerReferences"] != old["metadata"]["ownerReferences"] {
        return Err(forbidden(attributes, &format!("node {node:?} is not allowed to modify ownerReferences")));
    }
    Ok(())
}

fn own_pod(attributes: &Attributes<'_>, node: &str) -> Result<(), Status> {
    let shown = |object: &Value| object["spec"]["nodeName"].as_str().unwrap_or_default().to_owned();
    match (attributes.operation, attributes.subresource) {
        (Operation::Create, "") => {
            let pod = attributes.object.as_ref();
            if pod.is_none_or(|p| p["metadata"]["annotations"].get("kubernetes.io/config.mirror").is_none()) {
                let why = format!(
                    "pod does not have \"kubernetes.io/config.mirror\" annotation, node {node:?} can only create mirror pods"
                );
                return Err(forbidden(attributes, &why));
            }
            let on = pod.map(shown).unwrap_or_default();
            if on != node {
                return Err(forbidden(
                    attributes,
                    &format!("node {node:?} can only create pods with spec.nodeName set to itself"),
                ));
            }
            Ok(())
        }
        (Operation::Update | Operation::Delete, _) => {
            let on = attributes.old_object.as_ref().map(|o| shown(o)).unwrap_or_default();
            let word =
                if attributes.operation == Operation::Delete { "delete pods" } else { "update pod status for pods" };
            if attributes.old_object.is_some() && on != node {
                return Err(forbidden(
                    attributes,
                    &format!("node {node:?} can only {word} with spec.nodeName set to itself"),
                ));
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

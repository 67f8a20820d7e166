//! TaintNodesByCondition and NodeRestriction: a node starts out as not ready, and a kubelet writes about itself only.
//!
//! Source: `plugin/pkg/admission/{nodetaint,noderestriction}` of Kubernetes.

mod labels;
mod pods;
mod token;

use super::{creates, forbidden};
use crate::server::Server;
use pintle_kinds::tree::{has, text};
use pintle_registry::{Attributes, Operation};
use pintle_types::Status;
use serde_json::{Value, json};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const NODES_GROUP: &str = "system:nodes";
const NODE_USER: &str = "system:node:";
const LEASES: &str = "kube-node-lease";

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
pub(super) async fn restrict(server: &Server, attributes: &Attributes<'_>) -> Result<(), Status> {
    let is_node = attributes.user.groups.iter().any(|g| g == NODES_GROUP);
    let Some(node) = attributes.user.name.strip_prefix(NODE_USER).filter(|_| is_node) else { return Ok(()) };
    if attributes.operation == Operation::Connect {
        return Ok(());
    }
    if node.is_empty() {
        let why = format!("could not determine node from user {:?}", attributes.user.name);
        return Err(forbidden(attributes, &why));
    }
    match (&*attributes.def.group, &*attributes.def.resource) {
        ("", "pods") => pods::restrict(server, attributes, node).await,
        ("", "nodes") => refuse(attributes, own_node(attributes, node)),
        ("", "persistentvolumeclaims") => refuse(attributes, claim_status(attributes, node)),
        ("", "serviceaccounts") => token::restrict(server, attributes, node).await,
        ("coordination.k8s.io", "leases") => refuse(attributes, own_lease(attributes, node)),
        ("storage.k8s.io", "csinodes") => refuse(attributes, own_csi_node(attributes, node)),
        ("resource.k8s.io", "resourceslices") => refuse(attributes, own_slice(attributes, node)),
        _ => Ok(()),
    }
}

fn refuse(attributes: &Attributes<'_>, judged: Result<(), String>) -> Result<(), Status> {
    judged.map_err(|why| forbidden(attributes, &why))
}

/// The name that a write is about, also while it makes the object.
fn name_of<'a>(attributes: &'a Attributes<'_>) -> &'a str {
    match attributes.name {
        "" => attributes.object.as_ref().map_or("", |object| text(&object["metadata"], "name")),
        name => name,
    }
}

fn same(old: &Value, new: &Value) -> bool {
    let empty = pintle_kinds::tree::is_empty;
    old == new || (empty(old) && empty(new))
}

fn own_node(attributes: &Attributes<'_>, node: &str) -> Result<(), String> {
    let name = name_of(attributes);
    if name != node {
        return Err(format!("node {node:?} is not allowed to modify node {name:?}"));
    }
    let Some(new) = &attributes.object else { return Ok(()) };
    if attributes.operation == Operation::Create {
        if has(&new["spec"], "configSource") {
            return Err(format!("node {node:?} is not allowed to create pods with a non-nil configSource"));
        }
        return match labels::forbidden(&new["metadata"]["labels"], &Value::Null) {
            Some(names) => Err(format!("node {node:?} is not allowed to set the following labels: {names}")),
            None => Ok(()),
        };
    }
    let Some(old) = attributes.old_object.as_deref() else { return Ok(()) };
    let (before, after) = (&old["spec"], &new["spec"]);
    if has(after, "configSource") && after["configSource"] != before["configSource"] {
        return Err(format!("node {node:?} is not allowed to update configSource to a new non-nil configSource"));
    }
    if !same(&before["taints"], &after["taints"]) {
        return Err(format!("node {node:?} is not allowed to modify taints"));
    }
    if let Some(names) = labels::forbidden(&new["metadata"]["labels"], &old["metadata"]["labels"]) {
        return Err(format!("is not allowed to modify labels: {names}"));
    }
    if !same(&old["metadata"]["ownerReferences"], &new["metadata"]["ownerReferences"]) {
        return Err(format!("node {node:?} is not allowed to modify ownerReferences"));
    }
    Ok(())
}

/// A kubelet that grows a volume says so in its claim, and nothing else.
fn claim_status(attributes: &Attributes<'_>, node: &str) -> Result<(), String> {
    if attributes.subresource != "status" {
        return Err("may only update PVC status".into());
    }
    let (Some(new), Some(old), Operation::Update) =
        (&attributes.object, attributes.old_object.as_deref(), attributes.operation)
    else {
        return Err(format!("unexpected operation {:?}", attributes.operation.as_str()));
    };
    let rest = |claim: &Value| {
        let mut claim = claim.clone();
        for (part, fields) in [
            ("metadata", &["resourceVersion", "managedFields"][..]),
            ("status", &["capacity", "conditions", "allocatedResourceStatuses", "allocatedResources"]),
        ] {
            if let Some(part) = claim[part].as_object_mut() {
                fields.iter().for_each(|field| drop(part.remove(*field)));
            }
        }
        claim
    };
    if rest(old) == rest(new) {
        return Ok(());
    }
    let why = "is not allowed to update fields other than status.capacity and status.conditions";
    Err(format!("node {node:?} {why}"))
}

fn own_lease(attributes: &Attributes<'_>, node: &str) -> Result<(), String> {
    if attributes.namespace != LEASES {
        return Err(format!("can only access leases in the {LEASES:?} system namespace"));
    }
    match name_of(attributes) == node {
        true => Ok(()),
        false => Err("can only access node lease with the same name as the requesting node".into()),
    }
}

fn own_csi_node(attributes: &Attributes<'_>, node: &str) -> Result<(), String> {
    match name_of(attributes) == node {
        true => Ok(()),
        false => Err("can only access CSINode with the same name as the requesting node".into()),
    }
}

/// Updates were judged by the authorizer, which knows the stored object.
fn own_slice(attributes: &Attributes<'_>, node: &str) -> Result<(), String> {
    let (slice, verb) = match attributes.operation {
        Operation::Create => (attributes.object.as_ref(), "create"),
        Operation::Delete => (attributes.old_object.as_deref(), "delete"),
        _ => return Ok(()),
    };
    match slice.is_some_and(|slice| text(&slice["spec"], "nodeName") == node) {
        true => Ok(()),
        false => Err(format!("can only {verb} ResourceSlice with the same NodeName as the requesting node")),
    }
}

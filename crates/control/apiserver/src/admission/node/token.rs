//! Tokens that a kubelet asks for: only those of pods on its node, for audiences that these pods name.

use super::super::{forbidden, user_of};
use crate::authorization;
use crate::server::Server;
use pintle_kinds::tree::{has, list, text};
use pintle_registry::{Attributes, GetOptions, Operation};
use pintle_types::Status;
use serde_json::Value;

pub(super) async fn restrict(server: &Server, attributes: &Attributes<'_>, node: &str) -> Result<(), Status> {
    if attributes.operation != Operation::Create || attributes.subresource != "token" {
        return Ok(());
    }
    let request = attributes.object.as_ref().map_or(&Value::Null, |request| &request["spec"]);
    let bound = &request["boundObjectRef"];
    let refused = |why: &str| Err(forbidden(attributes, why));
    if text(bound, "apiVersion") != "v1" || text(bound, "kind") != "Pod" || text(bound, "name").is_empty() {
        return refused("node requested token not bound to a pod");
    }
    let uid = text(bound, "uid");
    if uid.is_empty() {
        return refused("node requested token with a pod binding without a uid");
    }
    let found = server.core_object("pods", attributes.namespace, text(bound, "name")).await;
    let pod = found.map_err(|status| *status)?;
    if text(&pod["metadata"], "uid") != uid {
        return refused(&format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been \
             deleted and then recreated"
        ));
    }
    if text(&pod["spec"], "nodeName") != node {
        return refused("node requested token bound to a pod scheduled on a different node");
    }
    check_audience(server, attributes, request, &pod).await
}

async fn check_audience(
    server: &Server,
    attributes: &Attributes<'_>,
    request: &Value,
    pod: &Value,
) -> Result<(), Status> {
    let audience = match list(request, "audiences") {
        [] => "",
        [one] => one.as_str().unwrap_or_default(),
        _ => return Err(forbidden(attributes, "node may only request 0 or 1 audiences")),
    };
    if names_audience(pod, audience) || drivers_want(server, pod, audience).await {
        return Ok(());
    }
    // An administrator may let kubelets ask for more: the audience is the resource, the account its name.
    let question = authorization::Attributes {
        verb: "request-serviceaccounts-token-audience",
        resource: audience,
        namespace: attributes.namespace,
        name: attributes.name,
        ..Default::default()
    };
    if server.authorizer.decide(&user_of(attributes), &question).await.allowed {
        return Ok(());
    }
    let user = &attributes.user.name;
    let why = format!(
        "audience {audience:?} not found in pod spec volume, {user} is not authorized to request tokens for this audience"
    );
    Err(forbidden(attributes, &why))
}

/// Whether a projected volume of the pod is to have a token for the audience.
fn names_audience(pod: &Value, audience: &str) -> bool {
    let sources = list(&pod["spec"], "volumes").iter().flat_map(|volume| list(&volume["projected"], "sources"));
    let mut tokens = sources.filter(|source| has(source, "serviceAccountToken"));
    tokens.any(|source| text(&source["serviceAccountToken"], "audience") == audience)
}

/// Whether the CSI driver of a volume of the pod asks for tokens with the audience.
async fn drivers_want(server: &Server, pod: &Value, audience: &str) -> bool {
    for volume in list(&pod["spec"], "volumes") {
        let Some(driver) = driver_of(server, pod, volume).await else { continue };
        let Some(driver) = object(server, "storage.k8s.io", "csidrivers", "", &driver).await else { continue };
        if list(&driver["spec"], "tokenRequests").iter().any(|request| text(request, "audience") == audience) {
            return true;
        }
    }
    false
}

async fn driver_of(server: &Server, pod: &Value, volume: &Value) -> Option<String> {
    let name = |value: &str| Some(value.to_owned()).filter(|name| !name.is_empty());
    if has(volume, "csi") {
        return name(text(&volume["csi"], "driver"));
    }
    let metadata = &pod["metadata"];
    let claim = match has(volume, "ephemeral") {
        true => format!("{}-{}", text(metadata, "name"), text(volume, "name")),
        false => name(text(&volume["persistentVolumeClaim"], "claimName"))?,
    };
    let claim = object(server, "", "persistentvolumeclaims", text(metadata, "namespace"), &claim).await?;
    let volume = object(server, "", "persistentvolumes", "", text(&claim["spec"], "volumeName")).await?;
    name(text(&volume["spec"]["csi"], "driver"))
}

async fn object(server: &Server, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Value> {
    let table = server.registry.table();
    let def = table.get(group, "v1", resource)?;
    if name.is_empty() {
        return None;
    }
    Some(server.registry.get(def, namespace, name, &GetOptions::default()).await.ok()?.to_value())
}

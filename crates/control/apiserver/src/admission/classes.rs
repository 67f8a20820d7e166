//! RuntimeClass and DefaultIngressClass: what the class of a pod adds to it, and the class of ingresses that name none.
//!
//! Source: `plugin/pkg/admission/{runtimeclass,network/defaultingressclass}` of Kubernetes.

use super::{creates, forbidden};
use crate::server::Server;
use pintle_kinds::tree::{child, has, list, set, text};
use pintle_registry::{Attributes, GetOptions, ListOptions, Operation};
use pintle_types::Status;
use serde_json::{Value, json};

const DEFAULT_INGRESS: &str = "ingressclass.kubernetes.io/is-default-class";

/// Gives a pod the overhead and the place that its runtime class asks for.
pub(super) async fn runtime(server: &Server, attributes: &mut Attributes<'_>) -> Result<(), Status> {
    if !creates(attributes, "pods") {
        return Ok(());
    }
    let spec = attributes.object.as_ref().map_or(&Value::Null, |pod| &pod["spec"]);
    let name = text(spec, "runtimeClassName").to_owned();
    if name.is_empty() {
        if has(spec, "overhead") {
            let why = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
            return Err(forbidden(attributes, why));
        }
        return Ok(());
    }
    let table = server.registry.table();
    let def = table.get("node.k8s.io", "v1", "runtimeclasses").ok_or_else(Status::no_such_resource)?;
    let class = match server.registry.get(def, "", &name, &GetOptions::default()).await {
        Ok(class) => class.to_value(),
        Err(status) if status.code == 404 => {
            return Err(forbidden(attributes, &format!("pod rejected: RuntimeClass {name:?} not found")));
        }
        Err(status) => return Err(status),
    };
    let Some(mut pod) = attributes.object.take() else { return Ok(()) };
    let result = place(&class, &mut pod["spec"]);
    attributes.object = Some(pod);
    result.map_err(|why| forbidden(attributes, &why))
}

fn place(class: &Value, spec: &mut Value) -> Result<(), String> {
    let overhead = &class["overhead"]["podFixed"];
    if has(spec, "overhead") && spec["overhead"] != *overhead {
        return Err("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".into());
    }
    if !overhead.is_null() {
        set(spec, "overhead", overhead.clone());
    }
    let scheduling = &class["scheduling"];
    for (key, value) in scheduling["nodeSelector"].as_object().into_iter().flatten() {
        let Some(selector) = child(spec, "nodeSelector") else { continue };
        if has(selector, key) && selector[key.as_str()] != *value {
            let wanted = value.as_str().unwrap_or_default();
            return Err(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {wanted}; pod.spec.nodeSelector[{key}] = {}",
                text(selector, key)
            ));
        }
        set(selector, key, value.clone());
    }
    let mut tolerations = list(spec, "tolerations").to_vec();
    let before = tolerations.len();
    for toleration in list(scheduling, "tolerations") {
        if !tolerations.contains(toleration) {
            tolerations.push(toleration.clone());
        }
    }
    if tolerations.len() > before {
        set(spec, "tolerations", json!(tolerations));
    }
    Ok(())
}

/// Gives an ingress without a class the one that is marked as the default.
pub(super) async fn ingress(server: &Server, attributes: &mut Attributes<'_>) -> Result<(), Status> {
    let is_ingress = attributes.def.group == "networking.k8s.io" && attributes.def.resource == "ingresses";
    if !is_ingress || attributes.operation != Operation::Create || !attributes.subresource.is_empty() {
        return Ok(());
    }
    let Some(object) = &mut attributes.object else { return Ok(()) };
    let annotated = has(&object["metadata"]["annotations"], "kubernetes.io/ingress.class");
    if annotated || has(&object["spec"], "ingressClassName") {
        return Ok(());
    }
    let table = server.registry.table();
    let def = table.get("networking.k8s.io", "v1", "ingressclasses").ok_or_else(Status::no_such_resource)?;
    let classes = server.registry.list(def, "", &ListOptions::default()).await?;
    let classes = classes.items.iter().map(|class| class.to_value());
    let defaults = classes.filter(|class| class["metadata"]["annotations"][DEFAULT_INGRESS] == "true");
    // Of several defaults the newest counts; of those equally new, the first by name.
    let newest = defaults.min_by_key(|class| {
        let text = |field: &str| class["metadata"][field].as_str().unwrap_or_default().to_owned();
        (std::cmp::Reverse(text("creationTimestamp")), text("name"))
    });
    if let (Some(class), Some(spec)) = (newest, child(object, "spec")) {
        set(spec, "ingressClassName", class["metadata"]["name"].clone());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_adds_overhead_selectors_and_tolerations() {
        let class = json!({
            "overhead": {"podFixed": {"cpu": "10m"}},
            "scheduling": {"nodeSelector": {"a": "b"}, "tolerations": [{"key": "k"}]},
        });
        let mut spec = json!({"tolerations": [{"key": "k"}]});
        place(&class, &mut spec).unwrap();
        let expected = json!({"overhead": {"cpu": "10m"}, "nodeSelector": {"a": "b"}, "tolerations": [{"key": "k"}]});
        assert_eq!(spec, expected);
        let why = place(&class, &mut json!({"nodeSelector": {"a": "c"}})).unwrap_err();
        assert_eq!(why, "conflict: runtimeClass.scheduling.nodeSelector[a] = b; pod.spec.nodeSelector[a] = c");
        assert!(place(&class, &mut json!({"overhead": {"cpu": "1"}})).is_err());
    }
}

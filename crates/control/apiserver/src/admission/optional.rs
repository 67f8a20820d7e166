//! Plugins that are off until they are asked for.
//!
//! Source: `plugin/pkg/admission/{alwayspullimages,antiaffinity,deny,extendedresourcetoleration,namespace/exists,
//! network/denyserviceexternalips}` of Kubernetes.

use super::{creates, forbidden, is_core};
use crate::server::Server;
use pintle_kinds::tree::{child, entries, items_mut, list, set, text};
use pintle_registry::{Attributes, Operation};
use pintle_types::Status;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const CONTAINERS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// AlwaysPullImages: whoever runs an image must be let into its registry.
pub(super) fn pull_always(attributes: &mut Attributes<'_>) {
    let pods = attributes.def.group.is_empty() && attributes.def.resource == "pods";
    let writes = matches!(attributes.operation, Operation::Create | Operation::Update);
    if !pods || !writes || !matches!(attributes.subresource, "" | "ephemeralcontainers") {
        return;
    }
    let Some(pod) = &mut attributes.object else { return };
    for name in CONTAINERS {
        items_mut(&mut pod["spec"], name).for_each(|container| set(container, "imagePullPolicy", "Always"));
    }
    for volume in items_mut(&mut pod["spec"], "volumes").filter(|volume| volume["image"].is_object()) {
        volume["image"]["pullPolicy"] = "Always".into();
    }
}

/// ExtendedResourceToleration: pods that ask for devices tolerate the taints of nodes with such devices.
pub(super) fn tolerate_devices(attributes: &mut Attributes<'_>) {
    let writes = matches!(attributes.operation, Operation::Create | Operation::Update);
    let Some(pod) = attributes.object.as_mut().filter(|_| writes) else { return };
    if !attributes.def.group.is_empty() || attributes.def.resource != "pods" || !attributes.subresource.is_empty() {
        return;
    }
    let mut devices = BTreeSet::new();
    for container in CONTAINERS[..2].iter().flat_map(|name| list(&pod["spec"], name)) {
        let requests = entries(&container["resources"], "requests");
        devices.extend(requests.into_iter().map(|(name, _)| name.clone()).filter(|name| is_device(name)));
    }
    let mut tolerations = list(&pod["spec"], "tolerations").to_vec();
    for device in devices {
        let toleration = json!({"key": device, "operator": "Exists"});
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
    if let Some(spec) = child(pod, "spec").filter(|_| !tolerations.is_empty()) {
        set(spec, "tolerations", tolerations);
    }
}

/// Whether a resource has a domain that is not Kubernetes' own.
fn is_device(name: &str) -> bool {
    let domain = name.split_once('/').map(|(domain, _)| domain);
    domain.is_some_and(|domain| !domain.contains("kubernetes.io") && !domain.starts_with("requests."))
}

/// LimitPodHardAntiAffinityTopology: one pod must not keep others off a whole zone.
pub(super) fn limit_anti_affinity(attributes: &Attributes<'_>) -> Result<(), Status> {
    const ALLOWED: &str = "kubernetes.io/hostname";
    let writes = matches!(attributes.operation, Operation::Create | Operation::Update);
    let Some(pod) = attributes.object.as_ref().filter(|_| writes && is_core(attributes, "pods")) else { return Ok(()) };
    let anti = &pod["spec"]["affinity"]["podAntiAffinity"];
    for term in list(anti, "requiredDuringSchedulingIgnoredDuringExecution") {
        let key = text(term, "topologyKey");
        if key != ALLOWED {
            let why = format!(
                "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey {key} but only key {ALLOWED} is allowed"
            );
            return Err(forbidden(attributes, &why));
        }
    }
    Ok(())
}

/// NamespaceExists: nothing is written in a namespace that is not there.
pub(super) async fn namespace_exists(server: &Server, attributes: &Attributes<'_>) -> Result<(), Status> {
    let own = attributes.def.group.is_empty() && attributes.def.resource == "namespaces";
    if own || attributes.namespace.is_empty() {
        return Ok(());
    }
    server.core_object("namespaces", "", attributes.namespace).await.map(drop).map_err(|status| *status)
}

/// DenyServiceExternalIPs: no service takes over addresses that are not its own.
pub(super) fn deny_external_ips(attributes: &Attributes<'_>) -> Result<(), Status> {
    let writes = matches!(attributes.operation, Operation::Create | Operation::Update);
    let Some(new) = attributes.object.as_ref().filter(|_| writes && is_core(attributes, "services")) else {
        return Ok(());
    };
    let before = attributes.old_object.as_deref().map_or(&[][..], |old| list(&old["spec"], "externalIPs"));
    match list(&new["spec"], "externalIPs").iter().all(|address| before.contains(address)) {
        true => Ok(()),
        false => Err(forbidden(attributes, "Use of external IPs is denied by admission control.")),
    }
}

/// AlwaysDeny.
pub(super) fn deny(attributes: &Attributes<'_>) -> Result<(), Status> {
    Err(forbidden(attributes, "admission control is denying all modifications"))
}

/// PodTopologyLabels: a pod carries the zone and the region of the node that it is bound to.
pub(super) async fn topology_labels(server: &Server, attributes: &mut Attributes<'_>) -> Result<(), Status> {
    const LABELS: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];
    let pods = attributes.def.group.is_empty() && attributes.def.resource == "pods";
    let node = match (attributes.operation, attributes.subresource, &attributes.object) {
        (Operation::Create, "binding", Some(binding)) if matches!(text(&binding["target"], "kind"), "Node") => {
            text(&binding["target"], "name").to_owned()
        }
        (Operation::Create, "", Some(pod)) if creates(attributes, "pods") => text(&pod["spec"], "nodeName").to_owned(),
        _ => return Ok(()),
    };
    if !pods || node.is_empty() {
        return Ok(());
    }
    let node = match server.core_object("nodes", "", &node).await {
        Ok(node) => node,
        Err(status) if status.code == 404 => return Ok(()),
        Err(status) => return Err(*status),
    };
    let found = LABELS.iter().filter_map(|key| Some((*key, node["metadata"]["labels"].get(key)?)));
    let found: Vec<(&str, &Value)> = found.collect();
    let Some(labels) = attributes
        .object
        .as_mut()
        .filter(|_| !found.is_empty())
        .and_then(|object| child(object, "metadata"))
        .and_then(|metadata| child(metadata, "labels"))
    else {
        return Ok(());
    };
    for (key, value) in found {
        pintle_kinds::tree::default_to(labels, key, value.clone());
    }
    Ok(())
}

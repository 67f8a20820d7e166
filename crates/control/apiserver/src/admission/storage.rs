//! DefaultStorageClass: claims that name no class get the one that is marked as the default; and
//! StorageObjectInUseProtection: what is in use goes only when it no longer is; and PersistentVolumeClaimResize: only
//! what may grow grows.

use super::{creates, forbidden, is_core};
use crate::server::Server;
use pintle_registry::{Attributes, GetOptions, ListOptions, Operation};
use pintle_types::Status;
use pintle_types::quantity::Quantity;
use serde_json::Value;

const DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";

pub(super) async fn default_class(server: &Server, attributes: &mut Attributes<'_>) -> Result<(), Status> {
    if !creates(attributes, "persistentvolumeclaims") {
        return Ok(());
    }
    let Some(claim) = &mut attributes.object else { return Ok(()) };
    let annotated = claim["metadata"]["annotations"].get("volume.beta.kubernetes.io/storage-class").is_some();
    if annotated || claim["spec"].get("storageClassName").is_some_and(|name| !name.is_null()) {
        return Ok(());
    }
    let table = server.registry.table();
    let def = table.get("storage.k8s.io", "v1", "storageclasses").ok_or_else(Status::no_such_resource)?;
    let classes = server.registry.list(def, "", &ListOptions::default()).await?;
    let classes = classes.items.iter().map(|o| o.to_value());
    let defaults = classes.filter(|c| c["metadata"]["annotations"][DEFAULT] == "true");
    // Of several defaults the newest counts; of those equally new, the first by name.
    let newest = defaults.min_by_key(|c| {
        let text = |field: &str| c["metadata"][field].as_str().unwrap_or_default().to_owned();
        (std::cmp::Reverse(text("creationTimestamp")), text("name"))
    });
    if let (Some(class), Some(spec)) = (newest, claim["spec"].as_object_mut()) {
        spec.insert("storageClassName".into(), Value::clone(&class["metadata"]["name"]));
    }
    Ok(())
}

/// Gives new claims, volumes and classes of their attributes the finalizer that a controller takes away again once
/// nobody uses them.
pub(super) fn protect(attributes: &mut Attributes<'_>) {
    if attributes.operation != Operation::Create || !attributes.subresource.is_empty() {
        return;
    }
    let finalizer = match (&*attributes.def.group, &*attributes.def.resource) {
        ("", "persistentvolumeclaims") => "kubernetes.io/pvc-protection",
        ("", "persistentvolumes") => "kubernetes.io/pv-protection",
        ("storage.k8s.io", "volumeattributesclasses") => "kubernetes.io/vac-protection",
        _ => return,
    };
    let metadata = attributes.object.as_mut().and_then(|object| object["metadata"].as_object_mut());
    let Some(metadata) = metadata else { return };
    let finalizers = metadata.entry("finalizers").or_insert_with(|| Value::Array(Vec::new()));
    if let Some(finalizers) = finalizers.as_array_mut().filter(|list| !list.iter().any(|it| it == finalizer)) {
        finalizers.push(finalizer.into());
    }
}

/// Claims grow only when their class says that its volumes can.
pub(super) async fn resize(server: &Server, attributes: &Attributes<'_>) -> Result<(), Status> {
    if attributes.operation != Operation::Update || !is_core(attributes, "persistentvolumeclaims") {
        return Ok(());
    }
    let (Some(new), Some(old)) = (&attributes.object, attributes.old_object.as_deref()) else { return Ok(()) };
    let size = |claim: &Value| -> Option<Quantity> {
        claim["spec"]["resources"]["requests"]["storage"].as_str()?.parse().ok()
    };
    if size(new) <= size(old) {
        return Ok(());
    }
    if old["status"]["phase"] != "Bound" {
        return Err(forbidden(attributes, "Only bound persistent volume claims can be expanded"));
    }
    let name = new["spec"]["storageClassName"].as_str().unwrap_or_default();
    let table = server.registry.table();
    let def = table.get("storage.k8s.io", "v1", "storageclasses").ok_or_else(Status::no_such_resource)?;
    let class = match server.registry.get(def, "", name, &GetOptions::default()).await {
        Ok(class) if !name.is_empty() => class.to_value(),
        _ => Value::Null,
    };
    if class["allowVolumeExpansion"] == true {
        return Ok(());
    }
    let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize";
    Err(forbidden(attributes, why))
}

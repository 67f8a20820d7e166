//! Validation of the volumes that plug-ins provide, in pods and in persistent volumes.

use super::volume::host_path;
use crate::{
    check::{Errors, name},
    tree,
};
use pintle_types::{field::Path, names};
use serde_json::Value;

/// Whose volume it is; that of the cluster refers to secrets of any namespace.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    Pod,
    Cluster,
}

/// Texts that must not be empty.
const NEEDS: &[(&str, &[&str])] = &[
    ("awsElasticBlockStore", &["volumeID"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("azureFile", &["secretName", "shareName"]),
    ("cinder", &["volumeID"]),
    ("flexVolume", &["driver"]),
    ("gcePersistentDisk", &["pdName"]),
    ("gitRepo", &["repository"]),
    ("glusterfs", &["endpoints", "path"]),
    ("nfs", &["server", "path"]),
    ("photonPersistentDisk", &["pdID"]),
    ("portworxVolume", &["volumeID"]),
    ("scaleIO", &["gateway", "system", "volumeName"]),
    ("vsphereVolume", &["volumePath"]),
];

/// One source of the volume at `place`.
pub(crate) fn validate(errors: &mut Errors, place: &Path, source: &str, value: &Value, owner: Owner) {
    // Upstream calls this one by another name than the field's.
    let at = place.child(if source == "gcePersistentDisk" { "persistentDisk" } else { source });
    for field in NEEDS.iter().filter(|(name, _)| *name == source).flat_map(|(_, fields)| *fields) {
        errors.needs(&at.child(field), tree::text(value, field), "");
    }
    match source {
        "hostPath" => host_path(errors, &at, value),
        "nfs" if !tree::text(value, "path").starts_with('/') => {
            errors.invalid(&at.child("path"), tree::text(value, "path"), "must be an absolute path");
        }
        "gcePersistentDisk" | "awsElasticBlockStore" => partition(errors, &at, value),
        "gitRepo" => name::local_path(errors, &at.child("directory"), tree::text(value, "directory")),
        "cephfs" | "rbd" => ceph(errors, &at, source, value),
        "iscsi" => iscsi(errors, &at, value, owner),
        "fc" => fibre_channel(errors, &at, value),
        "flocker" => flocker(errors, &at, value),
        "quobyte" => quobyte(errors, &at, value),
        "flexVolume" => options(errors, &at, value),
        "azureDisk" => azure_disk(errors, &at, value),
        "storageos" => storage_os(errors, &at, value, owner),
        "cinder" => secret_ref(errors, &at, value, owner),
        "csi" => csi(errors, &at, value, owner),
        "azureFile" if value.get("secretNamespace").is_some_and(|namespace| namespace == "") => {
            errors.required(&at.child("secretNamespace"), "");
        }
        "glusterfs" => endpoints_namespace(errors, &at.child("endpointsNamespace"), value),
        _ => {}
    }
}

fn partition(errors: &mut Errors, at: &Path, value: &Value) {
    let partition = tree::int(value, "partition");
    if !(0..=255).contains(&partition) {
        errors.invalid(&at.child("partition"), partition, "must be between 1 and 255, inclusive");
    }
}

fn ceph(errors: &mut Errors, at: &Path, source: &str, value: &Value) {
    if tree::list(value, "monitors").is_empty() {
        errors.required(&at.child("monitors"), "");
    }
    if source == "rbd" {
        errors.needs(&at.child("image"), tree::text(value, "image"), "");
    }
}

/// The name of an initiator and the portal have to fit into one name of a device.
pub(super) fn initiator_fits(errors: &mut Errors, at: &Path, volume: &str, iscsi: &Value) {
    if too_long_for_initiator(volume, iscsi) {
        errors.invalid(at, volume, INITIATOR_LENGTH);
    }
}

const INITIATOR_LENGTH: &str = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";

fn too_long_for_initiator(volume: &str, iscsi: &Value) -> bool {
    tree::has(iscsi, "initiatorName") && volume.len() + 1 + tree::text(iscsi, "targetPortal").len() > 64
}

/// The same rule in a persistent volume, where the portal is blamed.
pub(crate) fn cluster_initiator_fits(errors: &mut Errors, at: &Path, volume: &str, iscsi: &Value) {
    if too_long_for_initiator(volume, iscsi) {
        errors.invalid(&at.child("targetportal"), tree::text(iscsi, "targetPortal"), INITIATOR_LENGTH);
    }
}

fn iscsi(errors: &mut Errors, at: &Path, value: &Value, owner: Owner) {
    let unknown = match owner {
        Owner::Pod => "must be valid format starting with iqn, eui, or naa",
        Owner::Cluster => "must be valid format",
    };
    errors.needs(&at.child("targetPortal"), tree::text(value, "targetPortal"), "");
    let iqn = tree::text(value, "iqn");
    if errors.needs(&at.child("iqn"), iqn, "") {
        initiator(errors, &at.child("iqn"), iqn, unknown);
    }
    lun(errors, at, tree::int(value, "lun"));
    let secret = tree::has(value, "secretRef");
    if (tree::flag(value, "chapAuthDiscovery") || tree::flag(value, "chapAuthSession")) && !secret {
        errors.required(&at.child("secretRef"), "");
    }
    if owner == Owner::Cluster && secret && tree::text(&value["secretRef"], "name").is_empty() {
        errors.required(&at.child("secretRef").child("name"), "");
    }
    if let Some(own) = value.get("initiatorName").and_then(Value::as_str) {
        initiator(errors, &at.child("initiatorname"), own, unknown);
    }
}

fn lun(errors: &mut Errors, at: &Path, lun: i64) {
    if !(0..=255).contains(&lun) {
        errors.invalid(&at.child("lun"), lun, "must be between 0 and 255, inclusive");
    }
}

/// A name of an iSCSI node: `iqn.2026-01.com.example:x`, or `eui.` or `naa.` and so many letters and digits.
fn initiator(errors: &mut Errors, at: &Path, text: &str, unknown: &str) {
    let plain = |rest: &str, length: usize| rest.len() == length && rest.chars().all(|c| c.is_ascii_alphanumeric());
    let right = match text.get(..3) {
        Some("iqn") => is_iqn(text),
        Some("eui" | "naa") => plain(text.get(4..).unwrap_or(""), if text.starts_with("eui") { 16 } else { 32 }),
        _ => return errors.invalid(at, text, unknown),
    };
    if !right {
        errors.invalid(at, text, "must be valid format");
    }
}

fn is_iqn(text: &str) -> bool {
    let digits = |text: &str, count: usize| text.len() == count && text.chars().all(|c| c.is_ascii_digit());
    let Some((head, tail)) = text.strip_prefix("iqn.").and_then(|rest| rest.split_once(':')) else { return false };
    let Some((date, domain)) = head.split_once('.') else { return false };
    let dated = date.split_once('-').is_some_and(|(year, month)| digits(year, 4) && digits(month, 2));
    let named = !domain.is_empty() && domain.chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c));
    dated && named && !tail.is_empty() && !tail.chars().any(|c| ",;*&$|".contains(c) || c.is_whitespace())
}

fn fibre_channel(errors: &mut Errors, at: &Path, value: &Value) {
    let (names, ids) = (tree::list(value, "targetWWNs"), tree::list(value, "wwids"));
    let path = at.child("targetWWNs");
    match (names.is_empty(), ids.is_empty()) {
        (true, true) => errors.required(&path, "must specify either targetWWNs or wwids, but not both"),
        (false, false) => {
            errors.invalid(&path, names.to_vec(), "targetWWNs and wwids can not be specified simultaneously");
        }
        _ => {}
    }
    match value.get("lun").and_then(Value::as_i64) {
        _ if names.is_empty() => {}
        None => errors.required(&at.child("lun"), "lun is required if targetWWNs is specified"),
        Some(number) => lun(errors, at, number),
    }
}

fn flocker(errors: &mut Errors, at: &Path, value: &Value) {
    let (name, id) = (tree::text(value, "datasetName"), tree::text(value, "datasetUUID"));
    match (name.is_empty(), id.is_empty()) {
        (true, true) => errors.required(at, "one of datasetName and datasetUUID is required"),
        (false, false) => {
            errors.invalid(at, "resource", "datasetName and datasetUUID can not be specified simultaneously");
        }
        _ => {}
    }
    if name.contains('/') {
        errors.invalid(&at.child("datasetName"), name, "must not contain '/'");
    }
}

fn quobyte(errors: &mut Errors, at: &Path, value: &Value) {
    const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
    let registry = tree::text(value, "registry");
    if registry.is_empty() {
        errors.required(&at.child("registry"), PAIRS);
    } else if tree::text(value, "tenant").len() >= 65 {
        errors.required(&at.child("tenant"), "must be a UUID and may not exceed a length of 64 characters");
    } else {
        let is_pair =
            |pair: &str| pair.rsplit_once(':').is_some_and(|(host, _)| !host.contains(':') || host.ends_with(']'));
        for _ in registry.split(',').filter(|pair| !is_pair(pair)) {
            errors.invalid(&at.child("registry"), registry, PAIRS);
        }
    }
    errors.needs(&at.child("volume"), tree::text(value, "volume"), "");
}

fn options(errors: &mut Errors, at: &Path, value: &Value) {
    for (key, _) in tree::entries(value, "options") {
        let namespace = format!(".{}", key.split('/').next().unwrap_or(key).to_lowercase());
        if namespace.ends_with(".kubernetes.io") || namespace.ends_with(".k8s.io") {
            let words = "kubernetes.io and k8s.io namespaces are reserved";
            errors.invalid(&at.child("options").key(key), key.as_str(), words);
        }
    }
}

fn azure_disk(errors: &mut Errors, at: &Path, value: &Value) {
    const MANAGED: &str =
        "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
    const BLOB: &str = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
    if let Some(mode) = value.get("cachingMode").and_then(Value::as_str) {
        errors.one_of(&at.child("cachingMode"), mode, &["None", "ReadOnly", "ReadWrite"]);
    }
    let Some(kind) = value.get("kind").and_then(Value::as_str) else { return };
    errors.one_of(&at.child("kind"), kind, &["Dedicated", "Managed", "Shared"]);
    let uri = tree::text(value, "diskURI");
    let (prefix, form) = if kind == "Managed" { ("/subscriptions/", MANAGED) } else { ("https://", BLOB) };
    if !uri.starts_with(prefix) {
        errors.unsupported(&at.child("diskURI"), uri, &[form]);
    }
}

fn storage_os(errors: &mut Errors, at: &Path, value: &Value, owner: Owner) {
    for (field, needed) in [("volumeName", true), ("volumeNamespace", false)] {
        let text = tree::text(value, field);
        if !text.is_empty() {
            errors.invalid_for(&at.child(field), text, names::dns1123_label_errors(text));
        } else if needed {
            errors.required(&at.child(field), "");
        }
    }
    secret_ref(errors, at, value, owner);
}

fn secret_ref(errors: &mut Errors, at: &Path, value: &Value, owner: Owner) {
    let (secret, at) = (&value["secretRef"], at.child("secretRef"));
    if secret.is_null() {
        return;
    }
    errors.needs(&at.child("name"), tree::text(secret, "name"), "");
    if owner == Owner::Cluster {
        errors.needs(&at.child("namespace"), tree::text(secret, "namespace"), "");
    }
}

fn endpoints_namespace(errors: &mut Errors, at: &Path, value: &Value) {
    let Some(namespace) = value.get("endpointsNamespace").and_then(Value::as_str) else { return };
    if namespace.is_empty() {
        let words = "if the endpointnamespace is set, it must be a valid namespace name";
        errors.invalid(at, namespace, words);
    } else {
        errors.invalid_for(at, namespace, names::dns1123_label_errors(namespace));
    }
}

/// The name of a CSI driver, at most 63 bytes, whatever its case.
pub(crate) fn driver_name(errors: &mut Errors, path: &Path, text: &str) {
    if !errors.needs(path, text, "") {
        return;
    }
    if text.len() > 63 {
        errors.too_long(path, 63);
    }
    errors.invalid_for(path, text, names::dns1123_subdomain_errors(&text.to_lowercase()));
}

fn csi(errors: &mut Errors, at: &Path, value: &Value, owner: Owner) {
    driver_name(errors, &at.child("driver"), tree::text(value, "driver"));
    if owner == Owner::Pod {
        let (secret, path) = (&value["nodePublishSecretRef"], at.child("nodePublishSecretRef").child("name"));
        let own = tree::text(secret, "name");
        if !secret.is_null() && errors.needs(&path, own, "") {
            errors.invalid_for(&at.child("name"), own, names::dns1123_subdomain_errors(own));
        }
        return;
    }
    errors.needs(&at.child("volumeHandle"), tree::text(value, "volumeHandle"), "");
    const SECRETS: [&str; 4] =
        ["controllerPublishSecretRef", "controllerExpandSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef"];
    for field in SECRETS.into_iter().filter(|field| tree::has(value, field)) {
        let (secret, at) = (&value[field], at.child(field));
        let (own, namespace) = (tree::text(secret, "name"), tree::text(secret, "namespace"));
        if errors.needs(&at.child("name"), own, "") {
            errors.invalid_for(&at.child("name"), own, names::dns1123_subdomain_errors(own));
        }
        if errors.needs(&at.child("namespace"), namespace, "") {
            errors.invalid_for(&at.child("namespace"), namespace, names::dns1123_label_errors(namespace));
        }
    }
}

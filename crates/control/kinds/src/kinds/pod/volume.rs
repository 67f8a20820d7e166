//! Validation of the volumes of a pod.

use super::{
    container::{FILE_FIELDS, field_ref, resource_ref},
    plugin, projection,
};
use crate::{
    check::{Errors, Seen, name, number, resource},
    tree,
};
use pintle_types::{field::Path, names};
use serde_json::Value;
use std::collections::{HashMap, HashSet};

/// The volumes of a pod that are right, by name; mounts of others are reported, too.
pub(super) type Volumes<'a> = HashMap<&'a str, &'a Value>;

/// The sources of volumes in the order in which upstream looks at them.
const SOURCES: &[&str] = &[
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
];

/// All volumes of a pod, whose claims are named after it if its own name is known.
pub(super) fn validate_all<'a>(
    errors: &mut Errors,
    path: &Path,
    volumes: &'a [Value],
    pod_name: Option<&str>,
) -> Volumes<'a> {
    let pod_name = pod_name.filter(|name| !name.is_empty());
    let created: HashSet<String> = volumes
        .iter()
        .filter(|volume| tree::has(volume, "ephemeral"))
        .filter_map(|volume| Some(format!("{}-{}", pod_name?, tree::text(volume, "name"))))
        .collect();
    let mut right = Volumes::new();
    for (i, volume) in volumes.iter().enumerate() {
        let at = path.index(i);
        let before = errors.0.len();
        sources(errors, &at, volume, pod_name);
        let own = tree::text(volume, "name");
        if errors.needs(&at.child("name"), own, "") {
            errors.invalid_for(&at.child("name"), own, names::dns1123_label_errors(own));
        }
        if right.contains_key(own) {
            errors.duplicate(&at.child("name"), own);
        }
        if errors.0.len() == before {
            right.insert(own, volume);
        }
        let claim = tree::text(&volume["persistentVolumeClaim"], "claimName");
        if created.contains(claim) {
            let at = at.child("persistentVolumeClaim").child("claimName");
            errors.invalid(&at, claim, "must not reference a PVC that gets created for an ephemeral volume");
        }
    }
    right
}

fn sources(errors: &mut Errors, at: &Path, volume: &Value, pod_name: Option<&str>) {
    let mut found = 0;
    for source in SOURCES.iter().filter(|source| tree::has(volume, source)) {
        found += 1;
        match found {
            1 => one(errors, at, source, volume, pod_name),
            _ => errors.forbidden(&at.child(second_name(source)), "may not specify more than 1 volume type"),
        }
        if *source == "iscsi" {
            plugin::initiator_fits(errors, &at.child("name"), tree::text(volume, "name"), &volume["iscsi"]);
        }
    }
    if found == 0 {
        errors.required(at, "must specify a volume type");
    }
}

/// Upstream misspells two sources where they come second, and clients see it.
pub(crate) fn second_name(source: &str) -> &str {
    match source {
        "cephfs" => "cephFS",
        "downwardAPI" => "downwarAPI",
        other => other,
    }
}

fn one(errors: &mut Errors, place: &Path, source: &str, volume: &Value, pod_name: Option<&str>) {
    let (at, value) = (place.child(source), &volume[source]);
    match source {
        "emptyDir" => {
            if resource::quantity(&value["sizeLimit"]).is_some_and(|size| size.is_negative()) {
                errors.forbidden(&at.child("sizeLimit"), "SizeLimit field must be a valid resource quantity");
            }
        }
        "secret" | "configMap" => {
            let field = if source == "secret" { "secretName" } else { "name" };
            errors.needs(&at.child(field), tree::text(value, field), "");
            number::mode(errors, &at, value, "defaultMode");
            key_files(errors, &at, value);
        }
        "downwardAPI" => {
            number::mode(errors, &at, value, "defaultMode");
            tree::list(value, "items").iter().for_each(|item| downward_file(errors, &at, item));
        }
        "projected" => projection::validate(errors, &at, value),
        "persistentVolumeClaim" => {
            errors.needs(&at.child("claimName"), tree::text(value, "claimName"), "");
        }
        "ephemeral" => {
            ephemeral(errors, &at, value);
            claim_name(errors, &place.child("name"), tree::text(volume, "name"), pod_name);
        }
        "image" => {
            errors.needs(&at.child("reference"), tree::text(value, "reference"), "");
            let policy = tree::text(value, "pullPolicy");
            errors.needs_one_of(&at.child("pullPolicy"), policy, &["Always", "IfNotPresent", "Never"]);
        }
        _ => plugin::validate(errors, place, source, value, plugin::Owner::Pod),
    }
}

/// A path of the host, in pods and in persistent volumes.
pub(crate) fn host_path(errors: &mut Errors, at: &Path, value: &Value) {
    const TYPES: &[&str] =
        &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    let path = tree::text(value, "path");
    if !errors.needs(&at.child("path"), path, "") {
        return;
    }
    name::no_backsteps(errors, &at.child("path"), path);
    errors.one_of(&at.child("type"), tree::text(value, "type"), TYPES);
}

/// The files made from keys.
pub(super) fn key_files(errors: &mut Errors, at: &Path, source: &Value) {
    for (i, item) in tree::list(source, "items").iter().enumerate() {
        let at = at.child("items").index(i);
        errors.needs(&at.child("key"), tree::text(item, "key"), "");
        file_path(errors, &at, item);
        number::mode(errors, &at, item, "mode");
    }
}

/// A needed path that stays below the volume.
pub(super) fn file_path(errors: &mut Errors, at: &Path, item: &Value) {
    let path = tree::text(item, "path");
    errors.needs(&at.child("path"), path, "");
    name::local_nonreserved_path(errors, &at.child("path"), path);
}

/// A file of the downward API; upstream does not say which one of a volume.
pub(super) fn downward_file(errors: &mut Errors, at: &Path, item: &Value) {
    file_path(errors, at, item);
    match (tree::has(item, "fieldRef"), tree::has(item, "resourceFieldRef")) {
        (true, both) => {
            field_ref(errors, &at.child("fieldRef"), &item["fieldRef"], FILE_FIELDS);
            if both {
                errors.invalid(at, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously");
            }
        }
        (false, true) => resource_ref(errors, &at.child("resourceFieldRef"), &item["resourceFieldRef"], true),
        (false, false) => errors.required(at, "one of fieldRef and resourceFieldRef is required"),
    }
    number::mode(errors, at, item, "mode");
}

fn ephemeral(errors: &mut Errors, at: &Path, value: &Value) {
    let at = at.child("volumeClaimTemplate");
    let template = &value["volumeClaimTemplate"];
    if template.is_null() {
        return errors.required(&at, "");
    }
    let (path, metadata) = (at.child("metadata"), &template["metadata"]);
    name::annotations(errors, &path.child("annotations"), metadata);
    name::labels(errors, &path.child("labels"), metadata, "labels");
    // In the order of Go's fields; those of the server's own come with every object and are not a client's.
    const OTHERS: &[&str] = &["name", "generateName", "namespace", "uid", "ownerReferences", "finalizers"];
    for field in OTHERS.iter().filter(|field| !tree::is_empty(tree::at(metadata, field))) {
        errors.forbidden(&path.child(field), "cannot be set");
    }
    crate::kinds::claim::validate_spec(errors, &at.child("spec"), &template["spec"]);
}

fn claim_name(errors: &mut Errors, at: &Path, volume: &str, pod_name: Option<&str>) {
    let Some(pod) = pod_name.filter(|_| !volume.is_empty()) else { return };
    let claim = format!("{pod}-{volume}");
    for why in names::dns1123_subdomain_errors(&claim) {
        errors.invalid(at, volume, &format!("PVC name {claim:?}: {why}"));
    }
}

/// Paths that the sources of one projected volume share.
pub(super) fn unique_path(errors: &mut Errors, volume: &Path, path: &str, shown: &str, paths: &mut Seen) {
    if !paths.first(path) {
        errors.invalid(volume, shown, "conflicting duplicate paths");
    }
}

//! Validation of the volumes of a pod.

use super::container::{FILE_FIELDS, field_ref, resource_ref};
use crate::{
    check::{Errors, Seen, name, number, resource},
    tree,
};
use pintle_types::{field::Path, names};
use serde_json::Value;
use std::collections::HashSet;

/// All volumes of a pod. Answers the names of those that are right: mounts of others are reported, too.
pub(super) fn validate_all<'a>(errors: &mut Errors, path: &Path, volumes: &'a [Value]) -> HashSet<&'a str> {
    let mut seen = Seen::default();
    let mut right = HashSet::new();
    for (i, volume) in volumes.iter().enumerate() {
        let at = path.index(i);
        let before = errors.0.len();
        sources(errors, &at, volume);
        let own = tree::text(volume, "name");
        if errors.needs(&at.child("name"), own, "") {
            errors.invalid_for(&at.child("name"), own, names::dns1123_label_errors(own));
        }
        if !seen.first(own) && !own.is_empty() {
            errors.duplicate(&at.child("name"), own);
        }
        if errors.0.len() == before {
            right.insert(own);
        }
    }
    right
}

fn sources(errors: &mut Errors, at: &Path, volume: &Value) {
    let mut found = 0;
    for (source, value) in volume.as_object().into_iter().flatten() {
        if source == "name" || value.is_null() {
            continue;
        }
        found += 1;
        match found {
            1 => one(errors, &at.child(source), source, value),
            _ => errors.forbidden(&at.child(source), "may not specify more than 1 volume type"),
        }
    }
    if found == 0 {
        errors.required(at, "must specify a volume type");
    }
}

fn one(errors: &mut Errors, at: &Path, source: &str, value: &Value) {
    match source {
        "emptyDir" if resource::quantity(&value["sizeLimit"]).is_some_and(|size| size.is_negative()) => {
            errors.forbidden(&at.child("sizeLimit"), "SizeLimit field must be a valid resource quantity");
        }
        "hostPath" => host_path(errors, at, value),
        "secret" => {
            errors.needs(&at.child("secretName"), tree::text(value, "secretName"), "");
            files(errors, at, value);
        }
        "configMap" => {
            errors.needs(&at.child("name"), tree::text(value, "name"), "");
            files(errors, at, value);
        }
        "downwardAPI" => {
            number::mode(errors, at, value, "defaultMode");
            for (i, item) in tree::list(value, "items").iter().enumerate() {
                downward_file(errors, &at.child("items").index(i), item);
            }
        }
        "projected" => projected(errors, at, value),
        "persistentVolumeClaim" => {
            errors.needs(&at.child("claimName"), tree::text(value, "claimName"), "");
        }
        "ephemeral" => ephemeral(errors, at, value),
        _ => plugin(errors, at, source, value),
    }
}

/// Volumes that plug-ins provide: fields that must not be empty.
pub(crate) fn plugin(errors: &mut Errors, at: &Path, source: &str, value: &Value) {
    const NEEDS: &[(&str, &[&str])] = &[
        ("awsElasticBlockStore", &["volumeID"]),
        ("azureDisk", &["diskName", "diskURI"]),
        ("azureFile", &["secretName", "shareName"]),
        ("cinder", &["volumeID"]),
        ("csi", &["driver"]),
        ("flexVolume", &["driver"]),
        ("gcePersistentDisk", &["pdName"]),
        ("gitRepo", &["repository"]),
        ("glusterfs", &["endpoints", "path"]),
        ("image", &["reference"]),
        ("iscsi", &["targetPortal", "iqn"]),
        ("nfs", &["server", "path"]),
        ("photonPersistentDisk", &["pdID"]),
        ("portworxVolume", &["volumeID"]),
        ("quobyte", &["registry", "volume"]),
        ("rbd", &["image"]),
        ("scaleIO", &["gateway", "system", "volumeName"]),
        ("vsphereVolume", &["volumePath"]),
    ];
    for field in NEEDS.iter().filter(|(name, _)| *name == source).flat_map(|(_, fields)| *fields) {
        errors.needs(&at.child(field), tree::text(value, field), "");
    }
    if source == "nfs" && !tree::text(value, "path").starts_with('/') {
        errors.invalid(&at.child("path"), tree::text(value, "path"), "must be an absolute path");
    }
    if source == "cephfs" && tree::list(value, "monitors").is_empty()
        || source == "rbd" && tree::list(value, "monitors").is_empty()
    {
        errors.required(&at.child("monitors"), "");
    }
    if source == "image" && tree::has(value, "pullPolicy") {
        let policy = tree::text(value, "pullPolicy");
        errors.needs_one_of(&at.child("pullPolicy"), policy, &["Always", "IfNotPresent", "Never"]);
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

/// Modes and the files made from keys.
fn files(errors: &mut Errors, at: &Path, source: &Value) {
    number::mode(errors, at, source, "defaultMode");
    key_files(errors, at, source);
}

fn key_files(errors: &mut Errors, at: &Path, source: &Value) {
    for (i, item) in tree::list(source, "items").iter().enumerate() {
        let at = at.child("items").index(i);
        errors.needs(&at.child("key"), tree::text(item, "key"), "");
        file_path(errors, &at, item);
        number::mode(errors, &at, item, "mode");
    }
}

fn file_path(errors: &mut Errors, at: &Path, item: &Value) {
    let path = tree::text(item, "path");
    errors.needs(&at.child("path"), path, "");
    name::local_nonreserved_path(errors, &at.child("path"), path);
}

fn downward_file(errors: &mut Errors, at: &Path, item: &Value) {
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

fn projected(errors: &mut Errors, at: &Path, value: &Value) {
    number::mode(errors, at, value, "defaultMode");
    let mut paths = Seen::default();
    for (i, source) in tree::list(value, "sources").iter().enumerate() {
        let at = at.child("sources").index(i);
        let mut found = 0;
        for (kind, value) in source.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
            found += 1;
            if found > 1 {
                errors.forbidden(&at.child(kind), "may not specify more than 1 volume type per source");
                continue;
            }
            projection(errors, &at.child(kind), kind, value, &mut paths);
        }
    }
}

fn projection(errors: &mut Errors, at: &Path, kind: &str, value: &Value, paths: &mut Seen) {
    match kind {
        "secret" | "configMap" => {
            errors.needs(&at.child("name"), tree::text(value, "name"), "");
            key_files(errors, at, value);
            unique_paths(errors, at, value, paths);
        }
        "downwardAPI" => {
            for (i, item) in tree::list(value, "items").iter().enumerate() {
                downward_file(errors, &at.child("items").index(i), item);
            }
            unique_paths(errors, at, value, paths);
        }
        "serviceAccountToken" => token(errors, at, value, paths),
        "clusterTrustBundle" => file_path(errors, at, value),
        _ => {}
    }
}

fn unique_paths(errors: &mut Errors, at: &Path, value: &Value, paths: &mut Seen) {
    for item in tree::list(value, "items") {
        let path = tree::text(item, "path");
        if !path.is_empty() && !paths.first(path) {
            errors.invalid(at, path, "conflicting duplicate paths");
        }
    }
}

fn token(errors: &mut Errors, at: &Path, value: &Value, paths: &mut Seen) {
    let path = tree::text(value, "path");
    let seconds = value.get("expirationSeconds").and_then(Value::as_i64).unwrap_or(3600);
    let at_seconds = at.child("expirationSeconds");
    if seconds < 600 {
        errors.invalid(&at_seconds, seconds, "may not specify a duration less than 10 minutes");
    }
    if seconds > 1 << 32 {
        errors.invalid(&at_seconds, seconds, "may not specify a duration larger than 2^32 seconds");
    }
    if !errors.needs(&at.child("path"), path, "") {
        return;
    }
    name::local_nonreserved_path(errors, &at.child("path"), path);
    if !paths.first(path) {
        errors.invalid(at, path, "conflicting duplicate paths");
    }
}

fn ephemeral(errors: &mut Errors, at: &Path, value: &Value) {
    let at = at.child("volumeClaimTemplate");
    let template = &value["volumeClaimTemplate"];
    if template.is_null() {
        return errors.required(&at, "");
    }
    crate::metadata::validate_inner(errors, &at.child("metadata"), &template["metadata"]);
    crate::kinds::claim::validate_spec(errors, &at.child("spec"), &template["spec"]);
}

//! Persistent volumes.

use super::{
    claim::{check_modes, class_name, modes_text, old_class_annotation, resource_text, volume_mode},
    pod, workload,
};
use crate::{
    check::{Errors, name, resource, selector},
    column::{self, Column},
    strategy::Strategy,
    tree,
};
use jiff::Timestamp;
use pintle_types::{
    field::{ErrorList, Path},
    names,
};
use serde_json::{Value, json};

pub struct PersistentVolume;

static VOLUME_COLUMNS: &[Column] = &[
    column::NAME,
    Column::new(
        "Capacity",
        "string",
        "",
        0,
        "capacity is the description of the persistent volume's resources and capacity. More info: \
         https://kubernetes.io/docs/concepts/storage/persistent-volumes#capacity",
    ),
    Column::new(
        "Access Modes",
        "string",
        "",
        0,
        "accessModes contains all ways the volume can be mounted. More info: \
         https://kubernetes.io/docs/concepts/storage/persistent-volumes#access-modes",
    ),
    Column::new(
        "Reclaim Policy",
        "string",
        "",
        0,
        "persistentVolumeReclaimPolicy defines what happens to a persistent volume when released from its claim. \
         Valid options are Retain (default for manually created PersistentVolumes), Delete (default for \
         dynamically provisioned PersistentVolumes), and Recycle (deprecated). Recycle must be supported by the \
         volume plugin underlying this PersistentVolume. More info: \
         https://kubernetes.io/docs/concepts/storage/persistent-volumes#reclaiming",
    ),
    Column::new(
        "Status",
        "string",
        "",
        0,
        "phase indicates if a volume is available, bound to a claim, or released by a claim. More info: \
         https://kubernetes.io/docs/concepts/storage/persistent-volumes#phase",
    ),
    Column::new(
        "Claim",
        "string",
        "",
        0,
        "claimRef is part of a bi-directional binding between PersistentVolume and PersistentVolumeClaim. \
         Expected to be non-nil when bound. claim.VolumeName is the authoritative bind between PV and PVC. More \
         info: https://kubernetes.io/docs/concepts/storage/persistent-volumes#binding",
    ),
    Column::new("StorageClass", "string", "", 0, "StorageClass of the pv"),
    Column::new("VolumeAttributesClass", "string", "", 0, "VolumeAttributesClass of the pv"),
    Column::new(
        "Reason",
        "string",
        "",
        0,
        "reason is a brief CamelCase string that describes any failure and is meant for machine parsing and tidy \
         display in the CLI.",
    ),
    column::AGE,
    Column::new(
        "VolumeMode",
        "string",
        "",
        1,
        "volumeMode defines if a volume is intended to be used with a formatted filesystem or to remain in raw \
         block state. Value of Filesystem is implied when not included in spec.",
    ),
];

/// Where options were before there was a field for them.
const OPTIONS: &str = "volume.beta.kubernetes.io/mount-options";

/// Kinds of volumes that nothing serves any more.
const OLD_SOURCES: &[(&str, &str)] = &[
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

impl Strategy for PersistentVolume {
    fn default(&self, _api_version: &str, object: &mut Value) {
        let Some(spec) = tree::child(object, "spec") else { return };
        tree::default_empty(spec, "persistentVolumeReclaimPolicy", "Retain");
        tree::default_to(spec, "volumeMode", "Filesystem");
        if let Some(path) = tree::existing(spec, "hostPath") {
            tree::default_to(path, "type", "");
        }
        pod::default_network_volume(spec);
    }

    fn prepare_create(&self, object: &mut Value) {
        let made = object["metadata"]["creationTimestamp"].clone();
        let mut status = json!({"phase": "Pending"});
        if !made.is_null() {
            tree::set(&mut status, "lastPhaseTransitionTime", made);
        }
        tree::set(object, "status", status);
    }

    fn stamp(&self, subresource: &str, new: &mut Value, old: Option<&Value>, now: Timestamp) {
        const SINCE: &str = "lastPhaseTransitionTime";
        let ("status", Some(old)) = (subresource, old) else { return };
        let (before, phase) = (&old["status"], tree::text(&new["status"], "phase").to_owned());
        let kept = !tree::has(&new["status"], SINCE) || new["status"][SINCE] == before[SINCE];
        if phase != tree::text(before, "phase")
            && kept
            && let Some(status) = tree::child(new, "status")
        {
            tree::set(status, SINCE, now.to_string());
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let name = tree::text(&object["metadata"], "name");
        Errors::of(|errors| {
            validate_spec(errors, &Path::new("spec"), &object["spec"], name);
            mount_options(errors, object);
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut found = self.validate(new);
        found.extend(Errors::of(|errors| unchanged(errors, &new["spec"], &old["spec"])));
        found
    }

    fn warnings(&self, new: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut warnings: Vec<String> = old_class_annotation(new).into_iter().collect();
        if new["metadata"]["annotations"].get(OPTIONS).is_some() {
            let words = "deprecated since v1.31; use \"mountOptions\" attribute instead";
            warnings.push(format!("metadata.annotations[{OPTIONS}]: {words}"));
        }
        if tree::text(&new["spec"], "persistentVolumeReclaimPolicy") == "Recycle" {
            let words = "The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic \
                         provisioning.";
            warnings.push(format!("spec.persistentVolumeReclaimPolicy: {words}"));
        }
        let path = Path::new("spec.nodeAffinity.required.nodeSelectorTerms");
        for (i, term) in tree::list(&new["spec"]["nodeAffinity"]["required"], "nodeSelectorTerms").iter().enumerate() {
            warnings.extend(pod::node_term_warnings(&path.index(i), term));
        }
        let old = OLD_SOURCES.iter().filter(|(source, _)| tree::has(&new["spec"], source));
        warnings.extend(old.map(|(source, words)| format!("spec.{source}: {words}")));
        warnings
    }

    fn columns(&self) -> &[Column] {
        VOLUME_COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let claim = &spec["claimRef"];
        let claimed = match claim.is_null() {
            true => String::new(),
            false => format!("{}/{}", tree::text(claim, "namespace"), tree::text(claim, "name")),
        };
        let phase = match tree::has(&object["metadata"], "deletionTimestamp") {
            true => "Terminating",
            false => tree::text(status, "phase"),
        };
        let unset = |field: &str| spec.get(field).and_then(Value::as_str).unwrap_or("<unset>");
        vec![
            workload::name(object),
            resource_text(&spec["capacity"]["storage"]).into(),
            modes_text(spec).into(),
            tree::text(spec, "persistentVolumeReclaimPolicy").into(),
            phase.into(),
            claimed.into(),
            tree::text(spec, "storageClassName").into(),
            unset("volumeAttributesClassName").into(),
            tree::text(status, "reason").into(),
            column::age(object, now),
            unset("volumeMode").into(),
        ]
    }
}

/// Fields of a volume's spec that aren't its source.
const NOT_SOURCES: &[&str] = &[
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

fn validate_spec(errors: &mut Errors, path: &Path, spec: &Value, name: &str) {
    access(errors, path, spec);
    capacity(errors, &path.child("capacity"), &spec["capacity"]);
    let policy = tree::text(spec, POLICY);
    if !policy.is_empty() {
        errors.one_of(&path.child(POLICY), policy, &["Delete", "Recycle", "Retain"]);
    }
    if tree::has(spec, "nodeAffinity") {
        let at = path.child("nodeAffinity").child("required");
        match &spec["nodeAffinity"]["required"] {
            Value::Null => errors.required(&at, "must specify required node constraints"),
            required => selector::nodes(errors, &at, required),
        }
    }
    source_and_policy(errors, path, spec, name);
    class_name(errors, &path.child("storageClassName"), spec, "storageClassName");
    volume_mode(errors, path, spec);
    attributes(errors, path, spec);
}

const POLICY: &str = "persistentVolumeReclaimPolicy";

/// The spec of a volume that is written where it is used, as attachments of migrated volumes do.
pub(super) fn validate_inline(errors: &mut Errors, path: &Path, spec: &Value) {
    const WORDS: &str = "may not be specified in the context of inline volumes";
    for field in ["claimRef", "capacity"] {
        if !tree::is_empty(&spec[field]) {
            errors.forbidden(&path.child(field), WORDS);
        }
    }
    if !tree::has(spec, "csi") {
        errors.required(&path.child("csi"), "has to be specified in the context of inline volumes");
    }
    access(errors, path, spec);
    if !matches!(tree::text(spec, POLICY), "" | "Retain") {
        errors.forbidden(&path.child(POLICY), "may only be Retain in the context of inline volumes");
    }
    if tree::has(spec, "nodeAffinity") {
        errors.forbidden(&path.child("nodeAffinity"), WORDS);
    }
    source_and_policy(errors, path, spec, "");
    if !tree::text(spec, "storageClassName").is_empty() {
        errors.forbidden(&path.child("storageClassName"), WORDS);
    }
    if spec.get("volumeMode").and_then(Value::as_str).is_some_and(|mode| mode != "Filesystem") {
        let words = "may not specify volumeMode other than Filesystem in the context of inline volumes";
        errors.forbidden(&path.child("volumeMode"), words);
    }
    attributes(errors, path, spec);
}

fn access(errors: &mut Errors, path: &Path, spec: &Value) {
    let (at, modes) = (path.child("accessModes"), tree::list(spec, "accessModes"));
    if modes.is_empty() {
        errors.required(&at, "");
    }
    check_modes(errors, &at, modes);
}

fn source_and_policy(errors: &mut Errors, path: &Path, spec: &Value, name: &str) {
    sources(errors, path, spec, name);
    if tree::text(spec, POLICY) == "Recycle" && is_root(tree::text(&spec["hostPath"], "path")) {
        errors.forbidden(&path.child(POLICY), "may not be 'recycle' for a hostPath mount of '/'");
    }
}

fn attributes(errors: &mut Errors, path: &Path, spec: &Value) {
    let Some(class) = spec.get("volumeAttributesClassName").and_then(Value::as_str) else { return };
    let at = path.child("volumeAttributesClassName");
    if errors.needs(&at, class, "an empty string is disallowed") {
        errors.invalid_for(&at, class, names::dns1123_subdomain_errors(class));
    }
    if !tree::has(spec, "csi") {
        errors.required(&path.child("csi"), "has to be specified when using volumeAttributesClassName");
    }
}

/// The old annotation is for volumes that are mounted with options.
fn mount_options(errors: &mut Errors, object: &Value) {
    const TAKE_OPTIONS: &[&str] = &[
        "gcePersistentDisk",
        "awsElasticBlockStore",
        "glusterfs",
        "nfs",
        "rbd",
        "quobyte",
        "iscsi",
        "cinder",
        "cephfs",
        "azureFile",
        "vsphereVolume",
        "azureDisk",
        "photonPersistentDisk",
    ];
    let takes = TAKE_OPTIONS.iter().any(|source| tree::has(&object["spec"], source));
    if !takes && object["metadata"]["annotations"].get(OPTIONS).is_some() {
        let at = Path::new("metadata.annotations").child(OPTIONS);
        errors.forbidden(&at, "may not specify mount options for this volume type");
    }
}

/// Whether a path leads to the root of the host.
fn is_root(path: &str) -> bool {
    path.starts_with('/') && path.split('/').all(|part| matches!(part, "" | "." | ".."))
}

fn capacity(errors: &mut Errors, at: &Path, capacity: &Value) {
    let count = capacity.as_object().map_or(0, serde_json::Map::len);
    if count == 0 {
        errors.required(at, "");
    }
    if capacity.get("storage").is_none() || count > 1 {
        errors.unsupported_shown(at, &capacity.to_string(), &["storage"]);
    }
    for (name, size) in capacity.as_object().into_iter().flatten() {
        resource::basic(errors, &at.key(name), size);
        if resource::quantity(size).is_some_and(|size| size.is_negative() || size.is_zero()) {
            errors.invalid(&at.key(name), resource::shown(size), "must be greater than zero");
        }
    }
}

/// The sources of persistent volumes in the order in which upstream looks at them.
const SOURCES: &[&str] = &[
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];

fn sources(errors: &mut Errors, path: &Path, spec: &Value, name: &str) {
    let mut found = 0;
    for source in SOURCES.iter().filter(|source| tree::has(spec, source)) {
        found += 1;
        if found > 1 {
            let at = path.child(pod::second_volume_name(source));
            errors.forbidden(&at, "may not specify more than 1 volume type");
            continue;
        }
        if *source == "local" {
            local(errors, path, spec);
            continue;
        }
        pod::validate_plugin_volume(errors, path, source, &spec[*source], pod::VolumeOwner::Cluster);
        if *source == "iscsi" {
            pod::cluster_initiator_fits(errors, &path.child("iscsi"), name, &spec["iscsi"]);
        }
    }
    if found == 0 {
        errors.required(path, "must specify a volume type");
    }
}

fn local(errors: &mut Errors, path: &Path, spec: &Value) {
    let (at, target) = (path.child("local").child("path"), tree::text(&spec["local"], "path"));
    if errors.needs(&at, target, "") {
        name::no_backsteps(errors, &at, target);
    }
    if !tree::has(spec, "nodeAffinity") {
        errors.required(&path.child("nodeAffinity"), "Local volume requires node affinity");
    }
}

fn unchanged(errors: &mut Errors, new: &Value, old: &Value) {
    const ATTRIBUTES: &str = "volumeAttributesClassName";
    const SECRET: &str = "controllerExpandSecretRef";
    let source = |spec: &Value| {
        let mut bare = spec.clone();
        NOT_SOURCES.iter().for_each(|field| {
            tree::remove(&mut bare, field);
        });
        bare
    };
    let path = Path::new("spec");
    let (mut now, before) = (source(new), source(old));
    // The secret to expand a volume with can still be added.
    if tree::has(old, "csi")
        && !tree::has(&old["csi"], SECRET)
        && let Some(csi) = tree::existing(&mut now, "csi")
    {
        tree::remove(csi, SECRET);
    }
    if now != before {
        errors.forbidden(
            &path.child("persistentvolumesource"),
            "spec.persistentvolumesource is immutable after creation",
        );
    }
    errors.immutable(&Path::new("volumeMode"), &new["volumeMode"], &old["volumeMode"]);
    if tree::has(old, "nodeAffinity") && !same_nodes(&new["nodeAffinity"], &old["nodeAffinity"]) {
        let words = "field is immutable, except for updating from beta label to GA";
        errors.invalid_shown(&Path::new("nodeAffinity"), &nodes_shown(&new["nodeAffinity"]), words);
    }
    if tree::has(old, ATTRIBUTES) && !tree::has(new, ATTRIBUTES) {
        errors.forbidden(&path.child(ATTRIBUTES), "update from non-nil value to nil is forbidden");
    }
}

/// Whether an affinity is the same but for labels that got their final name.
fn same_nodes(new: &Value, old: &Value) -> bool {
    const RENAMED: &[(&str, &str)] = &[
        ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
        ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
        ("beta.kubernetes.io/os", "kubernetes.io/os"),
        ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
        ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
    ];
    match (new, old) {
        (Value::Array(new), Value::Array(old)) => {
            new.len() == old.len() && new.iter().zip(old).all(|(new, old)| same_nodes(new, old))
        }
        (Value::Object(new), Value::Object(old)) => {
            new.len() == old.len()
                && old.iter().all(|(key, value)| new.get(key).is_some_and(|new| same_nodes(new, value)))
        }
        (Value::String(new), Value::String(old)) => new == old || RENAMED.contains(&(old.as_str(), new.as_str())),
        _ => new == old,
    }
}

/// An affinity as upstream prints its struct.
fn nodes_shown(affinity: &Value) -> String {
    if affinity["required"].is_null() {
        return if affinity.is_null() { "null".to_owned() } else { "{\"Required\":null}".to_owned() };
    }
    let terms = tree::list(&affinity["required"], "nodeSelectorTerms").iter().map(pod::node_term_shown);
    format!("{{\"Required\":{{\"NodeSelectorTerms\":[{}]}}}}", terms.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_have_one_source() {
        let volume = |more: Value| {
            let mut spec = json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}});
            for (key, value) in more.as_object().cloned().unwrap_or_default() {
                spec[key] = value;
            }
            let found = PersistentVolume.validate(&json!({"spec": spec}));
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(volume(json!({})), ["spec: Required value: must specify a volume type"]);
        assert!(volume(json!({"hostPath": {"path": "/a"}})).is_empty());
        assert_eq!(
            volume(json!({"hostPath": {"path": "/a"}, "nfs": {"server": "s", "path": "/b"}})),
            ["spec.nfs: Forbidden: may not specify more than 1 volume type"]
        );
    }
}

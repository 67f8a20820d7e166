//! Persistent volumes and the claims to them.

use super::{pod, workload};
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

const MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

pub struct PersistentVolumeClaim;

static CLAIM_COLUMNS: &[Column] = &[
    column::NAME,
    Column::new("Status", "string", "", 0, "phase represents the current phase of PersistentVolumeClaim."),
    Column::new(
        "Volume",
        "string",
        "",
        0,
        "volumeName is the binding reference to the PersistentVolume backing this claim.",
    ),
    Column::new("Capacity", "string", "", 0, "capacity represents the actual resources of the underlying volume."),
    Column::new(
        "Access Modes",
        "string",
        "",
        0,
        "accessModes contains the actual access modes the volume backing the PVC has. More info: \
         https://kubernetes.io/docs/concepts/storage/persistent-volumes#access-modes-1",
    ),
    Column::new("StorageClass", "string", "", 0, "StorageClass of the pvc"),
    Column::new("VolumeAttributesClass", "string", "", 0, "VolumeAttributesClass of the pvc"),
    column::AGE,
    Column::new(
        "VolumeMode",
        "string",
        "",
        1,
        "volumeMode defines what type of volume is required by the claim. Value of Filesystem is implied when \
         not included in claim spec.",
    ),
];

const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// What is told of the annotation that came before the field.
fn old_class_annotation(object: &Value) -> Option<String> {
    object["metadata"]["annotations"].get(OLD_CLASS)?;
    Some(format!(
        "metadata.annotations[{OLD_CLASS}]: deprecated since v1.8; use \"storageClassName\" attribute instead"
    ))
}

impl Strategy for PersistentVolumeClaim {
    fn default(&self, _api_version: &str, object: &mut Value) {
        pod::default_claim_template(object);
    }

    fn prepare_create(&self, object: &mut Value) {
        tree::set(object, "status", json!({"phase": "Pending"}));
    }

    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| validate_spec(errors, &Path::new("spec"), &object["spec"]))
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut found = self.validate(new);
        found.extend(Errors::of(|errors| claim_unchanged(errors, new, old)));
        found
    }

    fn warnings(&self, new: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut warnings: Vec<String> = old_class_annotation(new).into_iter().collect();
        warnings.extend(pod::claim_warnings(&Path::new("spec"), &new["spec"]));
        warnings
    }

    fn columns(&self) -> &[Column] {
        CLAIM_COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let volume = tree::text(spec, "volumeName");
        let phase = match tree::has(&object["metadata"], "deletionTimestamp") {
            true => "Terminating",
            false => tree::text(status, "phase"),
        };
        let bound = !volume.is_empty();
        let capacity = if bound { resource_text(&status["capacity"]["storage"]) } else { String::new() };
        let modes = if bound { modes_text(status) } else { String::new() };
        let unset = |field: &str| spec.get(field).and_then(Value::as_str).unwrap_or("<unset>");
        vec![
            workload::name(object),
            phase.into(),
            volume.into(),
            capacity.into(),
            modes.into(),
            tree::text(spec, "storageClassName").into(),
            unset("volumeAttributesClassName").into(),
            column::age(object, now),
            unset("volumeMode").into(),
        ]
    }
}

fn resource_text(value: &Value) -> String {
    if value.is_null() { "0".into() } else { resource::shown(value) }
}

/// Access modes as tables show them: `RWO,ROX`.
fn modes_text(owner: &Value) -> String {
    const SHORT: &[(&str, &str)] =
        &[("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let has = |mode: &str| tree::list(owner, "accessModes").iter().any(|one| one == mode);
    SHORT.iter().filter(|(mode, _)| has(mode)).map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

/// The spec of a claim, also inside stateful sets and ephemeral volumes.
pub(crate) fn validate_spec(errors: &mut Errors, path: &Path, spec: &Value) {
    let at = path.child("accessModes");
    let modes = tree::list(spec, "accessModes");
    if modes.is_empty() {
        errors.required(&at, "at least 1 access mode is required");
    }
    selector::labels(errors, &path.child("selector"), &spec["selector"]);
    check_modes(errors, &at, modes);
    let at = path.child("resources");
    match spec["resources"]["requests"].get("storage") {
        None => errors.required(&at.key("storage"), ""),
        Some(size) if resource::quantity(size).is_some_and(|size| size.is_negative() || size.is_zero()) => {
            errors.invalid(&at.key("storage"), resource::shown(size), "must be greater than zero");
        }
        Some(_) => {}
    }
    class_name(errors, &path.child("storageClassName"), spec, "storageClassName");
    volume_mode(errors, path, spec);
    data_sources(errors, path, spec);
    class_name(errors, &path.child("volumeAttributesClassName"), spec, "volumeAttributesClassName");
}

/// What a claim's volume is filled from, in the older and the newer field.
fn data_sources(errors: &mut Errors, path: &Path, spec: &Value) {
    let (source, reference) = (&spec["dataSource"], &spec["dataSourceRef"]);
    for (field, value) in [("dataSource", source), ("dataSourceRef", reference)] {
        if !value.is_null() {
            data_source(errors, &path.child(field), value);
        }
    }
    let namespace = tree::text(reference, "namespace");
    if !namespace.is_empty() {
        let at = path.child("dataSourceRef").child("namespace");
        errors.invalid_for(&at, namespace, names::dns1123_label_errors(namespace));
    }
    if source.is_null() || reference.is_null() {
        return;
    }
    // Upstream shows the path of the field where a value belongs.
    let shown = "{}";
    if !namespace.is_empty() {
        errors.invalid_shown(path, shown, "may not be specified when dataSourceRef.namespace is specified");
    } else if ["apiGroup", "kind", "name"].iter().any(|field| source[*field] != reference[*field]) {
        errors.invalid_shown(path, shown, "must match dataSourceRef");
    }
}

fn data_source(errors: &mut Errors, at: &Path, source: &Value) {
    let text = |key| tree::text(source, key);
    for field in ["name", "kind"] {
        errors.needs(&at.child(field), text(field), "");
    }
    let group = text("apiGroup");
    if group.is_empty() {
        if text("kind") != "PersistentVolumeClaim" {
            let words = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
            errors.invalid(at, text("kind"), words);
        }
    } else {
        errors.invalid_for(&at.child("apiGroup"), group, names::dns1123_subdomain_errors(group));
    }
}

fn check_modes(errors: &mut Errors, at: &Path, modes: &[Value]) {
    for mode in modes {
        errors.one_of(at, mode.as_str().unwrap_or(""), MODES);
    }
    let is_other = |mode: &&str| *mode != "ReadWriteOncePod" && modes.iter().any(|one| one == *mode);
    if modes.iter().any(|mode| mode == "ReadWriteOncePod") && MODES.iter().any(is_other) {
        errors.forbidden(at, "may not use ReadWriteOncePod with other access modes");
    }
}

fn class_name(errors: &mut Errors, at: &Path, spec: &Value, field: &str) {
    let class = tree::text(spec, field);
    if !class.is_empty() {
        errors.invalid_for(at, class, names::dns1123_subdomain_errors(class));
    }
}

fn volume_mode(errors: &mut Errors, path: &Path, spec: &Value) {
    if let Some(mode) = spec.get("volumeMode").and_then(Value::as_str) {
        errors.one_of(&path.child("volumeMode"), mode, &["Block", "Filesystem"]);
    }
}

fn claim_unchanged(errors: &mut Errors, new: &Value, old: &Value) {
    const ATTRIBUTES: &str = "volumeAttributesClassName";
    let bound = tree::text(&new["status"], "phase") == "Bound";
    let capacity = resource::quantity(&old["status"]["capacity"]["storage"]);
    let annotation = |object: &Value| object["metadata"]["annotations"].get(OLD_CLASS).cloned();
    let (class_now, class_before) = (annotation(new), annotation(old));
    let (new, old) = (&new["spec"], &old["spec"]);
    let (mut now, mut before) = (new.clone(), old.clone());
    if tree::text(old, "volumeName").is_empty() {
        tree::copy(&mut before, new, "volumeName");
    }
    // A class moves from the annotation to the field, or is set where there was none.
    let moved = !tree::has(old, "storageClassName")
        && class_before.is_some()
        && class_before.as_ref() == new.get("storageClassName")
        && class_now.as_ref().is_none_or(|class| Some(class) == class_before.as_ref());
    let first = !tree::has(old, "storageClassName")
        && class_before.as_ref().is_none_or(|class| Some(class) == new.get("storageClassName"));
    if moved || (first && tree::has(new, "storageClassName")) {
        tree::copy(&mut now, old, "storageClassName");
    }
    if !moved && class_now != class_before {
        let at = Path::new("metadata.annotations").child(OLD_CLASS);
        errors.invalid(&at, class_now.unwrap_or_else(|| "".into()), crate::check::IMMUTABLE);
    }
    if bound
        && let Some(resources) = tree::existing(&mut now, "resources")
        && let Some(requests) = tree::existing(resources, "requests")
    {
        tree::copy(requests, &old["resources"]["requests"], "storage");
    }
    if bound && tree::has(new, ATTRIBUTES) {
        tree::copy(&mut now, old, ATTRIBUTES);
    }
    let path = Path::new("spec");
    if now != before {
        let words =
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        errors.forbidden(&path, words);
    }
    let size = |spec: &Value| resource::quantity(&spec["resources"]["requests"]["storage"]);
    let shrinks = size(new).zip(size(old)).filter(|(new, old)| new < old);
    if shrinks.is_some_and(|(new, _)| capacity.is_some_and(|capacity| new <= capacity)) {
        let at = path.child("resources").child("requests").child("storage");
        errors.forbidden(&at, "field can not be less than status.capacity");
    }
    errors.immutable(&Path::new("volumeMode"), &new["volumeMode"], &old["volumeMode"]);
    match (old.get(ATTRIBUTES).and_then(Value::as_str), new.get(ATTRIBUTES).and_then(Value::as_str)) {
        (Some(_), None) => {
            errors.forbidden(&path.child(ATTRIBUTES), "update from non-nil value to nil is forbidden");
        }
        (Some(before), Some("")) if !before.is_empty() => {
            errors.forbidden(&path.child(ATTRIBUTES), "update from non-nil value to an empty string is forbidden");
        }
        _ => {}
    }
}

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

    fn validate(&self, object: &Value) -> ErrorList {
        let name = tree::text(&object["metadata"], "name");
        Errors::of(|errors| validate_volume(errors, &Path::new("spec"), &object["spec"], name))
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut found = self.validate(new);
        found.extend(Errors::of(|errors| volume_unchanged(errors, &new["spec"], &old["spec"])));
        found
    }

    fn warnings(&self, new: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut warnings: Vec<String> = old_class_annotation(new).into_iter().collect();
        if tree::text(&new["spec"], "persistentVolumeReclaimPolicy") == "Recycle" {
            let words = "The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic \
                         provisioning.";
            warnings.push(format!("spec.persistentVolumeReclaimPolicy: {words}"));
        }
        let path = Path::new("spec.nodeAffinity.required.nodeSelectorTerms");
        for (i, term) in tree::list(&new["spec"]["nodeAffinity"]["required"], "nodeSelectorTerms").iter().enumerate() {
            warnings.extend(pod::node_term_warnings(&path.index(i), term));
        }
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

fn validate_volume(errors: &mut Errors, path: &Path, spec: &Value, name: &str) {
    let at = path.child("accessModes");
    let modes = tree::list(spec, "accessModes");
    if modes.is_empty() {
        errors.required(&at, "");
    }
    check_modes(errors, &at, modes);
    capacity(errors, &path.child("capacity"), &spec["capacity"]);
    let policy = tree::text(spec, "persistentVolumeReclaimPolicy");
    if !policy.is_empty() {
        errors.one_of(&path.child("persistentVolumeReclaimPolicy"), policy, &["Delete", "Recycle", "Retain"]);
    }
    if tree::has(spec, "nodeAffinity") {
        let at = path.child("nodeAffinity").child("required");
        match &spec["nodeAffinity"]["required"] {
            Value::Null => errors.required(&at, "must specify required node constraints"),
            required => selector::nodes(errors, &at, required),
        }
    }
    sources(errors, path, spec, name);
    if policy == "Recycle" && is_root(tree::text(&spec["hostPath"], "path")) {
        let words = "may not be 'recycle' for a hostPath mount of '/'";
        errors.forbidden(&path.child("persistentVolumeReclaimPolicy"), words);
    }
    class_name(errors, &path.child("storageClassName"), spec, "storageClassName");
    volume_mode(errors, path, spec);
    if let Some(class) = spec.get("volumeAttributesClassName").and_then(Value::as_str) {
        let at = path.child("volumeAttributesClassName");
        if errors.needs(&at, class, "an empty string is disallowed") {
            errors.invalid_for(&at, class, names::dns1123_subdomain_errors(class));
        }
        if !tree::has(spec, "csi") {
            errors.required(&path.child("csi"), "has to be specified when using volumeAttributesClassName");
        }
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

fn volume_unchanged(errors: &mut Errors, new: &Value, old: &Value) {
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
    fn claims() {
        let good = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
        let with = |key: &str, value: Value| {
            let mut spec = good.clone();
            spec[key] = value;
            json!({"spec": spec})
        };
        let cases = [
            (json!({"spec": good}), vec![]),
            (
                with("accessModes", json!([])),
                vec!["spec.accessModes: Required value: at least 1 access mode is required"],
            ),
            (with("resources", json!({})), vec!["spec.resources[storage]: Required value"]),
            (
                with("volumeMode", json!("Tape")),
                vec!["spec.volumeMode: Unsupported value: \"Tape\": supported values: \"Block\", \"Filesystem\""],
            ),
        ];
        for (object, expected) in cases {
            let found: Vec<_> = PersistentVolumeClaim.validate(&object).iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{object}");
        }
    }

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

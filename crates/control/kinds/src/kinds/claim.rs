//! Persistent volumes and the claims to them.

use super::{pod, workload};
use crate::{
    check::{Errors, resource, selector},
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
}

fn check_modes(errors: &mut Errors, at: &Path, modes: &[Value]) {
    for mode in modes {
        errors.one_of(at, mode.as_str().unwrap_or(""), MODES);
    }
    if modes.len() > 1 && modes.iter().any(|mode| mode == "ReadWriteOncePod") {
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
    let bound = tree::text(&old["status"], "phase") == "Bound";
    let (new, old) = (&new["spec"], &old["spec"]);
    let mut kept = new.clone();
    if tree::text(old, "volumeName").is_empty() {
        tree::copy(&mut kept, old, "volumeName");
    }
    if !tree::has(old, "storageClassName") {
        tree::copy(&mut kept, old, "storageClassName");
    }
    if bound {
        tree::copy(&mut kept, old, "resources");
    }
    tree::copy(&mut kept, old, "volumeAttributesClassName");
    let path = Path::new("spec");
    if kept != *old {
        let words =
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        errors.forbidden(&path, words);
    }
    let size = |spec: &Value| resource::quantity(&spec["resources"]["requests"]["storage"]);
    if bound && size(new).zip(size(old)).is_some_and(|(new, old)| new < old) {
        let at = path.child("resources").child("requests").child("storage");
        errors.forbidden(&at, "field can not be less than status.capacity");
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
        Errors::of(|errors| validate_volume(errors, &Path::new("spec"), &object["spec"]))
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

fn validate_volume(errors: &mut Errors, path: &Path, spec: &Value) {
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
    sources(errors, path, spec);
    class_name(errors, &path.child("storageClassName"), spec, "storageClassName");
    volume_mode(errors, path, spec);
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

fn sources(errors: &mut Errors, path: &Path, spec: &Value) {
    let mut found = 0;
    for (source, value) in spec.as_object().into_iter().flatten() {
        if NOT_SOURCES.contains(&source.as_str()) || value.is_null() {
            continue;
        }
        found += 1;
        let at = path.child(source);
        match source.as_str() {
            _ if found > 1 => errors.forbidden(&at, "may not specify more than 1 volume type"),
            "hostPath" => pod::host_path(errors, &at, value),
            "local" => {
                errors.needs(&at.child("path"), tree::text(value, "path"), "");
                if !tree::has(spec, "nodeAffinity") {
                    errors.required(&path.child("nodeAffinity"), "Local volume requires node affinity");
                }
            }
            "csi" => {
                errors.needs(&at.child("driver"), tree::text(value, "driver"), "");
                errors.needs(&at.child("volumeHandle"), tree::text(value, "volumeHandle"), "");
            }
            _ => pod::plugin(errors, &at, source, value),
        }
    }
    if found == 0 {
        errors.required(path, "must specify a volume type");
    }
}

fn volume_unchanged(errors: &mut Errors, new: &Value, old: &Value) {
    let source = |spec: &Value| {
        let mut bare = spec.clone();
        NOT_SOURCES.iter().for_each(|field| {
            tree::remove(&mut bare, field);
        });
        bare
    };
    let path = Path::new("spec");
    if source(new) != source(old) {
        errors.forbidden(
            &path.child("persistentvolumesource"),
            "spec.persistentvolumesource is immutable after creation",
        );
    }
    errors.immutable(&path.child("volumeMode"), &new["volumeMode"], &old["volumeMode"]);
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

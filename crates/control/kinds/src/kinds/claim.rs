//! Claims to persistent volumes.

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
pub(super) fn old_class_annotation(object: &Value) -> Option<String> {
    object["metadata"]["annotations"].get(OLD_CLASS)?;
    Some(format!(
        "metadata.annotations[{OLD_CLASS}]: deprecated since v1.8; use \"storageClassName\" attribute instead"
    ))
}

impl Strategy for PersistentVolumeClaim {
    fn default(&self, _api_version: &str, object: &mut Value) {
        if let Some(spec) = tree::child(object, "spec") {
            tree::default_to(spec, "volumeMode", "Filesystem");
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        tree::set(object, "status", json!({"phase": "Pending"}));
        settle_source(object, &Value::Null);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        settle_source(new, old);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| validate_spec(errors, &Path::new("spec"), &object["spec"]))
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut found = self.validate(new);
        found.extend(Errors::of(|errors| claim_unchanged(errors, new, old)));
        found
    }

    fn validate_subresource_update(&self, _subresource: &str, new: &Value, _old: &Value) -> ErrorList {
        Errors::of(|errors| validate_status(errors, &Path::new("status"), &new["status"]))
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

/// The older field takes claims and snapshots only, and forgets what else it is given, unless it was there before. Then
/// both fields say the same.
fn settle_source(object: &mut Value, old: &Value) {
    const SOURCE: &str = "dataSource";
    let Some(spec) = tree::child(object, "spec") else { return };
    let source = &spec[SOURCE];
    let known = matches!(
        (tree::text(source, "kind"), tree::text(source, "apiGroup")),
        ("PersistentVolumeClaim", "") | ("VolumeSnapshot", "snapshot.storage.k8s.io")
    );
    if !known && !tree::has(&old["spec"], SOURCE) {
        tree::remove(spec, SOURCE);
    }
    pod::sync_data_source(spec);
}

pub(super) fn resource_text(value: &Value) -> String {
    if value.is_null() { "0".into() } else { resource::shown(value) }
}

/// Access modes as tables show them: `RWO,ROX`.
pub(super) fn modes_text(owner: &Value) -> String {
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

pub(super) fn check_modes(errors: &mut Errors, at: &Path, modes: &[Value]) {
    for mode in modes {
        errors.one_of(at, mode.as_str().unwrap_or(""), MODES);
    }
    let is_other = |mode: &&str| *mode != "ReadWriteOncePod" && modes.iter().any(|one| one == *mode);
    if modes.iter().any(|mode| mode == "ReadWriteOncePod") && MODES.iter().any(is_other) {
        errors.forbidden(at, "may not use ReadWriteOncePod with other access modes");
    }
}

pub(super) fn class_name(errors: &mut Errors, at: &Path, spec: &Value, field: &str) {
    let class = tree::text(spec, field);
    if !class.is_empty() {
        errors.invalid_for(at, class, names::dns1123_subdomain_errors(class));
    }
}

pub(super) fn volume_mode(errors: &mut Errors, path: &Path, spec: &Value) {
    if let Some(mode) = spec.get("volumeMode").and_then(Value::as_str) {
        errors.one_of(&path.child("volumeMode"), mode, &["Block", "Filesystem"]);
    }
}

fn claim_unchanged(errors: &mut Errors, new: &Value, old: &Value) {
    const ATTRIBUTES: &str = "volumeAttributesClassName";
    let bound = tree::text(&new["status"], "phase") == "Bound";
    let capacity = resource::quantity(&old["status"]["capacity"]["storage"]);
    let applied = tree::has(&old["status"], "currentVolumeAttributesClassName");
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
    if bound {
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
    if applied && new[ATTRIBUTES] != old[ATTRIBUTES] {
        let told = "is forbidden when status.currentVolumeAttributesClassName is not nil";
        let at = path.child(ATTRIBUTES);
        match new.get(ATTRIBUTES).and_then(Value::as_str) {
            None => errors.forbidden(&at, &format!("update to nil {told}")),
            Some("") => errors.forbidden(&at, &format!("update to empty string {told}")),
            Some(_) => {}
        }
    }
}

/// What controllers and drivers say of a claim's sizes.
fn validate_status(errors: &mut Errors, path: &Path, status: &Value) {
    const STATES: &[&str] = &[
        "ControllerResizeInProgress",
        "ControllerResizeInfeasible",
        "NodeResizePending",
        "NodeResizeInProgress",
        "NodeResizeInfeasible",
    ];
    for (name, amount) in tree::entries(status, "capacity") {
        resource::basic(errors, &path.child("capacity").key(name), amount);
    }
    let at = path.child("allocatedResourceStatuses");
    for (name, state) in tree::entries(status, "allocatedResourceStatuses") {
        resource_key(errors, &at, name);
        if !STATES.contains(&state.as_str().unwrap_or("")) {
            let mut known = STATES.to_vec();
            known.sort_unstable();
            // Upstream shows the name rather than the state.
            errors.unsupported(&at, name.as_str(), &known);
        }
    }
    let at = path.child("allocatedResources");
    for (name, amount) in tree::entries(status, "allocatedResources") {
        if resource_key(errors, &at, name) {
            resource::basic(errors, &at.key(name), amount);
        }
    }
}

/// Storage, or a qualified name; answers whether it is one of these.
fn resource_key(errors: &mut Errors, at: &Path, name: &str) -> bool {
    let wrong = name::qualified(name);
    let known = name.contains('/') || name == "storage";
    if wrong.is_empty() && !known {
        errors.unsupported(at, name, &["storage"]);
    }
    let fine = wrong.is_empty() && known;
    errors.invalid_for(at, name, wrong);
    fine
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
}

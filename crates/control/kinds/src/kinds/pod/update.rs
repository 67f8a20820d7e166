//! What an update may change in a pod's spec, and which message says that it may not.

use super::gated;
use crate::{check::Errors, tree};
use pintle_types::field::Path;
use serde_json::Value;

const ONLY: &str = "pod updates may not change fields other than \
                    `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
                    `spec.tolerations` (only additions to existing \
                    tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously \
                    negative)";

/// An update of the main resource.
pub(super) fn validate(errors: &mut Errors, new: &Value, old: &Value) {
    let path = Path::new("spec");
    for field in ["containers", "initContainers"] {
        if !same_containers(errors, &path.child(field), tree::list(new, field), tree::list(old, field)) {
            return;
        }
    }
    if !deadline(errors, &path.child("activeDeadlineSeconds"), new, old) {
        return;
    }
    added_tolerations(errors, &path.child("tolerations"), new, old);
    added_gates(errors, &path.child("schedulingGates"), new, old);
    let mut allowed = new.clone();
    undo_allowed(&mut allowed, new, old);
    // Where a gated pod may run can still be narrowed.
    if !tree::list(old, "schedulingGates").is_empty() {
        gated::narrowed(errors, &path, new, old);
        gated::undo(&mut allowed, old);
    }
    if allowed != *old {
        errors.forbidden(&path, ONLY);
    }
}

/// Answers whether there are as many as before.
fn same_containers(errors: &mut Errors, path: &Path, new: &[Value], old: &[Value]) -> bool {
    if new.len() != old.len() {
        errors.forbidden(path, "pod updates may not add or remove containers");
        return false;
    }
    for (i, container) in new.iter().enumerate() {
        errors.needs(&path.index(i).child("image"), tree::text(container, "image"), "");
        super::container::image_is_trimmed(errors, &path.index(i), container);
    }
    true
}

/// Puts back the old values of all fields that may change.
fn undo_allowed(spec: &mut Value, new: &Value, old: &Value) {
    for field in ["containers", "initContainers"] {
        for (container, before) in tree::items_mut(spec, field).zip(tree::list(old, field)) {
            tree::copy(container, before, "image");
        }
    }
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        tree::copy(spec, old, field);
    }
    let before = tree::int(old, "terminationGracePeriodSeconds");
    if before < 0 && tree::int(new, "terminationGracePeriodSeconds") == 1 {
        tree::set(spec, "terminationGracePeriodSeconds", before);
    }
}

fn added_gates(errors: &mut Errors, path: &Path, new: &Value, old: &Value) {
    let before = tree::list(old, "schedulingGates");
    for (i, gate) in tree::list(new, "schedulingGates").iter().enumerate() {
        if !before.contains(gate) {
            let words =
                format!("only deletion is allowed, but found new scheduling gate '{}'", tree::text(gate, "name"));
            errors.forbidden(&path.index(i).child("name"), &words);
        }
    }
}

/// Answers whether the rest is looked at, too.
fn deadline(errors: &mut Errors, path: &Path, new: &Value, old: &Value) -> bool {
    let seconds = |spec: &Value| spec.get("activeDeadlineSeconds").and_then(Value::as_i64);
    match (seconds(new), seconds(old)) {
        (None, Some(_)) => {
            errors.invalid(path, Value::Null, "must not update from a positive integer to nil value");
            true
        }
        (Some(new), _) if !(0..=i64::from(i32::MAX)).contains(&new) => {
            errors.invalid(path, new, "must be between 0 and 2147483647, inclusive");
            false
        }
        (Some(new), Some(old)) if new > old => {
            errors.invalid(path, new, "must be less than or equal to previous value");
            false
        }
        _ => true,
    }
}

fn added_tolerations(errors: &mut Errors, path: &Path, new: &Value, old: &Value) {
    let without_seconds = |toleration: &Value| {
        let mut bare = toleration.clone();
        tree::remove(&mut bare, "tolerationSeconds");
        bare
    };
    let now: Vec<Value> = tree::list(new, "tolerations").iter().map(without_seconds).collect();
    if tree::list(old, "tolerations").iter().any(|before| !now.contains(&without_seconds(before))) {
        return errors.forbidden(path, "existing toleration can not be modified except its tolerationSeconds");
    }
    // Upstream tells twice what is wrong with tolerations.
    crate::check::schedule::tolerations(errors, path, tree::list(new, "tolerations"));
}

/// Ephemeral containers can be added, nothing else.
pub(super) fn validate_ephemeral(errors: &mut Errors, new: &Value, old: &Value) {
    let path = Path::new("spec.ephemeralContainers");
    let now = tree::list(new, "ephemeralContainers");
    for before in tree::list(old, "ephemeralContainers") {
        let name = tree::text(before, "name");
        match now.iter().find(|container| tree::text(container, "name") == name) {
            None => errors.forbidden(&path, &format!("existing ephemeral containers {name:?} may not be removed\n")),
            Some(container) if container != before => {
                errors.forbidden(&path, &format!("existing ephemeral containers {name:?} may not be changed\n"));
            }
            Some(_) => {}
        }
    }
}

/// The new object of an update through `ephemeralcontainers`: the old one with the new list.
pub(super) fn keep_all_but_ephemeral(new: &mut Value, old: &Value) {
    let list = new["spec"].get("ephemeralContainers").cloned();
    let mut kept = old.clone();
    tree::copy_metadata_bookkeeping(&mut kept, new);
    if let (Some(spec), Some(list)) = (tree::child(&mut kept, "spec"), list) {
        tree::set(spec, "ephemeralContainers", list);
    }
    *new = kept;
}

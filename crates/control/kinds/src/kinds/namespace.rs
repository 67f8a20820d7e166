//! Namespaces: born active, labelled with their name, and guarded by a finalizer.

use super::workload;
use crate::{
    check::Errors,
    column::{self, Column},
    metadata,
    strategy::{NameRule, Strategy},
    tree,
};
use jiff::Timestamp;
use pintle_types::field::{ErrorList, Path};
use serde_json::{Value, json};

pub struct Namespace;

static COLUMNS: &[Column] =
    &[column::NAME, Column::new("Status", "string", "", 0, "The status of the namespace"), column::AGE];

const NAME_LABEL: &str = "kubernetes.io/metadata.name";

impl Strategy for Namespace {
    fn name_rule(&self) -> NameRule {
        NameRule::Label
    }

    fn default(&self, _api_version: &str, object: &mut Value) {
        let name = tree::text(&object["metadata"], "name").to_owned();
        if let Some(status) = tree::child(object, "status") {
            tree::default_empty(status, "phase", "Active");
        }
        if !name.is_empty()
            && let Some(metadata) = tree::child(object, "metadata")
            && let Some(labels) = tree::child(metadata, "labels")
        {
            tree::set(labels, NAME_LABEL, name);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        tree::set(object, "status", json!({"phase": "Active"}));
        let Some(spec) = tree::child(object, "spec") else { return };
        if let Some(finalizers) = spec.get_mut("finalizers").and_then(Value::as_array_mut) {
            if !finalizers.iter().any(|one| one == "kubernetes") {
                finalizers.push("kubernetes".into());
            }
        } else {
            tree::set(spec, "finalizers", json!(["kubernetes"]));
        }
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        // The `finalize` subresource alone removes finalizers.
        tree::copy(new, old, "spec");
    }

    fn prepare_subresource_update(&self, subresource: &str, new: &mut Value, old: &Value) {
        if subresource == "finalize" {
            tree::copy(new, old, "status");
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| finalizers(errors, &object["spec"]))
    }

    fn validate_update(&self, _new: &Value, _old: &Value) -> ErrorList {
        ErrorList::new()
    }

    fn validate_subresource_update(&self, subresource: &str, new: &Value, _old: &Value) -> ErrorList {
        Errors::of(|errors| match subresource {
            "finalize" => finalizers(errors, &new["spec"]),
            _ => phase(errors, new),
        })
    }

    fn reset_fields(&self, subresource: &str) -> &'static [&'static str] {
        if subresource.is_empty() { &["status"] } else { &["spec"] }
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![workload::name(object), tree::text(&object["status"], "phase").into(), column::age(object, now)]
    }
}

fn finalizers(errors: &mut Errors, spec: &Value) {
    let path = Path::new("spec.finalizers");
    for (i, finalizer) in tree::list(spec, "finalizers").iter().enumerate() {
        metadata::check_finalizer(errors, &path.index(i), finalizer.as_str().unwrap_or(""), true);
    }
}

/// Whether a namespace ends is told by its deletion alone.
fn phase(errors: &mut Errors, object: &Value) {
    let (phase, path) = (tree::text(&object["status"], "phase"), Path::new("status.Phase"));
    match tree::has(&object["metadata"], "deletionTimestamp") {
        false if phase != "Active" => {
            errors.invalid(&path, phase, "may only be 'Active' if `deletionTimestamp` is empty");
        }
        true if phase != "Terminating" => {
            errors.invalid(&path, phase, "may only be 'Terminating' if `deletionTimestamp` is not empty");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_namespace_is_active_labelled_and_guarded() {
        let mut object = json!({"metadata": {"name": "n"}});
        Namespace.default("v1", &mut object);
        Namespace.prepare_create(&mut object);
        assert_eq!(
            object,
            json!({
                "metadata": {"name": "n", "labels": {NAME_LABEL: "n"}}, "spec": {"finalizers": ["kubernetes"]},
                "status": {"phase": "Active"},
            })
        );
    }
}

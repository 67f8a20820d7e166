//! Validation of object metadata, the same for all kinds.

use crate::{
    check::{Errors, name},
    strategy::NameRule,
    tree,
};
use pintle_types::{
    field::{ErrorList, FieldError, Path},
    names,
};
use serde_json::Value;

/// What is wrong with a new object's metadata.
pub(crate) fn validate_new(rule: NameRule, namespaced: bool, object: &Value) -> ErrorList {
    Errors::of(|errors| {
        let path = Path::new("metadata");
        let metadata = &object["metadata"];
        check_names(errors, &path, metadata, rule);
        check_namespace(errors, &path.child("namespace"), tree::text(metadata, "namespace"), namespaced);
        check_common(errors, &path, object);
    })
}

fn check_names(errors: &mut Errors, path: &Path, metadata: &Value, rule: NameRule) {
    let generate = tree::text(metadata, "generateName");
    if !generate.is_empty() {
        errors.invalid_for(&path.child("generateName"), generate, rule.check(generate, true));
    }
    let name = tree::text(metadata, "name");
    if errors.needs(&path.child("name"), name, "name or generateName is required") {
        errors.invalid_for(&path.child("name"), name, rule.check(name, false));
    }
}

fn check_namespace(errors: &mut Errors, path: &Path, namespace: &str, namespaced: bool) {
    match (namespaced, namespace.is_empty()) {
        (true, true) => errors.required(path, ""),
        (true, false) => errors.invalid_for(path, namespace, names::dns1123_label_errors(namespace)),
        (false, false) => errors.forbidden(path, "not allowed on this type"),
        (false, true) => {}
    }
}

fn check_common(errors: &mut Errors, path: &Path, object: &Value) {
    let metadata = &object["metadata"];
    crate::check::number::fields_not_negative(errors, path, metadata, &["generation"]);
    name::labels(errors, &path.child("labels"), metadata, "labels");
    name::annotations(errors, &path.child("annotations"), metadata);
    check_owners(errors, &path.child("ownerReferences"), tree::list(metadata, "ownerReferences"));
    let known_only = is_of_kubernetes(tree::text(object, "apiVersion"));
    check_finalizers(errors, &path.child("finalizers"), tree::list(metadata, "finalizers"), known_only);
}

fn check_owners(errors: &mut Errors, path: &Path, owners: &[Value]) {
    let mut controller: Option<&str> = None;
    for owner in owners {
        check_owner(errors, path, owner);
        if !tree::flag(owner, "controller") {
            continue;
        }
        let name = tree::text(owner, "name");
        match controller {
            Some(other) => errors.invalid_shown(
                path,
                &Value::from(owners.to_vec()).to_string(),
                &format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {other} and {name}"
                ),
            ),
            None => controller = Some(name),
        }
    }
}

fn check_owner(errors: &mut Errors, path: &Path, owner: &Value) {
    let text = |key| tree::text(owner, key);
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    if api_version.rsplit('/').next().is_none_or(str::is_empty) {
        errors.invalid(&path.child("apiVersion"), api_version, "version must not be empty");
    }
    for key in ["kind", "name", "uid"] {
        if text(key).is_empty() {
            errors.invalid(&path.child(key), "", "must not be empty");
        }
    }
    if api_version == "v1" && kind == "Event" {
        errors.invalid_shown(path, &owner.to_string(), "/v1, Kind=Event is disallowed from being an owner");
    }
}

/// Whether the objects of this version are validated with Kubernetes' own rules, which are narrower than those of the
/// libraries that extension servers, custom resources and their definitions are built on.
fn is_of_kubernetes(api_version: &str) -> bool {
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    let built_in = !group.contains('.') || group.ends_with(".k8s.io");
    built_in && !matches!(group, "apiextensions.k8s.io" | "apiregistration.k8s.io")
}

/// One finalizer: a qualified name.
pub(crate) fn check_finalizer(errors: &mut Errors, path: &Path, finalizer: &str, known_only: bool) {
    const STANDARD: &[&str] = &["kubernetes", "orphan", "foregroundDeletion"];
    const NEITHER: &str = "name is neither a standard finalizer name nor is it fully qualified";
    errors.invalid_for(path, finalizer, name::qualified(finalizer));
    if known_only && !finalizer.contains('/') && !STANDARD.contains(&finalizer) {
        errors.invalid(path, finalizer, NEITHER);
    }
}

/// `known_only`: names without a slash must be those that Kubernetes itself uses.
fn check_finalizers(errors: &mut Errors, path: &Path, finalizers: &[Value], known_only: bool) {
    let is = |name: &str| finalizers.iter().any(|finalizer| finalizer == name);
    for (i, finalizer) in finalizers.iter().enumerate() {
        check_finalizer(errors, &path.index(i), finalizer.as_str().unwrap_or(""), known_only);
    }
    if is("orphan") && is("foregroundDeletion") {
        let words = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.invalid(path, finalizers.to_vec(), words);
    }
}

/// What is wrong with an update of an object's metadata.
pub fn validate_metadata_update(new: &Value, old: &Value) -> ErrorList {
    let path = Path::new("metadata");
    let object = new;
    let (new, old) = (&new["metadata"], &old["metadata"]);
    Errors::of(|errors| {
        if tree::has(old, "deletionTimestamp") {
            check_added_finalizers(errors, &path.child("finalizers"), new, old);
        }
        for key in ["name", "namespace", "uid", "creationTimestamp"] {
            if tree::at(new, key) != tree::at(old, key) {
                errors.invalid(&path.child(key), tree::at(new, key).clone(), crate::check::IMMUTABLE);
            }
        }
        for key in ["deletionTimestamp", "deletionGracePeriodSeconds"] {
            if tree::at(new, key) != tree::at(old, key) {
                let words = "field is immutable; may only be changed via deletion";
                errors.invalid(&path.child(key), tree::at(new, key).clone(), words);
            }
        }
        if tree::int(new, "generation") < tree::int(old, "generation") {
            errors.invalid(&path.child("generation"), tree::int(new, "generation"), "must not be decremented");
        }
        check_common(errors, &path, object);
    })
}

fn check_added_finalizers(errors: &mut Errors, path: &Path, new: &Value, old: &Value) {
    let before = tree::list(old, "finalizers");
    let added: Vec<String> = tree::list(new, "finalizers")
        .iter()
        .filter(|finalizer| !before.contains(finalizer))
        .map(Value::to_string)
        .collect();
    if !added.is_empty() {
        let words = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
            added.join(", ")
        );
        errors.0.push(FieldError::forbidden(path, &words));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn messages(object: Value) -> Vec<String> {
        validate_new(NameRule::Subdomain, true, &object).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn names_and_namespaces() {
        assert_eq!(
            messages(json!({"metadata": {"namespace": "n"}})),
            ["metadata.name: Required value: name or generateName is required"]
        );
        assert_eq!(messages(json!({"metadata": {"name": "a"}})), ["metadata.namespace: Required value"]);
        assert!(messages(json!({"metadata": {"name": "a", "namespace": "n", "generateName": "a-"}})).is_empty());
    }

    #[test]
    fn finalizers_and_owners() {
        let found = messages(json!({"metadata": {
            "name": "a", "namespace": "n", "finalizers": ["nope", "example.com/ok"],
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p"}],
        }}));
        assert_eq!(
            found,
            [
                "metadata.ownerReferences.uid: Invalid value: \"\": must not be empty",
                "metadata.finalizers[0]: Invalid value: \"nope\": name is neither a standard finalizer name nor is it \
                 fully qualified",
            ]
        );
    }

    #[test]
    fn identity_is_immutable() {
        let old = json!({"metadata": {"name": "a", "uid": "1", "deletionTimestamp": "t"}});
        let new = json!({"metadata": {"name": "b", "uid": "1", "deletionTimestamp": "t", "finalizers": ["x/y"]}});
        let found: Vec<_> = validate_metadata_update(&new, &old).iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new \
                 finalizers []string{\"x/y\"}",
                "metadata.name: Invalid value: \"b\": field is immutable",
            ]
        );
    }
}

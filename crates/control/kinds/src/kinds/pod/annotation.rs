//! Annotations that mean something to pods: mirrors, costs, and the old ways to choose seccomp and AppArmor profiles.

use super::windows::containers;
use crate::{
    check::{Errors, name},
    tree,
};
use pintle_types::field::Path;
use serde_json::Value;

pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// The annotations of a pod or a template, by themselves; `at` is where they stand.
pub(super) fn validate(errors: &mut Errors, at: &Path, metadata: &Value, spec: &Value) {
    let annotations = tree::entries(metadata, "annotations");
    let find = |key: &str| metadata["annotations"].get(key).and_then(Value::as_str);
    if let Some(value) = find(MIRROR)
        && tree::text(spec, "nodeName").is_empty()
    {
        errors.invalid(&at.key(MIRROR), value, "must set spec.nodeName if mirror pod annotation is set");
    }
    if let Some(value) = find(DELETION_COST)
        && !is_cost(value)
    {
        errors.invalid(&at.key(DELETION_COST), value, "must be a 32bit integer");
    }
    for (key, value) in &annotations {
        let value = value.as_str().unwrap_or("");
        if *key == SECCOMP_POD || key.starts_with(SECCOMP_CONTAINER) {
            seccomp(errors, &at.child(key), value);
        }
    }
    for (key, value) in &annotations {
        let Some(container) = key.strip_prefix(APP_ARMOR) else { continue };
        let value = value.as_str().unwrap_or("");
        let known = containers(&Path::default(), spec).iter().any(|(_, one)| tree::text(one, "name") == container);
        if !known {
            errors.invalid(&at.key(key), container, "container not found");
        }
        if !matches!(value, "" | "runtime/default" | "unconfined") && !value.starts_with("localhost/") {
            errors.invalid(&at.key(key), value, &format!("invalid AppArmor profile name: {value:?}"));
        }
    }
}

/// A whole number of 32 bits without a plus or needless zeros.
fn is_cost(text: &str) -> bool {
    let first = text.starts_with('-') || text == "0" || text.starts_with(|c: char| ('1'..='9').contains(&c));
    first && text.parse::<i32>().is_ok()
}

fn seccomp(errors: &mut Errors, at: &Path, profile: &str) {
    match profile {
        "runtime/default" | "docker/default" | "unconfined" => {}
        _ => match profile.strip_prefix("localhost/") {
            Some(file) => name::local_path(errors, at, file),
            None => errors.invalid(at, profile, "must be a valid seccomp profile"),
        },
    }
}

/// New pods and templates that say both the annotation and the field say the same.
pub(super) fn match_fields(errors: &mut Errors, path: &Path, metadata: &Value, spec: &Value) {
    let find = |key: &str| metadata["annotations"].get(key).and_then(Value::as_str);
    let field = |owner: &'_ Value, name: &str| owner["securityContext"][name].clone();
    if let Some(text) = find(SECCOMP_POD) {
        same(errors, path, "seccomp", text, &field(spec, "seccompProfile"));
    }
    let all = containers(path, spec);
    for (at, container) in &all {
        if let Some(text) = find(&format!("{SECCOMP_CONTAINER}{}", tree::text(container, "name"))) {
            same(errors, at, "seccomp", text, &field(container, "seccompProfile"));
        }
    }
    if tree::text(&spec["os"], "name") == "windows" {
        return;
    }
    for (at, container) in &all {
        let own = field(container, "appArmorProfile");
        let meant = if own.is_null() { field(spec, "appArmorProfile") } else { own };
        if let Some(text) = find(&format!("{APP_ARMOR}{}", tree::text(container, "name"))) {
            same(errors, at, "apparmor", text, &meant);
        }
    }
}

fn same(errors: &mut Errors, owner: &Path, what: &str, text: &str, profile: &Value) {
    let field = if what == "seccomp" { "seccompProfile" } else { "appArmorProfile" };
    let at = owner.child("securityContext").child(field);
    let fits = match tree::text(profile, "type") {
        "Unconfined" => text == "unconfined",
        "RuntimeDefault" => text == "runtime/default" || (what == "seccomp" && text == "docker/default"),
        "Localhost" => text.starts_with("localhost/"),
        _ => true,
    };
    if !fits {
        errors.forbidden(&at.child("type"), &format!("{what} type in annotation and field must match"));
    } else if tree::text(profile, "type") == "Localhost"
        && text.strip_prefix("localhost/") != profile["localhostProfile"].as_str()
    {
        let words = format!("{what} profile in annotation and field must match");
        errors.forbidden(&at.child("localhostProfile"), &words);
    }
}

/// An update may not make a pod a mirror, nor change the profiles that its containers began with.
pub(super) fn unchanged(errors: &mut Errors, new: &Value, old: &Value) {
    let at = Path::new("metadata.annotations");
    let (now, before) = (&new["metadata"]["annotations"], &old["metadata"]["annotations"]);
    for (key, value) in tree::entries(&old["metadata"], "annotations") {
        if now.get(key) == Some(value) {
            continue;
        }
        if key.starts_with(APP_ARMOR) {
            errors.forbidden(&at.key(key), "may not remove or update AppArmor annotations");
        }
        if key == MIRROR {
            errors.forbidden(&at.key(key), "may not remove or update mirror pod annotation");
        }
    }
    for (key, _) in tree::entries(&new["metadata"], "annotations") {
        if before.get(key).is_some() {
            continue;
        }
        if key.starts_with(APP_ARMOR) {
            errors.forbidden(&at.key(key), "may not add AppArmor annotations");
        }
        if key == MIRROR {
            errors.forbidden(&at.key(key), "may not add mirror pod annotation");
        }
    }
}

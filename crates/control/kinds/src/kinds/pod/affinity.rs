//! Validation of affinity and topology spreading.

use crate::{
    check::{Errors, name, selector},
    tree,
};
use pintle_types::{field::Path, names};
use serde_json::Value;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// All sorts of affinity.
pub(super) fn validate(errors: &mut Errors, path: &Path, affinity: &Value) {
    let nodes = &affinity["nodeAffinity"];
    let at = path.child("nodeAffinity");
    if tree::has(nodes, REQUIRED) {
        selector::nodes(errors, &at.child(REQUIRED), &nodes[REQUIRED]);
    }
    for (i, preference) in tree::list(nodes, PREFERRED).iter().enumerate() {
        let at = at.child(PREFERRED).index(i);
        weight(errors, &at, preference);
        selector::node_preference(errors, &at.child("preference"), &preference["preference"]);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        pods(errors, &path.child(kind), &affinity[kind]);
    }
}

fn pods(errors: &mut Errors, path: &Path, affinity: &Value) {
    for (i, one) in tree::list(affinity, REQUIRED).iter().enumerate() {
        term(errors, &path.child(REQUIRED).index(i), one);
    }
    for (i, one) in tree::list(affinity, PREFERRED).iter().enumerate() {
        let at = path.child(PREFERRED).index(i);
        weight(errors, &at, one);
        term(errors, &at.child("podAffinityTerm"), &one["podAffinityTerm"]);
    }
}

fn weight(errors: &mut Errors, path: &Path, preference: &Value) {
    let weight = tree::int(preference, "weight");
    if !(1..=100).contains(&weight) {
        errors.invalid(&path.child("weight"), weight, "must be in the range 1-100");
    }
}

fn term(errors: &mut Errors, path: &Path, term: &Value) {
    selector::labels(errors, &path.child("labelSelector"), &term["labelSelector"]);
    selector::labels(errors, &path.child("namespaceSelector"), &term["namespaceSelector"]);
    for namespace in tree::list(term, "namespaces") {
        let namespace = namespace.as_str().unwrap_or("");
        errors.invalid_for(&path.child("namespace"), namespace, names::dns1123_label_errors(namespace));
    }
    let key = tree::text(term, "topologyKey");
    errors.needs(&path.child("topologyKey"), key, "can not be empty");
    errors.invalid_for(&path.child("topologyKey"), key, name::qualified(key));
}

/// How pods spread.
pub(super) fn spreading(errors: &mut Errors, path: &Path, constraints: &[Value]) {
    const ACTIONS: &[&str] = &["DoNotSchedule", "ScheduleAnyway"];
    for (i, constraint) in constraints.iter().enumerate() {
        let at = path.index(i);
        let text = |key| tree::text(constraint, key);
        let skew = tree::int(constraint, "maxSkew");
        if skew <= 0 {
            errors.invalid(&at.child("maxSkew"), skew, "must be greater than zero");
        }
        errors.needs(&at.child("topologyKey"), text("topologyKey"), "can not be empty");
        errors.one_of(&at.child("whenUnsatisfiable"), text("whenUnsatisfiable"), ACTIONS);
        let pair =
            |it: &Value| format!("{{{}, {}}}", tree::text(it, "topologyKey"), tree::text(it, "whenUnsatisfiable"));
        // Upstream names the first of two that are the same.
        if constraints[i + 1..].iter().any(|other| pair(other) == pair(constraint)) {
            errors.duplicate(&at.child("{topologyKey, whenUnsatisfiable}"), pair(constraint));
        }
        min_domains(errors, &at.child("minDomains"), constraint);
        for field in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            if let Some(policy) = constraint.get(field).and_then(Value::as_str) {
                errors.one_of(&at.child(field), policy, &["Honor", "Ignore"]);
            }
        }
        selector::labels(errors, &at.child("labelSelector"), &constraint["labelSelector"]);
    }
}

fn min_domains(errors: &mut Errors, at: &Path, constraint: &Value) {
    let Some(domains) = constraint.get("minDomains").and_then(Value::as_i64) else { return };
    if domains <= 0 {
        errors.invalid(at, domains, "must be greater than zero");
    }
    if tree::text(constraint, "whenUnsatisfiable") != "DoNotSchedule" {
        errors.invalid(at, domains, "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway");
    }
}

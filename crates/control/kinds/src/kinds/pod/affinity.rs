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
    label_keys(errors, path, term);
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
        spread_keys(errors, &at.child("matchLabelKeys"), constraint);
        selector::labels(errors, &at.child("labelSelector"), &constraint["labelSelector"]);
    }
}

/// Keys of labels whose values are taken from the pod itself.
fn keys<'a>(owner: &'a Value, field: &str) -> Vec<&'a str> {
    tree::list(owner, field).iter().filter_map(Value::as_str).collect()
}

/// Whether there are keys that can be checked further: without a selector they mean nothing.
fn names_of_labels(errors: &mut Errors, at: &Path, keys: &[&str], owner: &Value) {
    if !keys.is_empty() && !tree::has(owner, "labelSelector") {
        return errors.forbidden(at, "must not be specified when labelSelector is not set");
    }
    for (i, key) in keys.iter().enumerate() {
        errors.invalid_for(&at.index(i), key, name::qualified(key));
    }
}

/// Keys that the selector names more than once: by itself, and because they are to match.
fn repeated(keys: &[&str], selector: &Value) -> Vec<(usize, String)> {
    let mut seen: Vec<&str> = tree::entries(selector, "matchLabels").into_iter().map(|(key, _)| key.as_str()).collect();
    let mut found = Vec::new();
    for requirement in tree::list(selector, "matchExpressions") {
        let key = tree::text(requirement, "key");
        if let Some(index) = keys.iter().rposition(|one| *one == key)
            && seen.contains(&key)
        {
            found.push((index, key.to_owned()));
        }
        seen.push(key);
    }
    found
}

fn label_keys(errors: &mut Errors, path: &Path, term: &Value) {
    let (same, other) = (keys(term, "matchLabelKeys"), keys(term, "mismatchLabelKeys"));
    names_of_labels(errors, &path.child("matchLabelKeys"), &same, term);
    names_of_labels(errors, &path.child("mismatchLabelKeys"), &other, term);
    for (index, key) in repeated(&same, &term["labelSelector"]) {
        errors.invalid(&path.index(index), key, "exists in both matchLabelKeys and labelSelector");
    }
    for (i, key) in same.iter().enumerate().filter(|(_, key)| other.contains(key)) {
        let at = path.child("matchLabelKeys").index(i);
        errors.invalid(&at, *key, "exists in both matchLabelKeys and mismatchLabelKeys");
    }
}

fn spread_keys(errors: &mut Errors, at: &Path, constraint: &Value) {
    let keys = keys(constraint, "matchLabelKeys");
    names_of_labels(errors, at, &keys, constraint);
    for (index, key) in repeated(&keys, &constraint["labelSelector"]) {
        errors.invalid(&at.index(index), key, "exists in both matchLabelKeys and labelSelector");
    }
}

/// Writes the values that the labels of a new pod have for such keys into the selectors beside them.
pub(super) fn fill_label_keys(spec: &mut Value, labels: &Value) {
    let Some(all) = spec.as_object_mut() else { return };
    if let Some(affinity) = all.get_mut("affinity") {
        for side in ["podAffinity", "podAntiAffinity"] {
            let Some(side) = tree::existing(affinity, side) else { continue };
            tree::items_mut(side, REQUIRED).for_each(|term| fill_term(term, labels));
            for preferred in tree::items_mut(side, PREFERRED) {
                if let Some(term) = tree::existing(preferred, "podAffinityTerm") {
                    fill_term(term, labels);
                }
            }
        }
    }
    tree::items_mut(spec, "topologySpreadConstraints").for_each(|constraint| fill_term(constraint, labels));
}

fn fill_term(term: &mut Value, labels: &Value) {
    for (field, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        let wanted: Vec<Value> = tree::list(term, field)
            .iter()
            .filter_map(|key| Some((key, labels.get(key.as_str()?)?)))
            .map(|(key, value)| serde_json::json!({"key": key, "operator": operator, "values": [value]}))
            .collect();
        let Some(selector) = tree::existing(term, "labelSelector").filter(|_| !wanted.is_empty()) else { continue };
        let mut requirements = tree::list(selector, "matchExpressions").to_vec();
        requirements.extend(wanted);
        tree::set(selector, "matchExpressions", requirements);
    }
}

fn min_domains(errors: &mut Errors, at: &Path, constraint: &Value) {
    let Some(domains) = constraint.get("minDomains").and_then(Value::as_i64) else { return };
    if domains <= 0 {
        errors.invalid(at, domains, "must be greater than zero");
    }
    let action = tree::text(constraint, "whenUnsatisfiable");
    if action != "DoNotSchedule" {
        let words = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
        errors.invalid(at, domains, &words);
    }
}

//! Names, taints, tolerations and lists, which claims, slices and rules of taints check alike.

use crate::{
    check::{Errors, Seen, name},
    tree,
};
use pintle_types::{field::Path, names};
use serde_json::Value;

const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "None"];

/// The items of a list that is no longer than `most`; `key` finds those that are there twice.
pub(super) fn items(
    errors: &mut Errors,
    path: &Path,
    items: &[Value],
    most: usize,
    key: Option<fn(&Value) -> Value>,
    mut check: impl FnMut(&mut Errors, &Path, &Value),
) {
    if items.len() > most {
        return errors.too_many(path, items.len(), most);
    }
    for (i, item) in items.iter().enumerate() {
        check(errors, &path.index(i), item);
    }
    let (Some(key), mut seen) = (key, Seen::default()) else { return };
    for (i, item) in items.iter().enumerate() {
        let own = key(item);
        if !seen.first(own.to_string()) {
            errors.duplicate(&path.index(i), own);
        }
    }
}

/// The name of an item, for [`items`].
pub(super) fn by_name(item: &Value) -> Value {
    tree::text(item, "name").into()
}

/// The item itself, for [`items`].
pub(super) fn by_itself(item: &Value) -> Value {
    item.clone()
}

/// The name of a pool: subdomains with slashes between them.
pub(super) fn pool_name(errors: &mut Errors, path: &Path, name: &str) {
    const LONGEST: usize = 253;
    if !errors.needs(path, name, "") {
        return;
    }
    if name.len() > LONGEST {
        errors.too_long(path, LONGEST);
    }
    for part in name.split('/') {
        errors.invalid_for(path, part, names::dns1123_subdomain_errors(part));
    }
}

/// The name of an attribute or a capacity: an identifier, perhaps with the domain of a driver.
pub(super) fn qualified_name(errors: &mut Errors, path: &Path, name: &str) {
    if !errors.needs(path, name, "name required") {
        return;
    }
    let Some((domain, id)) = name.split_once('/') else { return identifier(errors, path, name) };
    if errors.needs(path, domain, "the domain must not be empty") {
        super::super::pod::driver_name(errors, path, domain);
    }
    if errors.needs(path, id, "the name must not be empty") {
        identifier(errors, path, id);
    }
}

/// The same where the domain must be there.
pub(super) fn fully_qualified_name(errors: &mut Errors, path: &Path, name: &str) {
    qualified_name(errors, path, name);
    if !name.contains('/') {
        errors.invalid(path, name, "must include a domain");
    }
}

fn identifier(errors: &mut Errors, path: &Path, id: &str) {
    const LONGEST: usize = 32;
    if id.len() > LONGEST {
        errors.too_long(path, LONGEST);
    }
    errors.invalid_for(path, id, name::c_identifier(id));
}

/// A taint; an effect that `old` had too is let be.
pub(super) fn taint(errors: &mut Errors, path: &Path, taint: &Value, old: Option<&Value>) {
    let text = |field| tree::text(taint, field);
    errors.invalid_for(&path.child("key"), text("key"), name::qualified(text("key")));
    errors.invalid_for(&path.child("value"), text("value"), name::label_value(text("value")));
    if old.is_none_or(|old| tree::text(old, "effect") != text("effect")) {
        errors.needs_one_of(&path.child("effect"), text("effect"), EFFECTS);
    }
}

/// A toleration of a claim.
pub(super) fn toleration(errors: &mut Errors, path: &Path, toleration: &Value) {
    let text = |field| tree::text(toleration, field);
    if !text("key").is_empty() {
        errors.invalid_for(&path.child("key"), text("key"), name::qualified(text("key")));
    }
    let (value, at) = (text("value"), path.child("value"));
    match text("operator") {
        "Exists" if !value.is_empty() => errors.invalid(&at, value, "must be empty for operator `Exists`"),
        "Exists" => {}
        "Equal" => errors.invalid_for(&at, value, name::label_value(value)),
        other => errors.needs_one_of(&path.child("operator"), other, &["Equal", "Exists"]),
    }
    if !text("effect").is_empty() {
        errors.one_of(&path.child("effect"), text("effect"), EFFECTS);
    }
}

/// What must be true of a device before pods are bound to it, and what tells that it never will be: both or neither.
pub(super) fn binding_conditions(errors: &mut Errors, path: &Path, device: &Value) {
    const MOST: usize = 4;
    const READY: &str = "bindingConditions";
    const FAILED: &str = "bindingFailureConditions";
    for field in [READY, FAILED] {
        items(errors, &path.child(field), tree::list(device, field), MOST, None, |errors, at, condition| {
            let condition = condition.as_str().unwrap_or("");
            errors.invalid_for(at, condition, name::qualified(condition));
        });
    }
    let (ready, failed) = (tree::list(device, READY), tree::list(device, FAILED));
    let mut seen = Seen::default();
    for (i, one) in ready.iter().enumerate().filter(|(_, one)| !seen.first(one.to_string())) {
        errors.duplicate(&path.child(READY).index(i), one.clone());
    }
    let mut seen = Seen::default();
    for (i, one) in failed.iter().enumerate() {
        let at = path.child(FAILED).index(i);
        if !seen.first(one.to_string()) {
            errors.duplicate(&at, one.clone());
        }
        if ready.contains(one) {
            errors.invalid(&at, one.clone(), "bindingFailureConditions must not overlap with bindingConditions");
        }
    }
    for (own, other) in [(READY, FAILED), (FAILED, READY)] {
        if tree::list(device, own).is_empty() && !tree::list(device, other).is_empty() {
            let shown = device.get(own).cloned().unwrap_or(Value::Null);
            errors.invalid(&path.child(own), shown, &format!("{own} are required to use {other}"));
        }
    }
}

/// JSON that a driver reads: an object of at most 10 KiB.
pub(super) fn raw_object(errors: &mut Errors, path: &Path, value: &Value) {
    const LONGEST: usize = 10 * 1024;
    match value {
        Value::Null => errors.required(path, ""),
        _ if value.to_string().len() > LONGEST => errors.too_long(path, LONGEST),
        Value::Object(_) => {}
        _ => errors.invalid(path, "<value omitted>", "must be a valid JSON object"),
    }
}

/// What a driver is told of a device.
pub(super) fn configuration(errors: &mut Errors, path: &Path, configuration: &Value) {
    let (at, opaque) = (path.child("opaque"), &configuration["opaque"]);
    if opaque.is_null() {
        return errors.required(&at, "");
    }
    super::super::pod::driver_name(errors, &at.child("driver"), tree::text(opaque, "driver"));
    raw_object(errors, &at.child("parameters"), &opaque["parameters"]);
}

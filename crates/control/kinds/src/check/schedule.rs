//! Tolerations, taints' effects and what else decides where pods may run.

use super::{Errors, name};
use crate::tree;
use pintle_types::field::Path;
use serde_json::Value;

const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// The effect of a taint; a toleration's may be empty.
pub(crate) fn effect(errors: &mut Errors, path: &Path, effect: &str, may_be_empty: bool) {
    match (effect.is_empty(), may_be_empty) {
        (true, true) => {}
        (true, false) => errors.required(path, ""),
        _ => errors.one_of(path, effect, EFFECTS),
    }
}

pub(crate) fn tolerations(errors: &mut Errors, path: &Path, tolerations: &[Value]) {
    for (i, toleration) in tolerations.iter().enumerate() {
        one_toleration(errors, &path.index(i), toleration);
    }
}

fn one_toleration(errors: &mut Errors, path: &Path, toleration: &Value) {
    let text = |key| tree::text(toleration, key);
    let (key, operator, value, effect_text) = (text("key"), text("operator"), text("value"), text("effect"));
    if !key.is_empty() {
        errors.invalid_for(&path.child("key"), key, name::qualified(key));
    }
    if key.is_empty() && operator != "Exists" {
        errors.invalid(
            &path.child("operator"),
            operator,
            "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
        );
    }
    if tree::has(toleration, "tolerationSeconds") && effect_text != "NoExecute" {
        errors.invalid(
            &path.child("effect"),
            effect_text,
            "effect must be 'NoExecute' when `tolerationSeconds` is set",
        );
    }
    match operator {
        "Equal" | "" => {
            let wrong = name::label_value(value);
            if !wrong.is_empty() {
                errors.invalid(&path.child("operator"), value, &wrong.join(";"));
            }
        }
        "Exists" if !value.is_empty() => {
            errors.invalid(&path.child("operator"), value, "value must be empty when `operator` is 'Exists'");
        }
        "Exists" => {}
        _ => errors.one_of(&path.child("operator"), operator, &["Equal", "Exists"]),
    }
    if !effect_text.is_empty() {
        effect(errors, &path.child("effect"), effect_text, true);
    }
}

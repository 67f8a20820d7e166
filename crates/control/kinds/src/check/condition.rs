//! Conditions in the form that all newer kinds share: a type, a status, since when, and why.

use super::{Errors, Seen, name};
use crate::tree;
use pintle_types::field::Path;
use serde_json::Value;

/// What is wrong with a list of conditions.
pub(crate) fn all(errors: &mut Errors, path: &Path, conditions: &[Value]) {
    let mut seen = Seen::default();
    for (i, condition) in conditions.iter().enumerate() {
        let (at, kind) = (path.index(i), tree::text(condition, "type"));
        if !seen.first(kind) {
            errors.duplicate(&at.child("type"), kind);
        }
        one(errors, &at, condition);
    }
}

fn one(errors: &mut Errors, at: &Path, condition: &Value) {
    const LONGEST_REASON: usize = 1024;
    const LONGEST_MESSAGE: usize = 32 * 1024;
    let text = |key| tree::text(condition, key);
    errors.invalid_for(&at.child("type"), text("type"), name::qualified(text("type")));
    errors.one_of(&at.child("status"), text("status"), &["False", "True", "Unknown"]);
    let generation = tree::int(condition, "observedGeneration");
    if generation < 0 {
        errors.invalid(&at.child("observedGeneration"), generation, "must be greater than or equal to zero");
    }
    errors.needs(&at.child("lastTransitionTime"), text("lastTransitionTime"), "must be set");
    let (reason, place) = (text("reason"), at.child("reason"));
    if errors.needs(&place, reason, "must be set") {
        errors.invalid_for(&place, reason, reason_errors(reason));
        if reason.len() > LONGEST_REASON {
            errors.too_long(&place, LONGEST_REASON);
        }
    }
    if text("message").len() > LONGEST_MESSAGE {
        errors.too_long(&at.child("message"), LONGEST_MESSAGE);
    }
}

fn reason_errors(reason: &str) -> Vec<String> {
    const WORDS: &str = "a condition reason must start with alphabetic character, optionally followed by a string of \
                         alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. \
                         'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used \
                         for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')";
    let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ',' | ':');
    let fine = reason.starts_with(|c: char| c.is_ascii_alphabetic())
        && reason.chars().all(inside)
        && !reason.ends_with([',', ':']);
    if fine { Vec::new() } else { vec![WORDS.to_owned()] }
}

/// Whether the condition of a type is there and true.
pub(crate) fn is_true(status: &Value, kind: &str) -> bool {
    tree::list(status, "conditions")
        .iter()
        .any(|it| tree::text(it, "type") == kind && tree::text(it, "status") == "True")
}

/// Conditions as messages show them: their fields in the order of upstream's struct.
pub(crate) fn shown(conditions: &[Value]) -> String {
    let one = |condition: &Value| {
        let field = |key: &str| format!("{}:{}", Value::from(key), condition.get(key).unwrap_or(&Value::Null));
        let mut fields = vec![field("type"), field("status")];
        if tree::int(condition, "observedGeneration") != 0 {
            fields.push(field("observedGeneration"));
        }
        fields.push(field("lastTransitionTime"));
        fields
            .extend(["reason", "message"].map(|key| format!("\"{key}\":{}", Value::from(tree::text(condition, key)))));
        format!("{{{}}}", fields.join(","))
    };
    format!("[{}]", conditions.iter().map(one).collect::<Vec<_>>().join(","))
}

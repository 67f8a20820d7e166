//! Pods that wait behind scheduling gates: where they may run can be narrowed, never widened.

use crate::{check::Errors, tree};
use pintle_types::field::Path;
use serde_json::Value;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

/// What is wrong with how the places of a gated pod changed.
pub(super) fn narrowed(errors: &mut Errors, path: &Path, new: &Value, old: &Value) {
    let kept =
        tree::entries(old, "nodeSelector").into_iter().all(|(key, value)| new["nodeSelector"].get(key) == Some(value));
    if !kept {
        let shown = new.get("nodeSelector").map_or("null".to_owned(), Value::to_string);
        let words = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        errors.invalid_shown(&path.child("nodeSelector"), &shown, words);
    }
    let terms = |spec: &'_ Value| tree::list(&spec["affinity"]["nodeAffinity"][REQUIRED], "nodeSelectorTerms").to_vec();
    let (now, before) = (terms(new), terms(old));
    let at = path.child("affinity").child("nodeAffinity").child(REQUIRED).child("nodeSelectorTerms");
    if !before.is_empty() && before.len() != now.len() {
        let shown = match now.is_empty() {
            true => "null".to_owned(),
            false => format!("[{}]", now.iter().map(term_shown).collect::<Vec<_>>().join(",")),
        };
        let words = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        return errors.invalid_shown(&at, &shown, words);
    }
    for (i, (now, before)) in now.iter().zip(&before).enumerate() {
        if !only_adds(now, before) {
            let words = "only additions are allowed (no mutations or deletions)";
            errors.invalid_shown(&at.index(i), &term_shown(now), words);
        }
    }
}

/// An empty term matches nothing, so that nothing may be added to it.
fn only_adds(now: &Value, before: &Value) -> bool {
    let lists = ["matchExpressions", "matchFields"];
    let empty = |term: &Value| lists.iter().all(|field| tree::list(term, field).is_empty());
    if empty(before) && !empty(now) {
        return false;
    }
    lists.iter().all(|field| {
        let now = tree::list(now, field);
        tree::list(before, field).iter().enumerate().all(|(i, one)| now.get(i) == Some(one))
    })
}

/// A term as upstream prints its struct.
pub(crate) fn term_shown(term: &Value) -> String {
    let list = |field: &str| match term.get(field).and_then(Value::as_array) {
        None => "null".to_owned(),
        Some(requirements) => {
            let shown = requirements.iter().map(|one| {
                let text = |key| Value::from(tree::text(one, key));
                format!("{{\"Key\":{},\"Operator\":{},\"Values\":{}}}", text("key"), text("operator"), one["values"])
            });
            format!("[{}]", shown.collect::<Vec<_>>().join(","))
        }
    };
    format!("{{\"MatchExpressions\":{},\"MatchFields\":{}}}", list("matchExpressions"), list("matchFields"))
}

/// Puts back the old places, whose change was looked at by itself.
pub(super) fn undo(spec: &mut Value, old: &Value) {
    tree::copy(spec, old, "nodeSelector");
    let before = &old["affinity"]["nodeAffinity"];
    if before == &spec["affinity"]["nodeAffinity"] {
        return;
    }
    let pods = |spec: &Value| ["podAffinity", "podAntiAffinity"].iter().any(|side| tree::has(&spec["affinity"], side));
    if !tree::has(old, "affinity") && !pods(spec) {
        tree::remove(spec, "affinity");
    } else if let Some(affinity) = tree::child(spec, "affinity") {
        tree::copy(affinity, &old["affinity"], "nodeAffinity");
    }
}

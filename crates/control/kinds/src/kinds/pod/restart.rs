//! When containers are restarted: their own policies and rules, and what a change of their amounts does.

use crate::{
    check::{Errors, Seen},
    tree,
};
use pintle_types::field::Path;
use serde_json::Value;

/// The policy of one container, which its rules refine.
pub(super) fn rules(errors: &mut Errors, at: &Path, container: &Value) {
    const MOST_RULES: usize = 20;
    const MOST_CODES: usize = 255;
    let rules = tree::list(container, "restartPolicyRules");
    match container.get("restartPolicy").and_then(Value::as_str) {
        None if rules.is_empty() => return,
        None => errors.required(&at.child("restartPolicy"), "must specify restartPolicy when restart rules are used"),
        Some(policy) => errors.one_of(&at.child("restartPolicy"), policy, &["Always", "Never", "OnFailure"]),
    }
    let path = at.child("restartPolicyRules");
    if rules.len() > MOST_RULES {
        errors.too_many(&path, rules.len(), MOST_RULES);
    }
    for (i, rule) in rules.iter().enumerate() {
        let at = path.index(i);
        errors.one_of(&at.child("action"), tree::text(rule, "action"), &["Restart", "RestartAllContainers"]);
        let (codes, at) = (&rule["exitCodes"], at.child("exitCodes"));
        if codes.is_null() {
            errors.required(&at, "must be specified");
            continue;
        }
        errors.one_of(&at.child("operator"), tree::text(codes, "operator"), &["In", "NotIn"]);
        let values = tree::list(codes, "values");
        if values.len() > MOST_CODES {
            errors.too_many(&at.child("values"), values.len(), MOST_CODES);
        }
    }
}

/// What a container needs when its amounts change.
pub(super) fn resize_policy(errors: &mut Errors, at: &Path, container: &Value, spec: &Value) {
    let mut seen = Seen::default();
    for (i, policy) in tree::list(container, "resizePolicy").iter().enumerate() {
        let (name, restart) = (tree::text(policy, "resourceName"), tree::text(policy, "restartPolicy"));
        if !seen.first(name) {
            errors.duplicate(&at.index(i), name);
        }
        errors.needs_one_of(at, name, &["cpu", "memory"]);
        errors.needs_one_of(at, restart, &["NotRequired", "RestartContainer"]);
        if tree::text(spec, "restartPolicy") == "Never" && restart != "NotRequired" {
            errors.invalid(at, restart, "must be 'NotRequired' when pod `restartPolicy` is 'Never'");
        }
    }
}

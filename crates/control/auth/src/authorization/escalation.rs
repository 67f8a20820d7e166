//! Nobody gives others more than they have: which rules are not covered by those that somebody holds.
//!
//! Sources: `pkg/registry/rbac/validation` and `k8s.io/component-helpers/auth/rbac/validation` of Kubernetes.

use super::rules::Rule;
use crate::User;
use std::collections::{BTreeMap, BTreeSet};

/// Nothing when `held` covers all of `wanted`; otherwise the refusal, worded as upstream words it. `errors` is what
/// went wrong in finding out what is held.
pub fn confirm(user: &User, held: &[Rule], wanted: &[Rule], errors: &[String]) -> Result<(), String> {
    let missing: Vec<Rule> =
        wanted.iter().flat_map(single).filter(|one| !held.iter().any(|rule| covers(rule, one))).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let shown: BTreeSet<String> = compact(missing).iter().map(describe).collect();
    let shown = shown.into_iter().collect::<Vec<_>>().join("\n");
    let mut message = format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{shown}",
        user.name,
        quoted(&user.groups)
    );
    if !errors.is_empty() {
        message += &format!("; resolution errors: [{}]", errors.join(" "));
    }
    Err(message)
}

fn one(text: &str) -> Vec<Box<str>> {
    vec![text.into()]
}

/// The rule as rules of one verb on one thing each.
fn single(rule: &Rule) -> Vec<Rule> {
    let mut out = Vec::new();
    for group in &rule.groups {
        for resource in &rule.resources {
            for verb in &rule.verbs {
                let base = Rule { verbs: one(verb), groups: one(group), resources: one(resource), ..Rule::default() };
                if rule.names.is_empty() {
                    out.push(base);
                } else {
                    out.extend(rule.names.iter().map(|name| Rule { names: one(name), ..base.clone() }));
                }
            }
        }
    }
    for path in &rule.paths {
        out.extend(rule.verbs.iter().map(|verb| Rule { verbs: one(verb), paths: one(path), ..Rule::default() }));
    }
    out
}

fn has(list: &[Box<str>], item: &str) -> bool {
    list.iter().any(|i| &**i == "*" || &**i == item)
}

/// Whether a rule covers another one of one verb on one thing.
fn covers(rule: &Rule, wanted: &Rule) -> bool {
    if !wanted.verbs.iter().all(|verb| has(&rule.verbs, verb)) {
        return false;
    }
    if let Some(path) = wanted.paths.first() {
        return rule
            .paths
            .iter()
            .any(|held| held == path || held.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix)));
    }
    let resource = |held: &str, wanted: &str| {
        let sub = |text: &str| text.split_once('/').map(|(_, sub)| sub.to_owned());
        held == "*" || held == wanted || held.strip_prefix("*/").is_some_and(|h| sub(wanted).as_deref() == Some(h))
    };
    wanted.groups.iter().all(|group| has(&rule.groups, group))
        && wanted.resources.iter().all(|w| rule.resources.iter().any(|held| resource(held, w)))
        && (rule.names.is_empty() || (!wanted.names.is_empty() && wanted.names.iter().all(|n| rule.names.contains(n))))
}

/// Joins the verbs of rules about the same thing.
fn compact(rules: Vec<Rule>) -> Vec<Rule> {
    let mut joined: BTreeMap<(Box<str>, Box<str>, Option<Box<str>>), Rule> = BTreeMap::new();
    let mut out = Vec::new();
    for rule in rules {
        let (Some(group), Some(resource)) = (rule.groups.first(), rule.resources.first()) else {
            out.push(rule);
            continue;
        };
        let key = (group.clone(), resource.clone(), rule.names.first().cloned());
        match joined.get_mut(&key) {
            Some(known) => known.verbs.extend(rule.verbs),
            None => {
                joined.insert(key, rule);
            }
        }
    }
    out.extend(joined.into_values());
    out
}

fn quoted<T: AsRef<str>>(list: &[T]) -> String {
    let items: Vec<String> = list.iter().map(|item| format!("{:?}", item.as_ref())).collect();
    format!("[{}]", items.join(" "))
}

fn describe(rule: &Rule) -> String {
    let parts: Vec<String> = [
        ("APIGroups", &rule.groups),
        ("Resources", &rule.resources),
        ("NonResourceURLs", &rule.paths),
        ("ResourceNames", &rule.names),
        ("Verbs", &rule.verbs),
    ]
    .into_iter()
    .filter(|(_, list)| !list.is_empty())
    .map(|(name, list)| format!("{name}:{}", quoted(list)))
    .collect();
    format!("{{{}}}", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(held: Value, wanted: Value, missing: &str) {
        let rules = |v: &Value| v.as_array().unwrap().iter().map(Rule::from_value).collect::<Vec<_>>();
        let user = User::new("jane", &["dev"]);
        let result = confirm(&user, &rules(&held), &rules(&wanted), &[]);
        let head = "user \"jane\" (groups=[\"dev\" \"system:authenticated\"]) is attempting to grant RBAC permissions \
                    not currently held:\n";
        let expected = if missing.is_empty() { Ok(()) } else { Err(format!("{head}{missing}")) };
        assert_eq!(result, expected, "{held} {wanted}");
    }

    #[test]
    fn what_is_not_held_is_listed() {
        let rule =
            |verbs: &[&str], resources: &[&str]| json!({"verbs": verbs, "apiGroups": [""], "resources": resources});
        let read = rule(&["get", "list"], &["pods"]);
        check(json!([]), json!([]), "");
        check(json!([read]), json!([rule(&["get"], &["pods"])]), "");
        check(
            json!([read]),
            json!([rule(&["get", "watch", "delete"], &["pods"])]),
            "{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"watch\" \"delete\"]}",
        );
        check(json!([rule(&["*"], &["*/log"])]), json!([rule(&["get"], &["pods/log"])]), "");
        check(
            json!([{"verbs": ["get"], "nonResourceURLs": ["/a/*"]}]),
            json!([{"verbs": ["get"], "nonResourceURLs": ["/a/b", "/c"]}]),
            "{NonResourceURLs:[\"/c\"], Verbs:[\"get\"]}",
        );
        let named = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"]});
        check(
            json!([named]),
            json!([rule(&["get"], &["pods"])]),
            "{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"get\"]}",
        );
        check(json!([read]), json!([named]), "");
    }
}

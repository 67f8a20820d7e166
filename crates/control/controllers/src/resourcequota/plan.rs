//! What a quota's status should say of the objects that there are.

use pintle_quota::{Amounts, Resource, add, in_scope, mask, parse};
use pintle_types::quantity::Quantity;
use serde_json::Value;

/// Objects of one kind in the quota's namespace.
pub struct Present<'a> {
    pub resource: Resource<'a>,
    pub objects: Vec<Value>,
}

/// The limits and the usage for the status.
pub fn status(quota: &Value, present: &[Present<'_>], now: i64) -> (Amounts, Amounts) {
    let hard = parse(&quota["spec"]["hard"]);
    let mut used: Amounts = hard.keys().map(|name| (name.clone(), Quantity::ZERO)).collect();
    for kind in present {
        for object in kind.objects.iter().filter(|object| in_scope(kind.resource, quota, object)) {
            let usage = kind.resource.usage(object, now);
            add(&mut used, &mask(&usage, |name| hard.contains_key(name)));
        }
    }
    (hard, used)
}

/// Whether a new count is less than the one before in anything.
pub fn lowers(before: &Amounts, now: &Amounts) -> bool {
    before.iter().any(|(name, amount)| now.get(name).is_some_and(|counted| counted < amount))
}

/// Names that are counted by the number of objects alone: group and resource of each.
pub fn counted(hard: &Amounts) -> Vec<(String, String)> {
    counted_names(hard.keys())
}

/// The same of names alone.
pub fn counted_names<'a>(names: impl Iterator<Item = &'a String>) -> Vec<(String, String)> {
    let plain = ["configmaps", "secrets", "replicationcontrollers", "resourcequotas"];
    let mut found = Vec::new();
    for name in names {
        let name = match name.strip_prefix("count/") {
            Some(name) => name,
            None if plain.contains(&name.as_str()) => name,
            None => continue,
        };
        let (resource, group) = name.split_once('.').unwrap_or((name, ""));
        let core = group.is_empty() && matches!(resource, "pods" | "services" | "persistentvolumeclaims");
        let entry = (group.to_owned(), resource.to_owned());
        if !core && !found.contains(&entry) {
            found.push(entry);
        }
    }
    found
}

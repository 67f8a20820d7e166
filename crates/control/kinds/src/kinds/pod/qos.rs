//! The quality-of-service class of a pod, decided by the requests and limits of its containers.

use crate::{check::resource::quantity, tree};
use serde_json::Value;

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub(crate) fn class(spec: &Value) -> &'static str {
    if tree::has(spec, "resources") && !tree::is_empty(&spec["resources"]) {
        return class_of(&[&spec["resources"]]);
    }
    let all = ["initContainers", "containers"];
    let resources: Vec<&Value> =
        all.iter().flat_map(|field| tree::list(spec, field)).map(|container| &container["resources"]).collect();
    class_of(&resources)
}

fn class_of(resources: &[&Value]) -> &'static str {
    const COUNTED: [&str; 2] = ["cpu", "memory"];
    let amount = |resources: &Value, side: &str, name: &str| {
        quantity(tree::at(resources, side).get(name).unwrap_or(&Value::Null)).filter(|amount| !amount.is_zero())
    };
    let any = resources.iter().any(|one| {
        COUNTED.iter().any(|name| amount(one, "requests", name).is_some() || amount(one, "limits", name).is_some())
    });
    if !any {
        return "BestEffort";
    }
    let exact = resources.iter().all(|one| {
        COUNTED.iter().all(|name| {
            let limit = amount(one, "limits", name);
            limit.is_some() && amount(one, "requests", name).or(limit) == limit
        })
    });
    if exact { "Guaranteed" } else { "Burstable" }
}

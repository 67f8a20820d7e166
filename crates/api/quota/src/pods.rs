//! What pods use: their requests and limits, while they are not over.

use crate::amounts::{Amounts, add, parse, raise};
use crate::{items, one, text};
use serde_json::Value;
use std::collections::BTreeMap;

const NAMES: [&str; 10] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
];
/// The resources that a quota obliges every container to name.
const REQUIRED: [&str; 6] = ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];

pub(crate) fn is_named_by(name: &str) -> bool {
    NAMES.contains(&name)
        || name.starts_with("hugepages-")
        || name.strip_prefix("requests.").is_some_and(|rest| rest.starts_with("hugepages-") || is_extended(rest))
}

/// Whether it is a resource of devices: with a domain that is not Kubernetes' own.
fn is_extended(name: &str) -> bool {
    let domain = name.split_once('/').map(|(domain, _)| domain);
    domain.is_some_and(|domain| domain != "kubernetes.io" && !domain.ends_with(".kubernetes.io"))
        && !name.starts_with("requests.")
}

pub(crate) fn usage(pod: &Value, now: i64, used: &mut Amounts) {
    if is_over(pod, now) {
        return;
    }
    used.insert("pods".into(), one());
    let (requests, limits) = (of_pod(pod, "requests"), of_pod(pod, "limits"));
    compute(&requests, &limits, used);
}

/// Whether a pod holds nothing any more: finished, or past the time it was given to go.
fn is_over(pod: &Value, now: i64) -> bool {
    if matches!(text(&pod["status"], "phase"), "Failed" | "Succeeded") {
        return true;
    }
    let metadata = &pod["metadata"];
    let deleted = metadata["deletionTimestamp"].as_str().and_then(|time| time.parse().ok());
    let Some(deleted): Option<jiff::Timestamp> = deleted else { return false };
    metadata["deletionGracePeriodSeconds"].is_i64() && deleted.as_second() < now
}

/// Requests and limits under the names that quotas have for them.
fn compute(requests: &Amounts, limits: &Amounts, used: &mut Amounts) {
    for name in ["cpu", "memory", "ephemeral-storage"] {
        if let Some(request) = requests.get(name) {
            used.insert(name.into(), *request);
            used.insert(format!("requests.{name}"), *request);
        }
        if let Some(limit) = limits.get(name) {
            used.insert(format!("limits.{name}"), *limit);
        }
    }
    for (name, request) in requests {
        if name.starts_with("hugepages-") {
            used.insert(name.clone(), *request);
        }
        if name.starts_with("hugepages-") || is_extended(name) {
            used.insert(format!("requests.{name}"), *request);
        }
    }
}

/// What a pod's containers ask for together, with what the pod itself says and its overhead: sidecars count all along,
/// other init containers one at a time.
fn of_pod(pod: &Value, field: &str) -> Amounts {
    let spec = &pod["spec"];
    let own = |container: &Value| parse(&container["resources"][field]);
    let mut sum = Amounts::new();
    items(spec, "containers").iter().for_each(|container| add(&mut sum, &own(container)));
    let (mut sidecars, mut peak) = (Amounts::new(), Amounts::new());
    for container in items(spec, "initContainers") {
        let mut at_once = sidecars.clone();
        add(&mut at_once, &own(container));
        raise(&mut peak, &at_once);
        if text(container, "restartPolicy") == "Always" {
            add(&mut sum, &own(container));
            sidecars = at_once;
        }
    }
    raise(&mut sum, &peak);
    sum.extend(parse(&spec["resources"][field]));
    for (name, overhead) in parse(&spec["overhead"]) {
        // A pod without a limit has none on account of its overhead.
        match sum.get(&name).copied() {
            Some(before) => drop(sum.insert(name, before + overhead)),
            None if field == "requests" => drop(sum.insert(name, overhead)),
            None => {}
        }
    }
    sum
}

/// Each container must name what the quota limits.
pub(crate) fn check(pod: &Value, names: &[&str]) -> Result<(), String> {
    let spec = &pod["spec"];
    let mut whole = Amounts::new();
    compute(&parse(&spec["resources"]["requests"]), &parse(&spec["resources"]["limits"]), &mut whole);
    let required = || names.iter().filter(|name| REQUIRED.contains(name) && !whole.contains_key(**name));
    let mut missing: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for container in items(spec, "containers").iter().chain(items(spec, "initContainers")) {
        let mut used = Amounts::new();
        let resources = &container["resources"];
        compute(&parse(&resources["requests"]), &parse(&resources["limits"]), &mut used);
        for name in required().filter(|name| !used.contains_key(**name)) {
            missing.entry(name).or_default().push(text(container, "name"));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let told = missing.into_iter().map(|(name, mut containers)| {
        containers.sort_unstable();
        format!("{name} for: {}", containers.join(","))
    });
    Err(format!("must specify {}", told.collect::<Vec<_>>().join("; ")))
}

/// Whether no container asks for processors or memory.
pub(crate) fn is_best_effort(pod: &Value) -> bool {
    let spec = &pod["spec"];
    let holders = items(spec, "containers").iter().chain(items(spec, "initContainers")).chain(Some(spec));
    let mut amounts = holders.flat_map(|holder| {
        let resources = &holder["resources"];
        [parse(&resources["requests"]), parse(&resources["limits"])]
    });
    amounts.all(|amounts| ["cpu", "memory"].iter().all(|name| amounts.get(*name).is_none_or(|amount| amount.is_zero())))
}

/// Whether a term of the pod's affinity reaches into other namespaces.
pub(crate) fn crosses_namespaces(pod: &Value) -> bool {
    let affinity = &pod["spec"]["affinity"];
    let crosses = |term: &Value| !items(term, "namespaces").is_empty() || term["namespaceSelector"].is_object();
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let required = items(&affinity[*kind], "requiredDuringSchedulingIgnoredDuringExecution").iter();
        let preferred = items(&affinity[*kind], "preferredDuringSchedulingIgnoredDuringExecution").iter();
        required.chain(preferred.map(|term| &term["podAffinityTerm"])).any(crosses)
    })
}

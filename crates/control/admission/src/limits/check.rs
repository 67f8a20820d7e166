//! Least, most and ratio of what containers, pods and claims ask for.

use pintle_kinds::tree::{entries, list, text};
use pintle_types::quantity::Quantity;
use serde_json::Value;
use std::collections::BTreeMap;

type Amounts = BTreeMap<String, Quantity>;

fn amounts(value: &Value, field: &str) -> Amounts {
    let parse = |value: &Value| match value {
        Value::String(text) => text.parse().ok(),
        other => other.to_string().parse().ok(),
    };
    entries(value, field).into_iter().filter_map(|(name, value)| Some((name.clone(), parse(value)?))).collect()
}

/// What a limit's type says of what is asked for and of what is bounded.
struct Asked {
    requests: Amounts,
    limits: Amounts,
}

/// Judges a pod and each of its containers.
pub(super) fn pod(limit: &Value, pod: &Value, errors: &mut Vec<String>) {
    match text(limit, "type") {
        "Container" => {
            let resources = |container: &Value| Asked {
                requests: amounts(&container["resources"], "requests"),
                limits: amounts(&container["resources"], "limits"),
            };
            for container in list(&pod["spec"], "containers").iter().chain(list(&pod["spec"], "initContainers")) {
                judge(limit, "Container", &resources(container), errors);
            }
        }
        "Pod" => {
            let asked = Asked { requests: of_pod(pod, "requests"), limits: of_pod(pod, "limits") };
            judge(limit, "Pod", &asked, errors);
        }
        _ => {}
    }
}

/// Judges a claim's storage.
pub(super) fn claim(limit: &Value, claim: &Value, errors: &mut Vec<String>) {
    if text(limit, "type") != "PersistentVolumeClaim" {
        return;
    }
    let requests = amounts(&claim["spec"]["resources"], "requests");
    // Claims have no limits; a most is held against what they ask for.
    for (name, least) in amounts(limit, "min") {
        errors.extend(least_of(&name, "PersistentVolumeClaim", least, requests.get(&name), None));
    }
    for (name, most) in amounts(limit, "max") {
        errors.extend(most_requested(&name, "PersistentVolumeClaim", most, requests.get(&name)));
    }
}

fn judge(limit: &Value, kind: &str, asked: &Asked, errors: &mut Vec<String>) {
    for (name, least) in amounts(limit, "min") {
        errors.extend(least_of(&name, kind, least, asked.requests.get(&name), asked.limits.get(&name)));
    }
    for (name, most) in amounts(limit, "max") {
        errors.extend(most_of(&name, kind, most, asked.requests.get(&name), asked.limits.get(&name)));
    }
    for (name, ratio) in amounts(limit, "maxLimitRequestRatio") {
        errors.extend(ratio_of(&name, kind, ratio, asked.requests.get(&name), asked.limits.get(&name)));
    }
}

/// Processors are compared in thousandths, everything else in whole units.
fn value(name: &str, quantity: &Quantity) -> i64 {
    if name == "cpu" { quantity.milli() } else { quantity.units() }
}

fn least_of(
    name: &str,
    kind: &str,
    least: Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
) -> Option<String> {
    let Some(request) = request else {
        return Some(format!("minimum {name} usage per {kind} is {least}.  No request is specified"));
    };
    if value(name, request) < value(name, &least) {
        return Some(format!("minimum {name} usage per {kind} is {least}, but request is {request}"));
    }
    let limit = limit.filter(|limit| value(name, limit) < value(name, &least))?;
    Some(format!("minimum {name} usage per {kind} is {least}, but limit is {limit}"))
}

fn most_requested(name: &str, kind: &str, most: Quantity, request: Option<&Quantity>) -> Option<String> {
    let Some(request) = request else {
        return Some(format!("maximum {name} usage per {kind} is {most}.  No request is specified"));
    };
    (value(name, request) > value(name, &most))
        .then(|| format!("maximum {name} usage per {kind} is {most}, but request is {request}"))
}

fn most_of(
    name: &str,
    kind: &str,
    most: Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
) -> Option<String> {
    let Some(limit) = limit else {
        return Some(format!("maximum {name} usage per {kind} is {most}.  No limit is specified"));
    };
    if value(name, limit) > value(name, &most) {
        return Some(format!("maximum {name} usage per {kind} is {most}, but limit is {limit}"));
    }
    let request = request.filter(|request| value(name, request) > value(name, &most))?;
    Some(format!("maximum {name} usage per {kind} is {most}, but request is {request}"))
}

fn ratio_of(
    name: &str,
    kind: &str,
    ratio: Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
) -> Option<String> {
    let zero = |quantity: Option<&Quantity>| quantity.is_none_or(Quantity::is_zero);
    if zero(request) {
        return Some(format!(
            "{name} max limit to request ratio per {kind} is {ratio}, but no request is specified or request is 0"
        ));
    }
    if zero(limit) {
        return Some(format!(
            "{name} max limit to request ratio per {kind} is {ratio}, but no limit is specified or limit is 0"
        ));
    }
    let (request, limit) = (value(name, request?), value(name, limit?));
    let observed = limit as f64 / request as f64;
    let allowed = value(name, &ratio) as f64 / if name == "cpu" { 1000.0 } else { 1.0 };
    (observed > allowed).then(|| {
        format!("{name} max limit to request ratio per {kind} is {ratio}, but provided ratio is {observed:.6}")
    })
}

/// What the containers of a pod ask for together: sidecars count all along, other init containers one at a time. What
/// the pod itself says wins.
fn of_pod(pod: &Value, field: &str) -> Amounts {
    let spec = &pod["spec"];
    let mut sum = Amounts::new();
    for container in list(spec, "containers") {
        add(&mut sum, &amounts(&container["resources"], field));
    }
    let (mut sidecars, mut peak) = (Amounts::new(), Amounts::new());
    for container in list(spec, "initContainers") {
        let own = amounts(&container["resources"], field);
        if text(container, "restartPolicy") == "Always" {
            add(&mut sum, &own);
            add(&mut sidecars, &own);
            raise(&mut peak, &sidecars);
        } else {
            let mut both = sidecars.clone();
            add(&mut both, &own);
            raise(&mut peak, &both);
        }
    }
    raise(&mut sum, &peak);
    for (name, amount) in amounts(&spec["resources"], field) {
        sum.insert(name, amount);
    }
    sum
}

fn add(sum: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let before = sum.get(name).copied().unwrap_or(Quantity::ZERO);
        sum.insert(name.clone(), before + *amount);
    }
}

fn raise(least: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let entry = least.entry(name.clone()).or_insert(*amount);
        if *entry < *amount {
            *entry = *amount;
        }
    }
}

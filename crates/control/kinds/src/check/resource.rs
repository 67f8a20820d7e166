//! Amounts of resources and the names of what is counted.

use super::{Errors, name};
use crate::tree;
use pintle_types::{
    field::{ErrorKind, FieldError, Path},
    names,
    quantity::Quantity,
};
use serde_json::Value;

/// The quantity in a value: a text or a number.
pub(crate) fn quantity(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

/// A quantity as messages show it.
pub(crate) fn shown(value: &Value) -> String {
    quantity(value).map_or_else(|| value.to_string(), |amount| amount.to_string())
}

pub(crate) fn not_negative(errors: &mut Errors, path: &Path, value: &Value) {
    if quantity(value).is_some_and(|amount| amount.is_negative()) {
        errors.invalid(path, shown(value), super::number::NOT_NEGATIVE);
    }
}

/// An amount that volumes have; upstream shows a wrong one as a number.
pub(crate) fn basic(errors: &mut Errors, path: &Path, value: &Value) {
    if let Some(amount) = quantity(value).filter(|amount| amount.units() < 0) {
        errors.invalid(path, amount.units(), "must be a valid resource quantity");
    }
}

/// Whether a name belongs to the resources that Kubernetes itself counts: no prefix, or `kubernetes.io/`.
pub(crate) fn is_native(resource: &str) -> bool {
    !resource.contains('/') || resource.contains("kubernetes.io/")
}

/// Whether a name is of a kind of device: domain-prefixed, not native, not a quota's `requests.` name.
pub(crate) fn is_extended(resource: &str) -> bool {
    !is_native(resource)
        && !resource.starts_with("requests.")
        && name::qualified(&format!("requests.{resource}")).is_empty()
}

pub(crate) fn is_huge_page(resource: &str) -> bool {
    resource.starts_with("hugepages-")
}

/// Whether more of it may be given away than there is.
pub(crate) fn is_overcommitted(resource: &str) -> bool {
    is_native(resource) && !is_huge_page(resource)
}

/// Whether only whole numbers make sense.
pub(crate) fn is_integral(resource: &str) -> bool {
    const COUNTED: &[&str] = &[
        "persistentvolumeclaims",
        "pods",
        "services",
        "replicationcontrollers",
        "resourcequotas",
        "secrets",
        "configmaps",
        "services.nodeports",
        "services.loadbalancers",
        "resourceclaims",
    ];
    COUNTED.contains(&resource) || resource.starts_with("count/") || is_extended(resource)
}

/// The names without a prefix that Kubernetes itself counts anywhere.
const STANDARD: &[&str] = &[
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
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
    "requests.storage",
    "services.nodeports",
    "services.loadbalancers",
];

fn is_standard(resource: &str) -> bool {
    STANDARD.contains(&resource) || is_huge_page(resource.strip_prefix("requests.").unwrap_or(resource))
}

/// A name of a resource: qualified, and known if it has no prefix.
pub(crate) fn standard_name(errors: &mut Errors, path: &Path, resource: &str) {
    let wrong = name::qualified(resource);
    if wrong.is_empty() && !resource.contains('/') && !is_standard(resource) {
        errors.invalid(path, resource, "must be a standard resource type or fully qualified");
    }
    errors.invalid_for(path, resource, wrong);
}

/// The name of what containers can have.
pub(crate) fn container_name(errors: &mut Errors, path: &Path, resource: &str) {
    standard_name(errors, path, resource);
    if !resource.contains('/') {
        if !CONTAINER.contains(&resource) && !is_huge_page(resource) {
            errors.invalid(path, resource, "must be a standard resource for containers");
        }
    } else if !is_native(resource) && !is_extended(resource) {
        errors.invalid(path, resource, "doesn't follow extended resource name standard");
    }
}

/// An amount of a resource: not negative, whole where it counts things.
pub(crate) fn amount(errors: &mut Errors, path: &Path, resource: &str, value: &Value) {
    not_negative(errors, path, value);
    if is_integral(resource) && quantity(value).is_some_and(|amount| !amount.is_whole()) {
        errors.invalid(path, shown(value), "must be an integer");
    }
}

const CONTAINER: &[&str] = &["cpu", "memory", "ephemeral-storage"];

/// Requests, limits and claims of a container, whose pod has these `claims`.
pub(crate) fn requirements(errors: &mut Errors, path: &Path, resources: &Value, claims: &[&str]) {
    requirements_of(errors, path, resources, claims, container_name);
}

/// The same with another rule for names.
pub(crate) fn requirements_of(
    errors: &mut Errors,
    path: &Path,
    resources: &Value,
    claims: &[&str],
    check_name: fn(&mut Errors, &Path, &str),
) {
    for side in ["limits", "requests"] {
        let place = path.child(side);
        for (resource, value) in tree::entries(resources, side) {
            let at = place.key(resource);
            check_name(errors, &at, resource);
            amount(errors, &at, resource, value);
            if side == "requests" {
                request_within_limit(errors, path, resources, resource, value);
            }
            whole_pages(errors, &at, resource, value);
        }
    }
    let named = |side: &str| tree::entries(resources, side);
    let huge = named("limits").into_iter().chain(named("requests")).any(|(name, _)| is_huge_page(name));
    let other = named("limits").into_iter().chain(named("requests")).any(|(name, _)| name == "cpu" || name == "memory");
    if huge && !other {
        errors.forbidden(path, "HugePages require cpu or memory");
    }
    used_claims(errors, &path.child("claims"), tree::list(resources, "claims"), claims);
}

fn request_within_limit(errors: &mut Errors, path: &Path, resources: &Value, resource: &str, request: &Value) {
    let limit = resources["limits"].get(resource).and_then(quantity);
    let overcommitted = is_overcommitted(resource);
    let Some(asked) = quantity(request) else { return };
    let at = path.child("requests");
    match limit {
        Some(limit) if !overcommitted && asked != limit => {
            errors.invalid(&at, shown(request), &format!("must be equal to {resource} limit of {limit}"));
        }
        Some(limit) if asked > limit => {
            errors.invalid(&at, shown(request), &format!("must be less than or equal to {resource} limit of {limit}"));
        }
        None if !overcommitted => {
            errors.required(&path.child("limits"), "Limit must be set for non overcommitable resources");
        }
        _ => {}
    }
}

/// Huge pages come whole.
fn whole_pages(errors: &mut Errors, at: &Path, resource: &str, value: &Value) {
    let Some(size) = resource.strip_prefix("hugepages-") else { return };
    let size = size.parse::<Quantity>().ok().filter(|size| size.is_whole() && size.units() > 0);
    let Some(amount) = quantity(value) else { return };
    if size.is_none_or(|size| amount.units() % size.units() != 0) {
        let words = format!("{amount} is not positive integer multiple of {resource}");
        errors.invalid(at, amount.to_string(), &words);
    }
}

/// The claims of devices that a container uses, whole or one request of them.
fn used_claims(errors: &mut Errors, path: &Path, used: &[Value], known: &[&str]) {
    let mut seen: Vec<String> = Vec::new();
    for (i, claim) in used.iter().enumerate() {
        let (at, own, request) = (path.index(i), tree::text(claim, "name"), tree::text(claim, "request"));
        if !errors.needs(&at, own, "") {
            continue;
        }
        if seen.iter().any(|one| one == own) {
            errors.duplicate(&at, own);
        } else {
            let key = if request.is_empty() { own.to_owned() } else { format!("{own}/{request}") };
            if !request.is_empty() {
                errors.invalid_for(&at.child("request"), request, names::dns1123_label_errors(request));
            }
            if seen.contains(&key) {
                errors.duplicate(&at, key.as_str());
            } else if request.is_empty() {
                let partly = seen.iter().filter(|one| one.split_once('/').is_some_and(|(name, _)| name == own));
                partly.for_each(|_| errors.duplicate(&at, own));
            }
            seen.push(key);
        }
        if !known.contains(&own) {
            let more = if known.is_empty() { " which is empty".to_owned() } else { format!(": {}", known.join(", ")) };
            let body =
                format!("Not found: {}: must be one of the names in pod.spec.resourceClaims{more}", Value::from(own));
            errors.0.push(FieldError::new(ErrorKind::NotFound, &at, body));
        }
    }
}

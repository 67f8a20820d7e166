//! Amounts of resources and the names of what is counted.

use super::{Errors, name};
use crate::tree;
use pintle_types::{field::Path, quantity::Quantity};
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

/// A name of a resource: qualified, and known if it has no prefix.
pub(crate) fn known_name(errors: &mut Errors, path: &Path, resource: &str, known: &[&str], words: &str) {
    errors.invalid_for(path, resource, name::qualified(resource));
    if !resource.contains('/') && !known.contains(&resource) && !is_huge_page(resource) {
        errors.invalid(path, resource, words);
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

/// Requests and limits of a container.
pub(crate) fn requirements(errors: &mut Errors, path: &Path, resources: &Value) {
    let (limits, requests) = (path.child("limits"), path.child("requests"));
    for (resource, value) in tree::entries(resources, "limits") {
        container_amount(errors, &limits.key(resource), resource, value);
    }
    for (resource, value) in tree::entries(resources, "requests") {
        container_amount(errors, &requests.key(resource), resource, value);
        request_within_limit(errors, &requests, resources, resource, value);
    }
    let named = |side: &str| tree::entries(resources, side);
    let huge = named("limits").into_iter().chain(named("requests")).any(|(name, _)| is_huge_page(name));
    let other = named("limits").into_iter().chain(named("requests")).any(|(name, _)| name == "cpu" || name == "memory");
    if huge && !other {
        errors.forbidden(path, "HugePages require cpu or memory");
    }
}

fn container_amount(errors: &mut Errors, path: &Path, resource: &str, value: &Value) {
    known_name(errors, path, resource, CONTAINER, "must be a standard resource for containers");
    if resource.contains('/') && !is_extended(resource) && is_native(resource) {
        errors.invalid(path, resource, "must be a standard resource for containers");
    }
    amount(errors, path, resource, value);
}

fn request_within_limit(errors: &mut Errors, path: &Path, resources: &Value, resource: &str, request: &Value) {
    let limit = &resources["limits"][resource];
    let no_overcommit = is_huge_page(resource) || is_extended(resource);
    let (Some(asked), limited) = (quantity(request), quantity(limit)) else { return };
    match limited {
        Some(limit) if no_overcommit && asked != limit => {
            errors.invalid(path, shown(request), &format!("must be equal to {resource} limit of {limit}"));
        }
        Some(limit) if asked > limit => {
            errors.invalid(path, shown(request), &format!("must be less than or equal to {resource} limit of {limit}"));
        }
        None if no_overcommit => errors.required(path, "Limit must be set for non overcommitable resources"),
        _ => {}
    }
}

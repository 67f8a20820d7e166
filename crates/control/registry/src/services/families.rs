//! What a Service's type asks for, what an update keeps of it, and its address families.
//!
//! Source: upstream's `initIPFamilyFields`, `patchAllocatedValues` and `normalizeClusterIPs`.

use super::addresses::family;
use pintle_kinds::tree;
use pintle_types::field::{ErrorList, FieldError, Path};
use serde_json::{Value, json};
use std::ops::Range;

fn kind(service: &Value) -> &str {
    match tree::text(&service["spec"], "type") {
        "" => "ClusterIP",
        kind => kind,
    }
}

fn needs_address(service: &Value) -> bool {
    kind(service) != "ExternalName"
}

pub(super) fn needs_node_ports(service: &Value) -> bool {
    match kind(service) {
        "NodePort" => true,
        "LoadBalancer" => service["spec"]["allocateLoadBalancerNodePorts"] != false,
        _ => false,
    }
}

/// Whether the type has node ports, given or not.
fn has_node_ports(service: &Value) -> bool {
    matches!(kind(service), "NodePort" | "LoadBalancer")
}

pub(super) fn needs_health_port(service: &Value) -> bool {
    kind(service) == "LoadBalancer" && service["spec"]["externalTrafficPolicy"] == "Local"
}

/// Keeps what was allocated before and is left out now, and drops what the new type has no use for.
pub(super) fn keep_allocated(new: &mut Value, old: &Value) {
    match (needs_address(old), needs_address(new)) {
        (true, true) => keep_addresses(&mut new["spec"], &old["spec"]),
        // Each by itself: a client that empties the addresses need not know of the families.
        (true, false) => {
            drop_same(new, old, &["clusterIP", "clusterIPs"]);
            drop_same(new, old, &["ipFamilies"]);
            drop_same(new, old, &["ipFamilyPolicy"]);
        }
        _ => {}
    }
    match (has_node_ports(old), has_node_ports(new)) {
        (true, true) => keep_ports(&mut new["spec"], &old["spec"]),
        (true, false) if node_ports(new) == node_ports(old) => {
            tree::items_mut(&mut new["spec"], "ports").for_each(|port| drop(tree::remove(port, "nodePort")));
        }
        _ => {}
    }
    match (needs_health_port(old), needs_health_port(new)) {
        (true, true) if tree::int(&new["spec"], "healthCheckNodePort") == 0 => {
            tree::copy(&mut new["spec"], &old["spec"], "healthCheckNodePort");
        }
        (true, false) => drop_same(new, old, &["healthCheckNodePort"]),
        _ => {}
    }
}

fn keep_addresses(new: &mut Value, old: &Value) {
    if tree::text(new, "clusterIP").is_empty() {
        tree::copy(new, old, "clusterIP");
    }
    if tree::list(new, "clusterIPs").is_empty() && new.get("clusterIP") == old.get("clusterIP") {
        tree::copy(new, old, "clusterIPs");
    }
}

fn keep_ports(new: &mut Value, old: &Value) {
    let same = |a: &Value, b: &Value| {
        let protocol = |port: &Value| match tree::text(port, "protocol") {
            "" => "TCP".to_owned(),
            other => other.to_owned(),
        };
        tree::int(a, "port") == tree::int(b, "port") && protocol(a) == protocol(b)
    };
    let mut used: Vec<i64> = tree::list(new, "ports").iter().map(|port| tree::int(port, "nodePort")).collect();
    for port in tree::items_mut(new, "ports").filter(|port| tree::int(port, "nodePort") == 0) {
        let before = tree::list(old, "ports").iter().find(|old| same(port, old));
        let number = before.map_or(0, |before| tree::int(before, "nodePort"));
        if number != 0 && !used.contains(&number) {
            tree::set(port, "nodePort", number);
            used.push(number);
        }
    }
}

fn node_ports(service: &Value) -> Vec<i64> {
    tree::list(&service["spec"], "ports").iter().map(|port| tree::int(port, "nodePort")).collect()
}

/// Removes fields when none of them was touched by the update.
fn drop_same(new: &mut Value, old: &Value, fields: &[&str]) {
    if fields.iter().all(|field| new["spec"].get(field) == old["spec"].get(field)) {
        fields.iter().for_each(|field| drop(tree::remove(&mut new["spec"], field)));
    }
}

/// Fills in the address families and their policy, and refuses those that the cluster does not have. `configured` are
/// the families that it has, the usual one first.
pub(super) fn settle(service: &mut Value, old: Option<&Value>, configured: &[&str]) -> Result<(), ErrorList> {
    let spec = &mut service["spec"];
    let old = old.map(|old| &old["spec"]);
    mirror_addresses(spec, old);
    if tree::text(spec, "type") == "ExternalName" || is_left_alone(spec, old) {
        return Ok(());
    }
    settle_policy(spec, old);
    told(pintle_kinds::service_address_errors(spec))?;
    let single = is_single(spec);
    let mut errors = ErrorList::new();
    if let Some(old) = old {
        release_second(&mut errors, spec, old);
    }
    suits_policy(&mut errors, spec);
    infer_families(&mut errors, spec, configured);
    told(errors)?;
    if is_bare(spec) {
        // Whoever names the endpoints may name some of both families, wherever it is.
        default_family(spec, configured);
        add_second_family(spec, !single);
        return Ok(());
    }
    told(missing_families(spec, configured))?;
    default_family(spec, configured);
    add_second_family(spec, !single && configured.len() == 2);
    Ok(())
}

/// Which places of `clusterIPs` need an address of the server, or to have the given one taken.
pub(super) fn lacking(service: &Value, old: Option<&Value>) -> Range<usize> {
    let spec = &service["spec"];
    let count = |spec: &Value| tree::list(spec, "ipFamilies").len();
    if !needs_address(service) || tree::text(spec, "clusterIP") == "None" {
        return 0..0;
    }
    match old {
        Some(old) if needs_address(old) && tree::text(&old["spec"], "clusterIP") != "None" => {
            if !is_left_alone(spec, Some(&old["spec"])) && count(&old["spec"]) == 1 && count(spec) == 2 {
                1..2
            } else {
                0..0
            }
        }
        // An update cannot give a Service without addresses some, which validation tells.
        Some(old) if needs_address(old) => 0..0,
        _ => 0..count(spec),
    }
}

fn told(errors: ErrorList) -> Result<(), ErrorList> {
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn is_single(spec: &Value) -> bool {
    tree::text(spec, "ipFamilyPolicy") == "SingleStack"
}

/// Without addresses, and without pods.
fn is_bare(spec: &Value) -> bool {
    tree::text(spec, "clusterIP") == "None" && spec["selector"].as_object().is_none_or(|s| s.is_empty())
}

/// A Service that would like both families keeps what it has when the cluster gets or loses one.
fn is_left_alone(spec: &Value, old: Option<&Value>) -> bool {
    let prefers = |spec: &Value| tree::text(spec, "ipFamilyPolicy") == "PreferDualStack";
    let same = |old: &Value, field: &str| tree::list(spec, field) == tree::list(old, field);
    let kept = |old: &Value| same(old, "clusterIPs") && same(old, "ipFamilies") && spec["type"] == old["type"];
    prefers(spec) && old.is_some_and(|old| prefers(old) && kept(old))
}

fn settle_policy(spec: &mut Value, old: Option<&Value>) {
    if tree::text(spec, "ipFamilyPolicy").is_empty() {
        let policy = match old.map_or("", |old| tree::text(old, "ipFamilyPolicy")) {
            "" if is_bare(spec) => "RequireDualStack",
            "" => "SingleStack",
            before => before,
        };
        tree::set(spec, "ipFamilyPolicy", policy);
    }
}

/// Going to one family drops what the second had, unless the client says otherwise; nothing else does.
fn release_second(errors: &mut ErrorList, spec: &mut Value, old: &Value) {
    let single = is_single(spec);
    for (field, what) in [("clusterIPs", "cluster IP"), ("ipFamilies", "IP family")] {
        let (now, before) = (tree::list(spec, field), tree::list(old, field));
        if single && now == before && now.len() > 1 {
            let first = now[..1].to_vec();
            tree::set(spec, field, first);
        } else if !single && !now.is_empty() && now.len() < before.len() {
            errors.push(policy_error(spec, &format!("must be 'SingleStack' to release the secondary {what}")));
        }
    }
}

fn policy_error(spec: &Value, why: &str) -> FieldError {
    FieldError::invalid(&Path::new("spec").child("ipFamilyPolicy"), spec["ipFamilyPolicy"].clone(), why)
}

fn suits_policy(errors: &mut ErrorList, spec: &Value) {
    for (field, what) in [("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families")] {
        if is_single(spec) && tree::list(spec, field).len() == 2 {
            let why = format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified");
            errors.push(policy_error(spec, &why));
        }
    }
}

/// Addresses tell the families that are not named.
fn infer_families(errors: &mut ErrorList, spec: &mut Value, configured: &[&str]) {
    let addresses = tree::list(spec, "clusterIPs").to_vec();
    let mut families = tree::list(spec, "ipFamilies").to_vec();
    let named = families.len();
    for (i, address) in addresses.iter().enumerate().skip(named) {
        let Some(Ok(address)) = address.as_str().map(str::parse) else { break };
        let family = family(address);
        if configured.contains(&family) {
            families.push(family.into());
        } else {
            let path = Path::new("spec").child("clusterIPs").index(i);
            let why = format!("{family} is not configured on this cluster");
            errors.push(FieldError::invalid(&path, addresses.clone(), &why));
        }
    }
    if families.len() > named {
        tree::set(spec, "ipFamilies", families);
    }
}

fn missing_families(spec: &Value, configured: &[&str]) -> ErrorList {
    let mut errors = ErrorList::new();
    if tree::text(spec, "ipFamilyPolicy") == "RequireDualStack" && configured.len() < 2 {
        errors.push(policy_error(spec, "this cluster is not configured for dual-stack services"));
    }
    for (i, family) in tree::list(spec, "ipFamilies").iter().enumerate() {
        if !configured.iter().any(|known| family == known) {
            let path = Path::new("spec").child("ipFamilies").index(i);
            errors.push(FieldError::invalid(&path, family.clone(), "not configured on this cluster"));
        }
    }
    errors
}

fn default_family(spec: &mut Value, configured: &[&str]) {
    if tree::list(spec, "ipFamilies").is_empty() {
        tree::set(spec, "ipFamilies", json!([configured.first().unwrap_or(&"IPv4")]));
    }
}

fn add_second_family(spec: &mut Value, wanted: bool) {
    let [first] = tree::list(spec, "ipFamilies") else { return };
    if wanted {
        let second = if first == "IPv4" { "IPv6" } else { "IPv4" };
        let families = json!([first, second]);
        tree::set(spec, "ipFamilies", families);
    }
}

/// `clusterIPs` follows `clusterIP` for clients that know the one alone.
fn mirror_addresses(spec: &mut Value, old: Option<&Value>) {
    let single = tree::text(spec, "clusterIP").to_owned();
    let many = tree::list(spec, "clusterIPs").to_vec();
    let Some(old) = old else {
        if !single.is_empty() && many.is_empty() {
            tree::set(spec, "clusterIPs", json!([single]));
        }
        return;
    };
    let (single_before, before) = (tree::text(old, "clusterIP"), tree::list(old, "clusterIPs"));
    if single == single_before {
        if many.is_empty() && !before.is_empty() {
            tree::copy(spec, old, "clusterIPs");
        }
    } else if single.is_empty() {
        if many == before {
            tree::remove(spec, "clusterIPs");
        }
    } else if many == before {
        let changed: Vec<Value> = std::iter::once(single.into()).chain(many.into_iter().skip(1)).collect();
        tree::set(spec, "clusterIPs", changed);
    }
}

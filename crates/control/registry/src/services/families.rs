//! What a Service's type asks for, what an update keeps of it, and its address families.
//!
//! The cluster has IPv4 addresses for Services. Source: upstream's `initIPFamilyFields` and `patchAllocatedValues`.

use pintle_kinds::tree;
use pintle_types::field::{FieldError, Path};
use serde_json::{Value, json};

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
        (true, false) => drop_same(new, old, &["clusterIP", "clusterIPs"], &["ipFamilies", "ipFamilyPolicy"]),
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
        (true, false) => drop_same(new, old, &["healthCheckNodePort"], &[]),
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

/// Removes fields that were not touched by the update, and `with` them.
fn drop_same(new: &mut Value, old: &Value, fields: &[&str], with: &[&str]) {
    if fields.iter().all(|field| new["spec"].get(field) == old["spec"].get(field)) {
        fields.iter().chain(with).for_each(|field| drop(tree::remove(&mut new["spec"], field)));
    }
}

/// Fills in the address families and their policy, and refuses those that the cluster does not have.
pub(super) fn settle(service: &mut Value, old: Option<&Value>) -> Result<(), FieldError> {
    let spec = &mut service["spec"];
    mirror_addresses(spec);
    if tree::text(spec, "type") == "ExternalName" {
        return Ok(());
    }
    let bare = tree::text(spec, "clusterIP") == "None" && spec["selector"].as_object().is_none_or(|s| s.is_empty());
    if tree::text(spec, "ipFamilyPolicy").is_empty() {
        let before = old.map_or("", |old| tree::text(&old["spec"], "ipFamilyPolicy"));
        let policy = match (before, bare) {
            ("", true) => "RequireDualStack",
            ("", false) => "SingleStack",
            (before, _) => before,
        };
        tree::set(spec, "ipFamilyPolicy", policy);
    }
    let single = tree::text(spec, "ipFamilyPolicy") == "SingleStack";
    if tree::list(spec, "ipFamilies").is_empty() {
        tree::set(spec, "ipFamilies", json!(["IPv4"]));
    }
    if bare {
        add_second_family(spec, single);
        return Ok(());
    }
    let path = Path::new("spec");
    if tree::text(spec, "ipFamilyPolicy") == "RequireDualStack" {
        let why = "this cluster is not configured for dual-stack services";
        return Err(FieldError::invalid(&path.child("ipFamilyPolicy"), "RequireDualStack", why));
    }
    let other = tree::list(spec, "ipFamilies").iter().enumerate().find(|(_, family)| *family != "IPv4");
    match other {
        None => Ok(()),
        Some((i, family)) => {
            let path = path.child("ipFamilies").index(i);
            Err(FieldError::invalid(&path, family.clone(), "not configured on this cluster"))
        }
    }
}

/// A headless Service without a selector may have addresses of both families wherever it is.
fn add_second_family(spec: &mut Value, single: bool) {
    let [first] = tree::list(spec, "ipFamilies") else { return };
    if !single {
        let second = if first == "IPv4" { "IPv6" } else { "IPv4" };
        let families = json!([first, second]);
        tree::set(spec, "ipFamilies", families);
    }
}

/// `clusterIP` and `clusterIPs` say the same.
fn mirror_addresses(spec: &mut Value) {
    let single = tree::text(spec, "clusterIP").to_owned();
    let many = tree::list(spec, "clusterIPs");
    match (single.is_empty(), many.first().and_then(Value::as_str)) {
        (false, None) => tree::set(spec, "clusterIPs", json!([single])),
        (true, Some(first)) if !first.is_empty() => {
            let first = first.to_owned();
            tree::set(spec, "clusterIP", first);
        }
        _ => {}
    }
}

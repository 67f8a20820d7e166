//! What is allowed in a Service but has no effect, or a better form.

use crate::{check::net, tree};
use pintle_types::field::Path;
use serde_json::Value;

/// The texts of `Warning` headers about a Service.
pub(super) fn of(service: &Value) -> Vec<String> {
    const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
    let spec = &service["spec"];
    let mut found = Vec::new();
    if service["metadata"]["annotations"].get(HINTS).is_some() {
        found.push(format!("annotation {HINTS} is deprecated, please use service.kubernetes.io/topology-mode instead"));
    }
    let ip = tree::text(spec, "clusterIP");
    if !ip.is_empty() && ip != "None" {
        addresses(&mut found, spec, "clusterIPs");
    }
    if tree::text(spec, "type") == "ClusterIP" && ip == "None" {
        headless(&mut found, spec);
    }
    addresses(&mut found, spec, "externalIPs");
    found.extend(net::ip_warning(&Path::new("spec.loadBalancerIP"), tree::text(spec, "loadBalancerIP")));
    let ranges = Path::new("spec.loadBalancerSourceRanges");
    for (i, range) in tree::list(spec, "loadBalancerSourceRanges").iter().enumerate() {
        found.extend(net::cidr_warning(&ranges.index(i), range.as_str().unwrap_or("")));
    }
    let (is_name, has_name) =
        (tree::text(spec, "type") == "ExternalName", !tree::text(spec, "externalName").is_empty());
    if is_name && !tree::list(spec, "externalIPs").is_empty() {
        found.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
    }
    if !is_name && has_name {
        found.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
    if tree::text(spec, "trafficDistribution") == "PreferClose" {
        let words = "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"";
        found.push(words.to_owned());
    }
    found
}

fn addresses(found: &mut Vec<String>, spec: &Value, field: &str) {
    let path = Path::new("spec").child(field);
    for (i, ip) in tree::list(spec, field).iter().enumerate() {
        found.extend(net::ip_warning(&path.index(i), ip.as_str().unwrap_or("")));
    }
}

fn headless(found: &mut Vec<String>, spec: &Value) {
    let mut ignored = |is_set: bool, field: &str| {
        if is_set {
            found.push(format!("spec.{field} is ignored for headless services"));
        }
    };
    ignored(!tree::text(spec, "loadBalancerIP").is_empty(), "loadBalancerIP");
    ignored(!tree::list(spec, "externalIPs").is_empty(), "externalIPs");
    ignored(tree::text(spec, "sessionAffinity") != "None", "SessionAffinity");
}

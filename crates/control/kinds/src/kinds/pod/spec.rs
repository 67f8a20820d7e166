//! Validation of pod specs, in the order of upstream.

use super::{affinity, container, security, volume};
use crate::{
    check::{Errors, Seen, name, net, resource, schedule},
    tree,
};
use pintle_types::{field::Path, names};
use serde_json::Value;

/// A pod template: metadata and spec. Upstream's paths of the metadata lack the word `metadata`.
pub(crate) fn validate_template(errors: &mut Errors, path: &Path, template: &Value) {
    let metadata = &template["metadata"];
    name::labels(errors, &path.child("labels"), metadata, "labels");
    name::annotations(errors, &path.child("annotations"), metadata);
    validate(errors, &path.child("spec"), &template["spec"]);
    if !tree::list(&template["spec"], "ephemeralContainers").is_empty() {
        errors.forbidden(
            &path.child("spec").child("ephemeralContainers"),
            "ephemeral containers not allowed in pod template",
        );
    }
}

/// The whole spec.
pub(super) fn validate(errors: &mut Errors, path: &Path, spec: &Value) {
    let volumes = volume::validate_all(errors, &path.child("volumes"), tree::list(spec, "volumes"));
    resource_claims(errors, &path.child("resourceClaims"), tree::list(spec, "resourceClaims"));
    container::validate_all(errors, path, spec, &volumes);
    if tree::has(spec, "resources") {
        resource::requirements(errors, &path.child("resources"), &spec["resources"]);
    }
    policies(errors, path, spec);
    name::labels(errors, &path.child("nodeSelector"), spec, "nodeSelector");
    host_network(errors, &path.child("containers"), spec);
    security::pod(errors, &path.child("securityContext"), spec);
    for (i, secret) in tree::list(spec, "imagePullSecrets").iter().enumerate() {
        errors.needs(&path.child("imagePullSecrets").index(i).child("name"), tree::text(secret, "name"), "");
    }
    affinity::validate(errors, &path.child("affinity"), &spec["affinity"]);
    dns_config(errors, path, spec);
    gates(errors, path, spec);
    affinity::spreading(
        errors,
        &path.child("topologySpreadConstraints"),
        tree::list(spec, "topologySpreadConstraints"),
    );
    names_of_others(errors, path, spec);
    deadlines(errors, path, spec);
    host_names(errors, path, spec);
    schedule::tolerations(errors, &path.child("tolerations"), tree::list(spec, "tolerations"));
    host_aliases(errors, &path.child("hostAliases"), tree::list(spec, "hostAliases"));
    classes(errors, path, spec);
    operating_system(errors, &path.child("os"), &spec["os"]);
}

fn resource_claims(errors: &mut Errors, path: &Path, claims: &[Value]) {
    let mut seen = Seen::default();
    for (i, claim) in claims.iter().enumerate() {
        let at = path.index(i);
        let text = |key| tree::text(claim, key);
        if !errors.needs(&at.child("name"), text("name"), "") {
            continue;
        }
        if !seen.first(text("name")) {
            errors.duplicate(&at.child("name"), text("name"));
        }
        errors.invalid_for(&at.child("name"), text("name"), names::dns1123_label_errors(text("name")));
        match (tree::has(claim, "resourceClaimName"), tree::has(claim, "resourceClaimTemplateName")) {
            (true, true) => {
                let words = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                errors.invalid(&at, claim.clone(), words);
            }
            (false, false) => {
                let words = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
                errors.invalid(&at, claim.clone(), words);
            }
            _ => {}
        }
    }
}

fn policies(errors: &mut Errors, path: &Path, spec: &Value) {
    const DNS: &[&str] = &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
    let text = |key| tree::text(spec, key);
    errors.needs_one_of(&path.child("restartPolicy"), text("restartPolicy"), &["Always", "OnFailure", "Never"]);
    errors.needs_one_of(&path.child("dnsPolicy"), text("dnsPolicy"), DNS);
}

fn host_network(errors: &mut Errors, path: &Path, spec: &Value) {
    if !tree::flag(spec, "hostNetwork") {
        return;
    }
    for (i, container) in tree::list(spec, "containers").iter().enumerate() {
        for (j, port) in tree::list(container, "ports").iter().enumerate() {
            let (inside, outside) = (tree::int(port, "containerPort"), tree::int(port, "hostPort"));
            if outside != 0 && inside != outside {
                let at = path.index(i).child("ports").index(j).child("hostPort");
                errors.invalid(&at, outside, "must match `containerPort` when `hostNetwork` is true");
            }
        }
    }
}

fn dns_config(errors: &mut Errors, path: &Path, spec: &Value) {
    let at = path.child("dnsConfig");
    let config = &spec["dnsConfig"];
    let servers = tree::list(config, "nameservers");
    if tree::text(spec, "dnsPolicy") == "None" {
        if config.is_null() {
            return errors.required(&at, "must provide `dnsConfig` when `dnsPolicy` is None");
        }
        if servers.is_empty() {
            errors.required(
                &at.child("nameservers"),
                "must provide at least one DNS nameserver when `dnsPolicy` is None",
            );
            return;
        }
    }
    if servers.len() > 3 {
        errors.invalid(&at.child("nameservers"), servers.to_vec(), "must not have more than 3 nameservers");
    }
    for (i, server) in servers.iter().enumerate() {
        net::ip(errors, &at.child("nameservers").index(i), server.as_str().unwrap_or(""));
    }
    searches(errors, &at.child("searches"), tree::list(config, "searches"));
    for (i, option) in tree::list(config, "options").iter().enumerate() {
        errors.needs(&at.child("options").index(i), tree::text(option, "name"), "must not be empty");
    }
}

fn searches(errors: &mut Errors, at: &Path, searches: &[Value]) {
    let texts: Vec<&str> = searches.iter().filter_map(Value::as_str).collect();
    if texts.len() > 32 {
        errors.invalid(at, searches.to_vec(), "must not have more than 32 search paths");
    }
    if texts.join(" ").len() > 2048 {
        let words = "must not have more than 2048 characters (including spaces) in the search list";
        errors.invalid(at, searches.to_vec(), words);
    }
    for (i, search) in texts.iter().enumerate().filter(|(_, search)| **search != ".") {
        let bare = search.strip_suffix('.').unwrap_or(search);
        errors.invalid_for(&at.index(i), bare, name::subdomain_with_underscore(bare));
    }
}

fn gates(errors: &mut Errors, path: &Path, spec: &Value) {
    for (i, gate) in tree::list(spec, "readinessGates").iter().enumerate() {
        let kind = tree::text(gate, "conditionType");
        let at = path.child("readinessGates").index(i).child("conditionType");
        errors.invalid_for(&at, kind, name::qualified(kind));
    }
    let mut seen = Seen::default();
    for (i, gate) in tree::list(spec, "schedulingGates").iter().enumerate() {
        let own = tree::text(gate, "name");
        let at = path.child("schedulingGates").index(i);
        errors.invalid_for(&at, own, name::qualified(own));
        if !seen.first(own) {
            errors.duplicate(&at, own);
        }
    }
}

/// Service account and node: names of other objects.
fn names_of_others(errors: &mut Errors, path: &Path, spec: &Value) {
    for field in ["serviceAccountName", "nodeName"] {
        let name = tree::text(spec, field);
        if !name.is_empty() {
            errors.invalid_for(&path.child(field), name, names::dns1123_subdomain_errors(name));
        }
    }
}

fn deadlines(errors: &mut Errors, path: &Path, spec: &Value) {
    if let Some(seconds) = spec.get("activeDeadlineSeconds").and_then(Value::as_i64)
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        errors.invalid(&path.child("activeDeadlineSeconds"), seconds, "must be between 1 and 2147483647, inclusive");
    }
}

fn host_names(errors: &mut Errors, path: &Path, spec: &Value) {
    for field in ["hostname", "subdomain"] {
        let name = tree::text(spec, field);
        if !name.is_empty() {
            errors.invalid_for(&path.child(field), name, names::dns1123_label_errors(name));
        }
    }
}

fn host_aliases(errors: &mut Errors, path: &Path, aliases: &[Value]) {
    for (i, alias) in aliases.iter().enumerate() {
        let at = path.index(i);
        net::ip(errors, &at.child("ip"), tree::text(alias, "ip"));
        for host in tree::list(alias, "hostnames").iter().filter_map(Value::as_str) {
            errors.invalid_for(&at.child("hostnames"), host, names::dns1123_subdomain_errors(host));
        }
    }
}

fn classes(errors: &mut Errors, path: &Path, spec: &Value) {
    for field in ["priorityClassName", "runtimeClassName"] {
        let name = tree::text(spec, field);
        if !name.is_empty() {
            errors.invalid_for(&path.child(field), name, names::dns1123_subdomain_errors(name));
        }
    }
    if let Some(policy) = spec.get("preemptionPolicy").and_then(Value::as_str) {
        errors.needs_one_of(&path.child("preemptionPolicy"), policy, &["PreemptLowerPriority", "Never"]);
    }
    let overhead = path.child("overhead");
    for (resource, value) in tree::entries(spec, "overhead") {
        resource::amount(errors, &overhead.key(resource), resource, value);
    }
}

fn operating_system(errors: &mut Errors, path: &Path, os: &Value) {
    if os.is_null() {
        return;
    }
    errors.needs_one_of(&path.child("name"), tree::text(os, "name"), &["linux", "windows"]);
}

//! Validation of pod specs, in the order of upstream.

use super::{affinity, amounts, annotation, container, security, volume, windows};
use crate::{
    check::{Errors, Seen, name, net, schedule},
    tree,
};
use pintle_types::{field::Path, names};
use serde_json::Value;

/// A pod template: metadata and spec. Upstream's paths of the metadata lack the word `metadata`.
pub(crate) fn validate_template(errors: &mut Errors, path: &Path, template: &Value) {
    let (metadata, spec) = (&template["metadata"], &template["spec"]);
    name::labels(errors, &path.child("labels"), metadata, "labels");
    name::annotations(errors, &path.child("annotations"), metadata);
    annotation::validate(errors, &path.child("annotations"), metadata, spec);
    validate(errors, &path.child("spec"), spec, Owner::Template);
    annotation::match_fields(errors, &path.child("spec"), metadata, spec);
    if !tree::list(spec, "ephemeralContainers").is_empty() {
        errors.forbidden(
            &path.child("spec").child("ephemeralContainers"),
            "ephemeral containers not allowed in pod template",
        );
    }
}

/// Whose spec it is: some rules are only of pods themselves.
#[derive(Clone, Copy)]
pub(super) enum Owner<'a> {
    Template,
    /// With its name.
    Pod(&'a str),
}

/// The whole spec.
pub(super) fn validate(errors: &mut Errors, path: &Path, spec: &Value, owner: Owner<'_>) {
    let pod_name = if let Owner::Pod(name) = owner { Some(name) } else { None };
    let volumes = volume::validate_all(errors, &path.child("volumes"), tree::list(spec, "volumes"), pod_name);
    amounts::resource_claims(errors, &path.child("resourceClaims"), tree::list(spec, "resourceClaims"));
    let around = container::Surroundings { spec, volumes, claims: amounts::claim_names(spec) };
    container::validate_all(errors, path, &around);
    amounts::validate(errors, path, spec, &around.claims);
    host_network(errors, &path.child("containers"), spec, pod_name.is_some());
    policies(errors, path, spec);
    name::labels(errors, &path.child("nodeSelector"), spec, "nodeSelector");
    security::pod(errors, &path.child("securityContext"), spec);
    affinity::validate(errors, &path.child("affinity"), &spec["affinity"]);
    dns_config(errors, path, spec);
    gates(errors, path, spec);
    affinity::spreading(
        errors,
        &path.child("topologySpreadConstraints"),
        tree::list(spec, "topologySpreadConstraints"),
    );
    windows::host_processes(errors, path, spec);
    own_users(errors, path, spec);
    host_name_override(errors, &path.child("hostnameOverride"), spec);
    names_of_others(errors, path, spec);
    deadlines(errors, path, spec);
    host_names(errors, path, spec);
    schedule::tolerations(errors, &path.child("tolerations"), tree::list(spec, "tolerations"));
    host_aliases(errors, &path.child("hostAliases"), tree::list(spec, "hostAliases"));
    classes(errors, path, spec);
    amounts::overhead(errors, &path.child("overhead"), &spec["overhead"]);
    windows::operating_system(errors, path, spec);
    scheduling_group(errors, &path.child("schedulingGroup"), &spec["schedulingGroup"]);
    for (at, container) in windows::containers(path, spec) {
        container::file_key_volumes(errors, &at, container, spec);
    }
}

/// What upstream asks of pods but, for the sake of old objects, not of templates.
pub(super) fn validate_pod(errors: &mut Errors, pod: &Value) {
    let (path, spec, metadata) = (Path::new("spec"), &pod["spec"], &pod["metadata"]);
    annotation::validate(errors, &Path::new("metadata.annotations"), metadata, spec);
    validate(errors, &path, spec, Owner::Pod(tree::text(metadata, "name")));
    if tree::text(spec, "serviceAccountName").is_empty() {
        for (i, volume) in tree::list(spec, "volumes").iter().enumerate() {
            for (j, source) in tree::list(&volume["projected"], "sources").iter().enumerate() {
                if tree::has(source, "serviceAccountToken") {
                    let at = path.child("volumes").index(i).child("projected").child("sources").index(j);
                    let words = "must not be specified when serviceAccountName is not set";
                    errors.forbidden(&at.child("serviceAccountToken"), words);
                }
            }
        }
    }
    for field in ["containers", "initContainers"] {
        for (i, container) in tree::list(spec, field).iter().enumerate() {
            container::image_is_trimmed(errors, &path.child(field).index(i), container);
        }
    }
}

/// What is asked of new pods only.
pub(super) fn validate_new(errors: &mut Errors, pod: &Value) {
    let (path, spec) = (Path::new("spec"), &pod["spec"]);
    if !tree::list(spec, "ephemeralContainers").is_empty() {
        errors.forbidden(&path.child("ephemeralContainers"), "cannot be set on create");
    }
    if !tree::text(spec, "nodeName").is_empty() && !tree::list(spec, "schedulingGates").is_empty() {
        let words = "cannot be set until all schedulingGates have been cleared";
        errors.forbidden(&path.child("nodeName"), words);
    }
    annotation::match_fields(errors, &path, &pod["metadata"], spec);
}

fn policies(errors: &mut Errors, path: &Path, spec: &Value) {
    const DNS: &[&str] = &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    let text = |key| tree::text(spec, key);
    errors.needs_one_of(&path.child("restartPolicy"), text("restartPolicy"), &["Always", "OnFailure", "Never"]);
    errors.needs_one_of(&path.child("dnsPolicy"), text("dnsPolicy"), DNS);
}

/// On the host's network, ports are the host's; templates may leave them to defaulting.
fn host_network(errors: &mut Errors, path: &Path, spec: &Value, of_pod: bool) {
    if !tree::flag(spec, "hostNetwork") {
        return;
    }
    for (i, container) in tree::list(spec, "containers").iter().enumerate() {
        for (j, port) in tree::list(container, "ports").iter().enumerate() {
            let (inside, outside) = (tree::int(port, "containerPort"), tree::int(port, "hostPort"));
            if (of_pod || outside != 0) && inside != outside {
                let at = path.index(i).child("ports").index(j).child("hostPort");
                errors.invalid(&at, outside, "must match `containerPort` when `hostNetwork` is true");
            }
        }
    }
}

/// A pod with users of its own shares no other namespace with its host, nor raw devices.
fn own_users(errors: &mut Errors, path: &Path, spec: &Value) {
    const WORDS: &str = "when `hostUsers` is false";
    if spec["hostUsers"] != false {
        return;
    }
    for (field, shown) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if tree::flag(spec, field) {
            errors.forbidden(&path.child(shown), WORDS);
        }
    }
    for (at, container) in windows::containers(path, spec) {
        if !tree::list(container, "volumeDevices").is_empty() {
            errors.forbidden(&at.child("volumeDevices"), WORDS);
        }
    }
}

fn host_name_override(errors: &mut Errors, at: &Path, spec: &Value) {
    let Some(host) = spec.get("hostnameOverride").and_then(Value::as_str) else { return };
    for field in ["setHostnameAsFQDN", "hostNetwork"] {
        if tree::flag(spec, field) {
            errors.forbidden(at, &format!("may not be specified when {field} is true"));
        }
    }
    if host.len() > 64 {
        errors.too_long(at, 64);
    }
    errors.invalid_for(at, host, names::dns1123_subdomain_errors(host));
}

fn scheduling_group(errors: &mut Errors, at: &Path, group: &Value) {
    if let Some(name) = group.get("podGroupName").and_then(Value::as_str) {
        errors.invalid_for(&at.child("podGroupName"), name, names::dns1123_subdomain_errors(name));
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
        for (j, host) in tree::list(alias, "hostnames").iter().filter_map(Value::as_str).enumerate() {
            errors.invalid_for(&at.child("hostnames").index(j), host, names::dns1123_subdomain_errors(host));
        }
    }
}

fn classes(errors: &mut Errors, path: &Path, spec: &Value) {
    let priority = tree::text(spec, "priorityClassName");
    if !priority.is_empty() {
        let wrong = names::dns1123_subdomain_errors(priority);
        errors.invalid_for(&path.child("priorityClassName"), priority, wrong);
    }
    if let Some(runtime) = spec.get("runtimeClassName").and_then(Value::as_str) {
        errors.invalid_for(&path.child("runtimeClassName"), runtime, names::dns1123_subdomain_errors(runtime));
    }
    if let Some(policy) = spec.get("preemptionPolicy").and_then(Value::as_str) {
        errors.needs_one_of(&path.child("preemptionPolicy"), policy, &["PreemptLowerPriority", "Never"]);
    }
}

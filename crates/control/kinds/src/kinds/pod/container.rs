//! Validation of containers: names, images, ports, variables, mounts.

use super::{probe, security};
use crate::{
    check::{Errors, Seen, name, number, resource},
    tree,
};
use pintle_types::{field::Path, names};
use serde_json::Value;
use std::collections::HashSet;

const POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];

/// All containers of a pod: init containers, containers, ephemeral containers.
pub(super) fn validate_all(errors: &mut Errors, path: &Path, spec: &Value, volumes: &HashSet<&str>) {
    let mut names = Seen::default();
    let mut host_ports = Seen::default();
    let at = path.child("containers");
    let containers = tree::list(spec, "containers");
    if containers.is_empty() {
        errors.required(&at, "");
    }
    for (i, container) in containers.iter().enumerate() {
        let at = at.index(i);
        common(errors, &at, container, volumes);
        if !names.first(tree::text(container, "name")) {
            errors.duplicate(&at.child("name"), tree::text(container, "name"));
        }
        probe::validate_all(errors, &at, container);
        restart_policy(errors, &at, container);
    }
    for (i, container) in containers.iter().enumerate() {
        check_host_ports(errors, &at.index(i).child("ports"), container, &mut host_ports);
    }
    let at = path.child("initContainers");
    for (i, container) in tree::list(spec, "initContainers").iter().enumerate() {
        init_container(errors, &at.index(i), container, volumes, &mut names);
    }
    let at = path.child("ephemeralContainers");
    for (i, container) in tree::list(spec, "ephemeralContainers").iter().enumerate() {
        ephemeral_container(errors, &at.index(i), container, volumes, &mut names, spec);
    }
}

fn init_container(errors: &mut Errors, at: &Path, container: &Value, volumes: &HashSet<&str>, names: &mut Seen) {
    common(errors, at, container, volumes);
    restart_policy(errors, at, container);
    let own = tree::text(container, "name");
    if !own.is_empty() && !names.first(own) {
        errors.duplicate(&at.child("name"), own);
    }
    if tree::text(container, "restartPolicy") == "Always" {
        return probe::validate_all(errors, at, container);
    }
    for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
        if tree::has(container, field) {
            errors.forbidden(&at.child(field), "may not be set for init containers without restartPolicy=Always");
        }
    }
}

fn ephemeral_container(
    errors: &mut Errors,
    at: &Path,
    container: &Value,
    volumes: &HashSet<&str>,
    names: &mut Seen,
    spec: &Value,
) {
    common(errors, at, container, volumes);
    let own = tree::text(container, "name");
    if !names.first(own) {
        errors.duplicate(&at.child("name"), own);
    }
    let target = tree::text(container, "targetContainerName");
    let all = tree::list(spec, "containers").iter().chain(tree::list(spec, "initContainers"));
    if !target.is_empty() && !all.into_iter().any(|one| tree::text(one, "name") == target) {
        errors.not_found(&at.child("targetContainerName"), target);
    }
    for field in ["ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "resources"] {
        if !tree::is_empty(&container[field]) {
            errors.forbidden(&at.child(field), "cannot be set for an Ephemeral Container");
        }
    }
}

fn restart_policy(errors: &mut Errors, at: &Path, container: &Value) {
    if let Some(policy) = container.get("restartPolicy").and_then(Value::as_str) {
        errors.one_of(&at.child("restartPolicy"), policy, &["Always", "Never", "OnFailure"]);
    }
}

fn common(errors: &mut Errors, at: &Path, container: &Value, volumes: &HashSet<&str>) {
    let text = |key| tree::text(container, key);
    if errors.needs(&at.child("name"), text("name"), "") {
        errors.invalid_for(&at.child("name"), text("name"), names::dns1123_label_errors(text("name")));
    }
    if errors.needs(&at.child("image"), text("image"), "") && text("image").trim() != text("image") {
        errors.invalid(&at.child("image"), text("image"), "must not have leading or trailing whitespace");
    }
    errors.needs_one_of(
        &at.child("terminationMessagePolicy"),
        text("terminationMessagePolicy"),
        &["File", "FallbackToLogsOnError"],
    );
    ports(errors, &at.child("ports"), tree::list(container, "ports"));
    variables(errors, &at.child("env"), tree::list(container, "env"));
    variable_sources(errors, &at.child("envFrom"), tree::list(container, "envFrom"));
    mounts(errors, &at.child("volumeMounts"), container, volumes);
    devices(errors, &at.child("volumeDevices"), tree::list(container, "volumeDevices"), volumes);
    errors.needs_one_of(&at.child("imagePullPolicy"), text("imagePullPolicy"), POLICIES);
    resource::requirements(errors, &at.child("resources"), &container["resources"]);
    resize_policy(errors, &at.child("resizePolicy"), tree::list(container, "resizePolicy"));
    security::container(errors, &at.child("securityContext"), &container["securityContext"]);
}

fn resize_policy(errors: &mut Errors, at: &Path, policies: &[Value]) {
    let mut seen = Seen::default();
    for policy in policies {
        let name = tree::text(policy, "resourceName");
        if !seen.first(name) {
            errors.duplicate(at, name);
        }
        errors.needs_one_of(at, name, &["cpu", "memory"]);
        errors.needs_one_of(at, tree::text(policy, "restartPolicy"), &["NotRequired", "RestartContainer"]);
    }
}

fn ports(errors: &mut Errors, path: &Path, ports: &[Value]) {
    let mut seen = Seen::default();
    for (i, port) in ports.iter().enumerate() {
        let at = path.index(i);
        let name = tree::text(port, "name");
        let wrong = if name.is_empty() { Vec::new() } else { number::port_name(name) };
        if !wrong.is_empty() {
            errors.invalid_for(&at.child("name"), name, wrong);
        } else if !name.is_empty() && !seen.first(name) {
            errors.duplicate(&at.child("name"), name);
        }
        match tree::int(port, "containerPort") {
            0 => errors.required(&at.child("containerPort"), ""),
            number => number::port(errors, &at.child("containerPort"), number),
        }
        let host = tree::int(port, "hostPort");
        if host != 0 {
            number::port(errors, &at.child("hostPort"), host);
        }
        errors.needs_one_of(&at.child("protocol"), tree::text(port, "protocol"), &["SCTP", "TCP", "UDP"]);
    }
}

fn check_host_ports(errors: &mut Errors, path: &Path, container: &Value, seen: &mut Seen) {
    for (i, port) in tree::list(container, "ports").iter().enumerate() {
        let host = tree::int(port, "hostPort");
        if host == 0 {
            continue;
        }
        let key = format!("{}/{}/{host}", tree::text(port, "protocol"), tree::text(port, "hostIP"));
        if !seen.first(&*key) {
            errors.duplicate(&path.index(i).child("hostPort"), key);
        }
    }
}

fn variables(errors: &mut Errors, path: &Path, variables: &[Value]) {
    for (i, variable) in variables.iter().enumerate() {
        let at = path.index(i);
        let own = tree::text(variable, "name");
        if errors.needs(&at.child("name"), own, "") {
            errors.invalid_for(&at.child("name"), own, name::env_var(own));
        }
        if tree::has(variable, "valueFrom") {
            variable_source(errors, &at.child("valueFrom"), variable);
        }
    }
}

fn variable_source(errors: &mut Errors, at: &Path, variable: &Value) {
    const SOURCES: &[&str] = &["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
    let from = &variable["valueFrom"];
    let found: Vec<_> = SOURCES.iter().filter(|source| tree::has(from, source)).collect();
    for source in &found {
        let at = at.child(source);
        match **source {
            "fieldRef" => field_ref(errors, &at, &from["fieldRef"], ENV_FIELDS),
            "resourceFieldRef" => resource_ref(errors, &at, &from["resourceFieldRef"], false),
            _ => key_ref(errors, &at, &from[**source]),
        }
    }
    match found.len() {
        0 => {
            let words = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or \
                         `fileKeyRef`";
            errors.invalid(at, "", words);
        }
        _ if !tree::text(variable, "value").is_empty() => {
            errors.invalid(at, "", "may not be specified when `value` is not empty");
        }
        1 => {}
        _ => errors.invalid(at, "", "may not have more than one field specified at a time"),
    }
}

fn key_ref(errors: &mut Errors, at: &Path, reference: &Value) {
    if tree::has(reference, "volumeName") || tree::has(reference, "path") {
        return;
    }
    let text = |key| tree::text(reference, key);
    errors.invalid_for(&at.child("name"), text("name"), names::dns1123_subdomain_errors(text("name")));
    if errors.needs(&at.child("key"), text("key"), "") {
        errors.invalid_for(&at.child("key"), text("key"), name::config_key(text("key")));
    }
}

const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
pub(super) const FILE_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
const OTHER_FIELDS: &[&str] = &["spec.host", "spec.restartPolicy", "spec.schedulerName", "status.phase"];

/// A reference to a field of the pod, of which only some may be used.
pub(super) fn field_ref(errors: &mut Errors, at: &Path, reference: &Value, allowed: &[&str]) {
    errors.needs(&at.child("apiVersion"), tree::text(reference, "apiVersion"), "");
    let at = at.child("fieldPath");
    let field = tree::text(reference, "fieldPath");
    if !errors.needs(&at, field, "") {
        return;
    }
    if let Some((map, key)) = field.strip_suffix("']").and_then(|rest| rest.split_once("['")) {
        return subscript(errors, &at, field, map, key);
    }
    let known = ENV_FIELDS.iter().chain(FILE_FIELDS).chain(OTHER_FIELDS).any(|known| *known == field);
    if !known {
        errors.invalid(&at, field, &format!("error converting fieldPath: field label not supported: {field}"));
    } else if !allowed.contains(&field) {
        errors.unsupported(&at, field, allowed);
    }
}

fn subscript(errors: &mut Errors, at: &Path, field: &str, map: &str, key: &str) {
    match map {
        "metadata.annotations" => errors.invalid_for(at, key, name::qualified(&key.to_lowercase())),
        "metadata.labels" => errors.invalid_for(at, key, name::qualified(key)),
        _ => errors.invalid(at, field, "does not support subscript"),
    }
}

/// A reference to a container's request or limit.
pub(super) fn resource_ref(errors: &mut Errors, at: &Path, reference: &Value, in_file: bool) {
    const ALLOWED: &[&str] = &[
        "limits.cpu",
        "limits.ephemeral-storage",
        "limits.memory",
        "requests.cpu",
        "requests.ephemeral-storage",
        "requests.memory",
    ];
    let text = |key| tree::text(reference, key);
    if in_file && text("containerName").is_empty() {
        return errors.required(&at.child("containerName"), "");
    }
    let resource = text("resource");
    if !errors.needs(&at.child("resource"), resource, "") {
        return;
    }
    let huge = resource.starts_with("requests.hugepages-") || resource.starts_with("limits.hugepages-");
    if !huge && !ALLOWED.contains(&resource) {
        errors.unsupported(&at.child("resource"), resource, ALLOWED);
    }
}

fn variable_sources(errors: &mut Errors, path: &Path, sources: &[Value]) {
    for (i, source) in sources.iter().enumerate() {
        let at = path.index(i);
        let prefix = tree::text(source, "prefix");
        if !prefix.is_empty() {
            errors.invalid_for(&at.child("prefix"), prefix, name::env_var(prefix));
        }
        let found: Vec<_> = ["configMapRef", "secretRef"].into_iter().filter(|kind| tree::has(source, kind)).collect();
        for kind in &found {
            let at = at.child(kind).child("name");
            let own = tree::text(&source[*kind], "name");
            if errors.needs(&at, own, "") {
                errors.invalid_for(&at, own, names::dns1123_subdomain_errors(own));
            }
        }
        match found.len() {
            0 => errors.invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => errors.invalid(path, "", "may not have more than one field specified at a time"),
        }
    }
}

fn mounts(errors: &mut Errors, path: &Path, container: &Value, volumes: &HashSet<&str>) {
    let mut seen = Seen::default();
    let devices: HashSet<&str> =
        tree::list(container, "volumeDevices").iter().map(|device| tree::text(device, "devicePath")).collect();
    for (i, mount) in tree::list(container, "volumeMounts").iter().enumerate() {
        let at = path.index(i);
        let text = |key| tree::text(mount, key);
        errors.needs(&at.child("name"), text("name"), "");
        if !volumes.contains(text("name")) {
            errors.not_found(&at.child("name"), text("name"));
        }
        let target = text("mountPath");
        errors.needs(&at.child("mountPath"), target, "");
        if !seen.first(target) {
            errors.invalid(&at.child("mountPath"), target, "must be unique");
        }
        if devices.contains(target) {
            errors.invalid(&at.child("mountPath"), target, "must not already exist as a path in volumeDevices");
        }
        for field in ["subPath", "subPathExpr"] {
            if !text(field).is_empty() {
                name::local_path(errors, &at.child(field), text(field));
            }
        }
        if !text("subPath").is_empty() && !text("subPathExpr").is_empty() {
            errors.invalid(
                &at.child("subPathExpr"),
                text("subPathExpr"),
                "subPathExpr and subPath are mutually exclusive",
            );
        }
        propagation(errors, &at, mount, container);
    }
}

fn propagation(errors: &mut Errors, at: &Path, mount: &Value, container: &Value) {
    const KNOWN: &[&str] = &["Bidirectional", "HostToContainer", "None"];
    let Some(mode) = mount.get("mountPropagation").and_then(Value::as_str) else { return };
    let at = at.child("mountPropagation");
    errors.one_of(&at, mode, KNOWN);
    let privileged = container["securityContext"]["privileged"] == true;
    if mode == "Bidirectional" && !privileged {
        errors.forbidden(&at, "Bidirectional mount propagation is available only to privileged containers");
    }
}

fn devices(errors: &mut Errors, path: &Path, devices: &[Value], volumes: &HashSet<&str>) {
    let (mut names, mut paths) = (Seen::default(), Seen::default());
    for (i, device) in devices.iter().enumerate() {
        let at = path.index(i);
        let (own, target) = (tree::text(device, "name"), tree::text(device, "devicePath"));
        if errors.needs(&at.child("name"), own, "") && !volumes.contains(own) {
            errors.not_found(&at.child("name"), own);
        }
        if !names.first(own) {
            errors.invalid(&at.child("name"), own, "must be unique");
        }
        if !errors.needs(&at.child("devicePath"), target, "") {
            continue;
        }
        if !paths.first(target) {
            errors.invalid(&at.child("devicePath"), target, "must be unique");
        }
        name::no_backsteps(errors, &at.child("devicePath"), target);
    }
}

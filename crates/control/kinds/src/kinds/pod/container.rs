//! Validation of containers: names, images, ports, variables, mounts.

use super::{probe, restart, security, volume::Volumes};
use crate::{
    check::{Errors, Seen, name, number, resource},
    tree,
};
use pintle_types::{field::Path, names};
use serde_json::Value;

const POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];

/// What the containers of a pod are checked against.
pub(super) struct Surroundings<'a> {
    pub spec: &'a Value,
    pub volumes: Volumes<'a>,
    /// The names of the pod's resource claims.
    pub claims: Vec<&'a str>,
}

impl Surroundings<'_> {
    /// Whether the pod shares the user namespace of its host.
    fn host_users(&self) -> bool {
        self.spec["hostUsers"] != false
    }
}

/// All containers of a pod: containers, init containers, ephemeral containers.
pub(super) fn validate_all(errors: &mut Errors, path: &Path, around: &Surroundings<'_>) {
    let spec = around.spec;
    let mut names = Seen::default();
    let at = path.child("containers");
    let containers = tree::list(spec, "containers");
    if containers.is_empty() {
        errors.required(&at, "");
    }
    for (i, container) in containers.iter().enumerate() {
        let at = at.index(i);
        common(errors, &at, container, around);
        if !names.first(tree::text(container, "name")) {
            errors.duplicate(&at.child("name"), tree::text(container, "name"));
        }
        probe::validate_all(errors, &at, container, spec);
        restart::rules(errors, &at, container);
    }
    let mut host_ports = Seen::default();
    for (i, container) in containers.iter().enumerate() {
        check_host_ports(errors, &at.index(i).child("ports"), container, &mut host_ports);
    }
    let at = path.child("initContainers");
    for (i, container) in tree::list(spec, "initContainers").iter().enumerate() {
        init_container(errors, &at, i, container, around, &mut names);
    }
    let at = path.child("ephemeralContainers");
    for (i, container) in tree::list(spec, "ephemeralContainers").iter().enumerate() {
        ephemeral_container(errors, &at.index(i), container, around, &mut names);
    }
}

fn init_container(
    errors: &mut Errors,
    path: &Path,
    index: usize,
    container: &Value,
    around: &Surroundings<'_>,
    names: &mut Seen,
) {
    let at = path.index(index);
    common(errors, &at, container, around);
    restart::rules(errors, &at, container);
    let own = tree::text(container, "name");
    if !names.first(own) && !own.is_empty() {
        errors.duplicate(&at.child("name"), own);
    }
    // They run one by one, so that only the ports of one can be in each other's way; upstream names the first.
    check_host_ports(errors, &path.index(0).child("ports"), container, &mut Seen::default());
    if tree::text(container, "restartPolicy") == "Always" {
        return probe::validate_all(errors, &at, container, around.spec);
    }
    for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
        if tree::has(container, field) {
            errors.forbidden(&at.child(field), "may not be set for init containers without restartPolicy=Always");
        }
    }
    for (j, policy) in tree::list(container, "resizePolicy").iter().enumerate() {
        let restart = tree::text(policy, "restartPolicy");
        if restart == "RestartContainer" {
            let words = "must not be set to 'RestartContainer' for non-sidecar initContainers";
            errors.invalid(&at.child("resizePolicy").index(j).child("restartPolicy"), restart, words);
        }
    }
}

fn ephemeral_container(errors: &mut Errors, at: &Path, container: &Value, around: &Surroundings<'_>, names: &mut Seen) {
    const WORDS: &str = "cannot be set for an Ephemeral Container";
    common(errors, at, container, around);
    image_is_trimmed(errors, at, container);
    let own = tree::text(container, "name");
    if !names.first(own) {
        errors.duplicate(&at.child("name"), own);
    }
    let target = tree::text(container, "targetContainerName");
    let all = tree::list(around.spec, "containers").iter().chain(tree::list(around.spec, "initContainers"));
    if !target.is_empty() && !all.into_iter().any(|one| tree::text(one, "name") == target) {
        errors.not_found(&at.child("targetContainerName"), target);
    }
    for field in [
        "ports",
        "resources",
        "resizePolicy",
        "restartPolicy",
        "restartPolicyRules",
        "livenessProbe",
        "readinessProbe",
        "startupProbe",
        "lifecycle",
    ] {
        if !tree::is_empty(&container[field]) {
            errors.forbidden(&at.child(field), WORDS);
        }
    }
    for (i, mount) in tree::list(container, "volumeMounts").iter().enumerate() {
        for field in ["subPath", "subPathExpr"].into_iter().filter(|field| !tree::text(mount, field).is_empty()) {
            errors.forbidden(&at.child("volumeMounts").index(i).child(field), WORDS);
        }
    }
}

/// Templates may have any image that is not empty.
pub(super) fn image_is_trimmed(errors: &mut Errors, at: &Path, container: &Value) {
    let image = tree::text(container, "image");
    if image.trim() != image {
        errors.invalid(&at.child("image"), image, "must not have leading or trailing whitespace");
    }
}

fn common(errors: &mut Errors, at: &Path, container: &Value, around: &Surroundings<'_>) {
    let text = |key| tree::text(container, key);
    if errors.needs(&at.child("name"), text("name"), "") {
        errors.invalid_for(&at.child("name"), text("name"), names::dns1123_label_errors(text("name")));
    }
    errors.needs(&at.child("image"), text("image"), "");
    errors.needs_one_of(
        &at.child("terminationMessagePolicy"),
        text("terminationMessagePolicy"),
        &["File", "FallbackToLogsOnError"],
    );
    ports(errors, &at.child("ports"), tree::list(container, "ports"));
    variables(errors, &at.child("env"), tree::list(container, "env"));
    variable_sources(errors, &at.child("envFrom"), tree::list(container, "envFrom"));
    mounts(errors, &at.child("volumeMounts"), container, &around.volumes);
    devices(errors, &at.child("volumeDevices"), container, &around.volumes);
    errors.needs_one_of(&at.child("imagePullPolicy"), text("imagePullPolicy"), POLICIES);
    resource::requirements(errors, &at.child("resources"), &container["resources"], &around.claims);
    restart::resize_policy(errors, &at.child("resizePolicy"), container, around.spec);
    security::container(errors, &at.child("securityContext"), &container["securityContext"], around.host_users());
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
            "fileKeyRef" => file_key_ref(errors, &at, &from["fileKeyRef"]),
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
    let text = |key| tree::text(reference, key);
    errors.invalid_for(&at.child("name"), text("name"), names::dns1123_subdomain_errors(text("name")));
    if errors.needs(&at.child("key"), text("key"), "") {
        errors.invalid_for(&at.child("key"), text("key"), name::config_key(text("key")));
    }
}

fn file_key_ref(errors: &mut Errors, at: &Path, reference: &Value) {
    let text = |key| tree::text(reference, key);
    if errors.needs(&at.child("key"), text("key"), "") {
        errors.invalid_for(&at.child("key"), text("key"), name::env_var(text("key")));
    }
    if errors.needs(&at.child("volumeName"), text("volumeName"), "") {
        let wrong = names::dns1123_label_errors(text("volumeName"));
        errors.invalid_for(&at.child("volumeName"), text("volumeName"), wrong);
    }
    if errors.needs(&at.child("path"), text("path"), "") {
        name::no_backsteps(errors, &at.child("path"), text("path"));
    }
}

/// Files with variables are read from volumes that only the pod itself writes.
pub(super) fn file_key_volumes(errors: &mut Errors, path: &Path, container: &Value, spec: &Value) {
    for (i, variable) in tree::list(container, "env").iter().enumerate() {
        let reference = &variable["valueFrom"]["fileKeyRef"];
        if reference.is_null() {
            continue;
        }
        let at = path.child("env").index(i).child("valueFrom").child("fileKeyRef").child("volumeName");
        let own = tree::text(reference, "volumeName");
        match tree::list(spec, "volumes").iter().rfind(|volume| tree::text(volume, "name") == own) {
            None => errors.not_found(&at, own),
            Some(volume) if !tree::has(volume, "emptyDir") => {
                errors.invalid(&at, own, "referenced volume must be of type emptyDir");
            }
            Some(_) => {}
        }
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
    let (version, field) = (tree::text(reference, "apiVersion"), tree::text(reference, "fieldPath"));
    if !errors.needs(&at.child("apiVersion"), version, "") || !errors.needs(&at.child("fieldPath"), field, "") {
        return;
    }
    let path = at.child("fieldPath");
    let cannot = |why: &str| format!("error converting fieldPath: {why}");
    if version != "v1" {
        return errors.invalid(&path, field, &cannot(&format!("unsupported pod version: {version}")));
    }
    if let Some((map, key)) = field.strip_suffix("']").and_then(|rest| rest.split_once("['")) {
        return match map {
            "metadata.annotations" => errors.invalid_for(at, &key.to_lowercase(), name::qualified(&key.to_lowercase())),
            "metadata.labels" => errors.invalid_for(at, key, name::qualified(key)),
            _ => errors.invalid(&path, field, &cannot(&format!("field label does not support subscript: {field}"))),
        };
    }
    let known = ENV_FIELDS.iter().chain(FILE_FIELDS).chain(OTHER_FIELDS).any(|known| *known == field);
    let meant = if field == "spec.host" { "spec.nodeName" } else { field };
    if !known {
        errors.invalid(&path, field, &cannot(&format!("field label not supported: {field}")));
    } else if !allowed.contains(&meant) {
        errors.unsupported(&path, meant, allowed);
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
    let resource = text("resource");
    let huge = resource.starts_with("requests.hugepages-") || resource.starts_with("limits.hugepages-");
    if in_file && text("containerName").is_empty() {
        errors.required(&at.child("containerName"), "");
    } else if errors.needs(&at.child("resource"), resource, "") && !huge && !ALLOWED.contains(&resource) {
        errors.unsupported(&at.child("resource"), resource, ALLOWED);
    }
    divisor(errors, &at.child("divisor"), resource, &reference["divisor"]);
}

/// The unit in which an amount is told.
fn divisor(errors: &mut Errors, at: &Path, resource: &str, value: &Value) {
    const UNITS: &[&str] = &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
    let Some(unit) = resource::quantity(value).filter(|unit| !unit.is_zero()).map(|unit| unit.to_string()) else {
        return;
    };
    let kind = match resource.split_once('.') {
        Some((_, "cpu")) if unit == "1m" || unit == "1" => return,
        Some((_, "cpu")) => {
            let words = "only divisor's values 1m and 1 are supported with the cpu resource";
            return errors.invalid(at, resource, words);
        }
        Some((_, "memory")) => "memory",
        Some((_, "ephemeral-storage")) => "local ephemeral storage",
        Some((_, rest)) if rest.starts_with("hugepages-") => "hugepages",
        _ => return,
    };
    if !UNITS.contains(&unit.as_str()) {
        let words = format!("only divisor's values {} are supported with the {kind} resource", UNITS.join(", "));
        errors.invalid(at, resource, &words);
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

fn mounts(errors: &mut Errors, path: &Path, container: &Value, volumes: &Volumes<'_>) {
    let mut seen = Seen::default();
    let devices = tree::list(container, "volumeDevices");
    let taken = |field: &str, text: &str| devices.iter().any(|device| tree::text(device, field) == text);
    for (i, mount) in tree::list(container, "volumeMounts").iter().enumerate() {
        let at = path.index(i);
        let text = |key| tree::text(mount, key);
        let (own, target) = (text("name"), text("mountPath"));
        errors.needs(&at.child("name"), own, "");
        if !volumes.contains_key(own) {
            errors.not_found(&at.child("name"), own);
        }
        errors.needs(&at.child("mountPath"), target, "");
        if !seen.first(target) {
            errors.invalid(&at.child("mountPath"), target, "must be unique");
        }
        if taken("name", own) {
            errors.invalid(&at.child("name"), own, "must not already exist in volumeDevices");
        }
        if taken("devicePath", target) {
            errors.invalid(&at.child("mountPath"), target, "must not already exist as a path in volumeDevices");
        }
        // Upstream does not say which mount it means from here on.
        name::local_path(errors, &path.child("subPath"), text("subPath"));
        if !text("subPathExpr").is_empty() && !text("subPath").is_empty() {
            let words = "subPathExpr and subPath are mutually exclusive";
            errors.invalid(&at.child("subPathExpr"), text("subPathExpr"), words);
        }
        name::local_path(errors, &path.child("subPathExpr"), text("subPathExpr"));
        propagation(errors, &path.child("mountPropagation"), mount, container);
        recursive_read_only(errors, &path.child("recursiveReadOnly"), mount);
    }
}

fn propagation(errors: &mut Errors, at: &Path, mount: &Value, container: &Value) {
    const KNOWN: &[&str] = &["Bidirectional", "HostToContainer", "None"];
    let Some(mode) = mount.get("mountPropagation").and_then(Value::as_str) else { return };
    errors.one_of(at, mode, KNOWN);
    let privileged = container["securityContext"]["privileged"] == true;
    if mode == "Bidirectional" && !privileged {
        errors.forbidden(at, "Bidirectional mount propagation is available only to privileged containers");
    }
}

fn recursive_read_only(errors: &mut Errors, at: &Path, mount: &Value) {
    let Some(mode) = mount.get("recursiveReadOnly").and_then(Value::as_str) else { return };
    errors.one_of(at, mode, &["Disabled", "Enabled", "IfPossible"]);
    if !matches!(mode, "Enabled" | "IfPossible") {
        return;
    }
    if !tree::flag(mount, "readOnly") {
        errors.forbidden(at, "may only be specified when readOnly is true");
    }
    if mount.get("mountPropagation").is_some_and(|propagation| propagation != "None") {
        errors.forbidden(at, "may only be specified when mountPropagation is None or not specified");
    }
}

fn devices(errors: &mut Errors, path: &Path, container: &Value, volumes: &Volumes<'_>) {
    let (mut names, mut paths) = (Seen::default(), Seen::default());
    let mounts = tree::list(container, "volumeMounts");
    let taken = |field: &str, text: &str| mounts.iter().any(|mount| tree::text(mount, field) == text);
    for (i, device) in tree::list(container, "volumeDevices").iter().enumerate() {
        let (own, target) = (tree::text(device, "name"), tree::text(device, "devicePath"));
        let (at, at_path) = (path.index(i).child("name"), path.index(i).child("devicePath"));
        errors.needs(&at, own, "");
        if !own.is_empty() && !names.first(own) {
            errors.invalid(&at, own, "must be unique");
        }
        match volumes.get(own) {
            None => errors.not_found(&at, own),
            Some(volume) if tree::has(volume, "persistentVolumeClaim") || tree::has(volume, "ephemeral") => {}
            Some(_) => {
                let words = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.invalid(&at, own, words);
            }
        }
        errors.needs(&at_path, target, "");
        let backsteps = target.replace('\\', "/").split('/').any(|part| part == "..");
        if !backsteps && !paths.first(target) {
            errors.invalid(&at_path, target, "must be unique");
        }
        if backsteps {
            errors.invalid(&at_path, target, "can not contain backsteps ('..')");
        }
        if taken("name", own) {
            errors.invalid(&at, own, "must not already exist in volumeMounts");
        }
        if taken("mountPath", target) {
            errors.invalid(&at_path, target, "must not already exist as a path in volumeMounts");
        }
    }
}

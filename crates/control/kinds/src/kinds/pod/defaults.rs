//! What upstream fills into pods and pod templates.

use crate::tree::{child, copy, default_empty, default_to, existing, has, is_empty, items_mut, list, set, text};
use serde_json::{Value, json};

/// Defaults of a pod: those of its spec and some that templates don't get.
pub(super) fn default_pod(pod: &mut Value) {
    if let Some(spec) = child(pod, "spec") {
        default_to(spec, "enableServiceLinks", true);
        for field in ["containers", "initContainers"] {
            items_mut(spec, field).for_each(default_requests);
        }
        if let Some(resources) = existing(spec, "resources") {
            limits_to_requests(resources);
        }
        if spec["hostNetwork"] == true {
            default_host_ports(spec);
        }
        default_spec(spec);
    }
    if let Some(status) = existing(pod, "status") {
        sync_addresses(status, "podIP", "podIPs");
        sync_addresses(status, "hostIP", "hostIPs");
    }
}

/// Defaults of a pod template inside another kind.
pub(crate) fn default_template(template: &mut Value) {
    if let Some(spec) = child(template, "spec") {
        default_spec(spec);
    }
}

fn default_requests(container: &mut Value) {
    if let Some(resources) = existing(container, "resources") {
        limits_to_requests(resources);
    }
}

fn limits_to_requests(resources: &mut Value) {
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else { return };
    if limits.is_empty() {
        return;
    }
    if let Some(requests) = child(resources, "requests") {
        for (name, amount) in limits {
            default_to(requests, &name, amount);
        }
    }
}

fn default_host_ports(spec: &mut Value) {
    for field in ["containers", "initContainers"] {
        for container in items_mut(spec, field) {
            for port in items_mut(container, "ports") {
                let number = port["containerPort"].clone();
                default_empty(port, "hostPort", number);
            }
        }
    }
}

/// One of the two fields decides when only it is there: the old single address and the list.
fn sync_addresses(status: &mut Value, one: &str, many: &str) {
    if list(status, many).is_empty() {
        let address = text(status, one).to_owned();
        if !address.is_empty() {
            set(status, many, json!([{"ip": address}]));
        }
    } else {
        let first = status[many][0]["ip"].clone();
        set(status, one, first);
    }
}

fn default_spec(spec: &mut Value) {
    default_empty(spec, "dnsPolicy", "ClusterFirst");
    default_empty(spec, "restartPolicy", "Always");
    default_to(spec, "securityContext", json!({}));
    default_to(spec, "terminationGracePeriodSeconds", 30);
    default_empty(spec, "schedulerName", "default-scheduler");
    default_service_account(spec);
    for field in ["initContainers", "containers", "ephemeralContainers"] {
        items_mut(spec, field).for_each(default_container);
    }
    items_mut(spec, "volumes").for_each(default_volume);
}

/// `serviceAccount` is the old name of `serviceAccountName`; both are shown.
fn default_service_account(spec: &mut Value) {
    if text(spec, "serviceAccountName").is_empty() && !text(spec, "serviceAccount").is_empty() {
        let old = spec["serviceAccount"].clone();
        set(spec, "serviceAccountName", old);
    }
    if !text(spec, "serviceAccountName").is_empty() {
        let name = spec["serviceAccountName"].clone();
        set(spec, "serviceAccount", name);
    }
}

fn default_container(container: &mut Value) {
    let policy = pull_policy(text(container, "image"));
    default_empty(container, "imagePullPolicy", policy);
    default_empty(container, "terminationMessagePath", "/dev/termination-log");
    default_empty(container, "terminationMessagePolicy", "File");
    default_to(container, "resources", json!({}));
    items_mut(container, "ports").for_each(|port| default_empty(port, "protocol", "TCP"));
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = existing(container, probe) {
            default_probe(probe);
        }
    }
    if let Some(lifecycle) = existing(container, "lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(hook) = existing(lifecycle, hook) {
                default_http_get(hook);
            }
        }
    }
    for variable in items_mut(container, "env") {
        if let Some(from) = existing(variable, "valueFrom") {
            default_downward(from);
        }
    }
}

/// An image of the tag `latest`, said or not, is always pulled; so is nothing that isn't the name of an image.
fn pull_policy(image: &str) -> &'static str {
    const LONGEST: usize = 255;
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let start = name.rfind('/').map_or(0, |slash| slash + 1);
    let (repository, tag) = match name[start..].find(':') {
        Some(colon) => (&name[..start + colon], Some(&name[start + colon + 1..])),
        None => (name, None),
    };
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-/:".contains(c);
    let named = !repository.is_empty() && repository.len() <= LONGEST && repository.chars().all(plain);
    match (named, tag, digest) {
        (true, Some("latest"), _) | (true, None, None) => "Always",
        _ => "IfNotPresent",
    }
}

fn default_probe(probe: &mut Value) {
    for (field, value) in
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        default_empty(probe, field, value);
    }
    default_http_get(probe);
    if let Some(grpc) = existing(probe, "grpc") {
        default_to(grpc, "service", "");
    }
}

fn default_http_get(handler: &mut Value) {
    if let Some(get) = existing(handler, "httpGet") {
        default_empty(get, "path", "/");
        default_empty(get, "scheme", "HTTP");
    }
}

/// The references of the downward API, in variables and in files.
fn default_downward(from: &mut Value) {
    if let Some(field) = existing(from, "fieldRef") {
        default_empty(field, "apiVersion", "v1");
    }
    if let Some(resource) = existing(from, "resourceFieldRef") {
        default_to(resource, "divisor", "0");
    }
}

/// The default mode of files made from objects: 0644.
const FILE_MODE: i64 = 0o644;

fn default_volume(volume: &mut Value) {
    let has_source =
        volume.as_object().is_some_and(|fields| fields.iter().any(|(key, v)| key != "name" && !v.is_null()));
    if !has_source {
        set(volume, "emptyDir", json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = existing(volume, source) {
            default_to(source, "defaultMode", FILE_MODE);
        }
    }
    if let Some(api) = existing(volume, "downwardAPI") {
        items_mut(api, "items").for_each(default_downward);
    }
    if let Some(projected) = existing(volume, "projected") {
        items_mut(projected, "sources").for_each(default_projection);
    }
    if let Some(path) = existing(volume, "hostPath") {
        default_to(path, "type", "");
    }
    if let Some(image) = existing(volume, "image") {
        let policy = pull_policy(text(image, "reference"));
        default_empty(image, "pullPolicy", policy);
    }
    if let Some(template) = existing(volume, "ephemeral").and_then(|e| existing(e, "volumeClaimTemplate")) {
        default_claim_template(template);
    }
    default_network_volume(volume);
}

fn default_projection(source: &mut Value) {
    if let Some(token) = existing(source, "serviceAccountToken") {
        default_to(token, "expirationSeconds", 3600);
    }
    if let Some(api) = existing(source, "downwardAPI") {
        items_mut(api, "items").for_each(default_downward);
    }
}

/// Defaults of volumes that older plug-ins provide, in pods and in persistent volumes.
pub(crate) fn default_network_volume(volume: &mut Value) {
    const DEFAULTS: &[(&str, &[(&str, &str)])] = &[
        ("iscsi", &[("iscsiInterface", "default")]),
        ("rbd", &[("pool", "rbd"), ("user", "admin"), ("keyring", "/etc/ceph/keyring")]),
        ("scaleIO", &[("storageMode", "ThinProvisioned"), ("fsType", "xfs")]),
        ("azureDisk", &[("cachingMode", "ReadWrite"), ("fsType", "ext4"), ("kind", "Shared")]),
    ];
    for (source, fields) in DEFAULTS {
        if let Some(source) = existing(volume, source) {
            fields.iter().for_each(|(field, value)| default_empty(source, field, *value));
        }
    }
    if let Some(disk) = existing(volume, "azureDisk") {
        default_to(disk, "readOnly", false);
    }
}

/// Defaults of the claim inside an ephemeral volume or a claim itself.
pub(crate) fn default_claim_template(template: &mut Value) {
    if let Some(spec) = child(template, "spec") {
        default_to(spec, "volumeMode", "Filesystem");
        sync_data_source(spec);
    }
}

/// `dataSource` and `dataSourceRef` say the same when only one of them is given.
pub(crate) fn sync_data_source(spec: &mut Value) {
    if has(spec, "dataSource") && !has(spec, "dataSourceRef") {
        let source = spec["dataSource"].clone();
        set(spec, "dataSourceRef", source);
    } else if has(spec, "dataSourceRef") && !has(spec, "dataSource") && is_empty(&spec["dataSourceRef"]["namespace"]) {
        let source = spec.clone();
        let mut reference = json!({});
        for key in ["apiGroup", "kind", "name"] {
            copy(&mut reference, &source["dataSourceRef"], key);
        }
        set(spec, "dataSource", reference);
    }
}

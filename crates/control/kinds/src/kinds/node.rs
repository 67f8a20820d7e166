//! Nodes: their taints and networks, and how tables show their state.

use super::workload;
use crate::{
    check::{Errors, Seen, name, net, resource, schedule},
    column::{self, Column},
    strategy::Strategy,
    tree,
};
use jiff::Timestamp;
use pintle_types::field::{ErrorList, Path};
use serde_json::{Value, json};

pub struct Node;

const ADDRESSES: &str = "List of addresses reachable to the node. Queried from cloud provider, if available. More info: \
     https://kubernetes.io/docs/reference/node/node-status/#addresses Note: This field is declared as \
     mergeable, but the merge key is not sufficiently unique, which can cause data corruption when it is \
     merged. Callers should instead use a full-replacement patch. See https://pr.k8s.io/79391 for an \
     example. Consumers should assume that addresses can change during the lifetime of a Node. However, \
     there are some exceptions where this may not be possible, such as Pods that inherit a Node's address in \
     its own status or consumers of the downward API (status.hostIP).";

static COLUMNS: &[Column] = &[
    column::NAME,
    Column::new("Status", "string", "", 0, "The status of the node"),
    Column::new("Roles", "string", "", 0, "The roles of the node"),
    column::AGE,
    Column::new("Version", "string", "", 0, "Kubelet Version reported by the node."),
    Column::new("Internal-IP", "string", "", 1, ADDRESSES),
    Column::new("External-IP", "string", "", 1, ADDRESSES),
    Column::new(
        "OS-Image",
        "string",
        "",
        1,
        "OS Image reported by the node from /etc/os-release (e.g. Debian GNU/Linux 7 (wheezy)).",
    ),
    Column::new(
        "Kernel-Version",
        "string",
        "",
        1,
        "Kernel Version reported by the node from 'uname -r' (e.g. 3.16.0-0.bpo.4-amd64).",
    ),
    Column::new(
        "Container-Runtime",
        "string",
        "",
        1,
        "ContainerRuntime Version reported by the node through runtime remote API (e.g. containerd://1.4.2).",
    ),
];

impl Strategy for Node {
    fn default(&self, _api_version: &str, object: &mut Value) {
        if let Some(spec) = tree::existing(object, "spec") {
            sync_networks(spec);
        }
        if let Some(status) = tree::existing(object, "status")
            && tree::is_empty(&status["allocatable"])
            && !tree::is_empty(&status["capacity"])
        {
            let capacity = status["capacity"].clone();
            tree::set(status, "allocatable", capacity);
        }
    }

    /// A node registers with its status at once.
    fn separates_status(&self) -> bool {
        false
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        tree::copy(new, old, "status");
    }

    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| validate_node(errors, object))
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut found = self.validate(new);
        found.extend(Errors::of(|errors| unchanged(errors, &new["spec"], &old["spec"])));
        found
    }

    fn validate_subresource_update(&self, _subresource: &str, new: &Value, old: &Value) -> ErrorList {
        let mut found = self.validate_update(new, old);
        found.extend(Errors::of(|errors| addresses_differ(errors, tree::list(&new["status"], "addresses"))));
        found
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let info = &object["status"]["nodeInfo"];
        let or_unknown = |key: &str| match tree::text(info, key) {
            "" => Value::from("<unknown>"),
            text => text.into(),
        };
        vec![
            workload::name(object),
            status_text(object).into(),
            roles_text(object).into(),
            column::age(object, now),
            tree::text(info, "kubeletVersion").into(),
            address(object, "InternalIP").into(),
            address(object, "ExternalIP").into(),
            or_unknown("osImage"),
            or_unknown("kernelVersion"),
            or_unknown("containerRuntimeVersion"),
        ]
    }
}

fn sync_networks(spec: &mut Value) {
    let one = tree::text(spec, "podCIDR").to_owned();
    if !one.is_empty() && tree::list(spec, "podCIDRs").is_empty() {
        tree::set(spec, "podCIDRs", json!([one]));
    } else if one.is_empty() && !tree::list(spec, "podCIDRs").is_empty() {
        let first = spec["podCIDRs"][0].clone();
        tree::set(spec, "podCIDR", first);
    }
    // The single field wins over the list when they differ.
    if !one.is_empty() && spec["podCIDRs"][0] != one.as_str() {
        tree::set(spec, "podCIDRs", json!([one]));
    }
}

fn validate_node(errors: &mut Errors, object: &Value) {
    let spec = &object["spec"];
    taints(errors, &Path::new("metadata.taints"), tree::list(spec, "taints"));
    for side in ["capacity", "allocatable"] {
        let path = Path::new("status").child(side);
        for (resource, amount) in tree::entries(&object["status"], side) {
            resource::amount(errors, &path.key(resource), resource, amount);
        }
    }
    let path = Path::new("spec.podCIDRs");
    let networks = tree::list(spec, "podCIDRs");
    let texts: Vec<&str> = networks.iter().filter_map(Value::as_str).collect();
    let valid = texts.iter().enumerate().filter(|(i, text)| net::cidr(errors, &path.index(*i), text)).count();
    let six = texts.iter().filter(|text| text.contains(':')).count();
    if valid == texts.len() && texts.len() > 1 && (texts.len() != 2 || six != 1) {
        errors.invalid(&path, networks.to_vec(), "may specify no more than one CIDR for each IP family");
    }
}

fn addresses_differ(errors: &mut Errors, addresses: &[Value]) {
    let mut seen = Seen::default();
    for (i, address) in addresses.iter().enumerate() {
        let shown = format!(
            "{{\"Type\":{},\"Address\":{}}}",
            Value::from(tree::text(address, "type")),
            Value::from(tree::text(address, "address"))
        );
        if !seen.first(shown.as_str()) {
            errors.duplicate_shown(&Path::new("status.addresses").index(i), &shown);
        }
    }
}

fn taints(errors: &mut Errors, path: &Path, taints: &[Value]) {
    let mut seen = Seen::default();
    for (i, taint) in taints.iter().enumerate() {
        let at = path.index(i);
        let text = |key| tree::text(taint, key);
        errors.invalid_for(&at.child("key"), text("key"), name::qualified(text("key")));
        errors.invalid_for(&at.child("value"), text("value"), name::label_value(text("value")));
        schedule::effect(errors, &at.child("effect"), text("effect"), false);
        if !seen.first(format!("{}/{}", text("effect"), text("key"))) {
            let quoted = |key| Value::from(text(key));
            let added = taint.get("timeAdded").map_or("null".to_owned(), Value::to_string);
            let shown = format!(
                "{{\"Key\":{},\"Value\":{},\"Effect\":{},\"TimeAdded\":{added}}}: taints must be unique by key \
                 and effect pair",
                quoted("key"),
                quoted("value"),
                quoted("effect"),
            );
            errors.duplicate_shown(&at, &shown);
        }
    }
}

fn unchanged(errors: &mut Errors, new: &Value, old: &Value) {
    let before = tree::list(old, "podCIDRs");
    if !before.is_empty() && tree::list(new, "podCIDRs") != before {
        errors.forbidden(&Path::new("spec.podCIDRs"), "node updates may not change podCIDR except from \"\" to valid");
    }
    let provider = tree::text(old, "providerID");
    if !provider.is_empty() && tree::text(new, "providerID") != provider {
        errors.forbidden(
            &Path::new("spec.providerID"),
            "node updates may not change providerID except from \"\" to valid",
        );
    }
}

fn status_text(object: &Value) -> String {
    let ready = tree::list(&object["status"], "conditions").iter().find(|it| tree::text(it, "type") == "Ready");
    let mut words = vec![match ready.map(|it| tree::text(it, "status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }];
    if tree::flag(&object["spec"], "unschedulable") {
        words.push("SchedulingDisabled");
    }
    words.join(",")
}

fn roles_text(object: &Value) -> String {
    let mut roles: Vec<&str> = tree::entries(&object["metadata"], "labels")
        .into_iter()
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None if key == "kubernetes.io/role" => value.as_str(),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() { "<none>".into() } else { roles.join(",") }
}

fn address<'a>(object: &'a Value, kind: &str) -> &'a str {
    let addresses = tree::list(&object["status"], "addresses");
    addresses.iter().find(|it| tree::text(it, "type") == kind).map_or("<none>", |it| tree::text(it, "address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells() {
        let object = json!({
            "metadata": {"name": "n", "labels": {"node-role.kubernetes.io/control-plane": "", "a": "b"}},
            "spec": {"unschedulable": true},
            "status": {
                "conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": "v1"},
                "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
            },
        });
        let cells = Node.cells(&object, Timestamp::UNIX_EPOCH);
        let expected = ["n", "Ready,SchedulingDisabled", "control-plane", "<unknown>", "v1", "10.0.0.1", "<none>"]
            .map(Value::from);
        assert_eq!(cells[..7], expected);
    }

    #[test]
    fn taints_and_networks() {
        let errors = |spec: Value| {
            let found = Node.validate(&json!({"spec": spec}));
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert!(
            errors(json!({"podCIDRs": ["10.0.0.0/24", "fd00::/64"], "taints": [{"key": "a", "effect": "NoExecute"}]}))
                .is_empty()
        );
        assert_eq!(errors(json!({"taints": [{"key": "a"}]})), ["metadata.taints[0].effect: Required value"]);
        assert_eq!(
            errors(json!({"podCIDRs": ["10.0.0.0/24", "10.0.1.0/24"]})),
            [
                "spec.podCIDRs: Invalid value: [\"10.0.0.0/24\",\"10.0.1.0/24\"]: may specify no more than one CIDR for each \
                 IP family",
            ]
        );
    }
}

//! Which labels a kubelet may give its node: those that lead no pods to it that should not go there.

use serde_json::Value;
use std::collections::BTreeSet;

/// Labels of Kubernetes itself that kubelets know and set.
const OF_KUBELETS: [&str; 12] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "node.kubernetes.io/windows-build",
];

/// The labels that differ and must not, as a message shows them.
pub(super) fn forbidden(new: &Value, old: &Value) -> Option<String> {
    let keys = |labels: &Value| labels.as_object().map(|map| map.keys().cloned().collect()).unwrap_or_default();
    let all: BTreeSet<String> = BTreeSet::union(&keys(new), &keys(old)).cloned().collect();
    let differs = |key: &&String| new.get(key.as_str()) != old.get(key.as_str());
    let names: Vec<String> = all.iter().filter(differs).filter(|key| is_forbidden(key)).cloned().collect();
    if names.is_empty() { None } else { Some(names.join(", ")) }
}

fn is_forbidden(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    let within = |parent: &str| domain == parent || domain.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'));
    let of_kubelets = OF_KUBELETS.contains(&key) || within("kubelet.kubernetes.io") || within("node.kubernetes.io");
    within("node-restriction.kubernetes.io") || ((within("kubernetes.io") || within("k8s.io")) && !of_kubelets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn kubelets_set_their_own_labels_and_those_of_nobody() {
        let cases = [
            (json!({"kubernetes.io/hostname": "a", "own": "b", "example.com/x": "y"}), json!({}), None),
            (json!({"x.kubelet.kubernetes.io/a": "", "node.kubernetes.io/b": ""}), Value::Null, None),
            (
                json!({"node-role.kubernetes.io/control-plane": ""}),
                Value::Null,
                Some("node-role.kubernetes.io/control-plane"),
            ),
            (json!({"b.node-restriction.kubernetes.io/a": ""}), json!({}), Some("b.node-restriction.kubernetes.io/a")),
            (Value::Null, json!({"a.k8s.io/z": "", "kubernetes.io/y": ""}), Some("a.k8s.io/z, kubernetes.io/y")),
            (json!({"kubernetes.io/y": "1"}), json!({"kubernetes.io/y": "1"}), None),
        ];
        for (new, old, expected) in cases {
            assert_eq!(forbidden(&new, &old).as_deref(), expected, "{new} {old}");
        }
    }
}

//! DefaultTolerationSeconds: pods stay five minutes on a node that is not ready or not reachable.

use super::is_core;
use pintle_registry::{Attributes, Operation};
use serde_json::{Value, json};

const SECONDS: u32 = 300;
const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

pub(super) fn default_tolerations(attributes: &mut Attributes<'_>) {
    if !is_core(attributes, "pods") || !matches!(attributes.operation, Operation::Create | Operation::Update) {
        return;
    }
    let Some(pod) = &mut attributes.object else { return };
    for taint in TAINTS {
        if !tolerates(&pod["spec"]["tolerations"], taint) {
            add(pod, taint);
        }
    }
}

/// Whether a toleration covers the taint, or says for itself how long.
fn tolerates(tolerations: &Value, taint: &str) -> bool {
    tolerations.as_array().into_iter().flatten().any(|t| {
        let (key, effect) = (t["key"].as_str().unwrap_or_default(), t["effect"].as_str().unwrap_or_default());
        (key == taint || key.is_empty()) && (effect == "NoExecute" || effect.is_empty())
    })
}

fn add(pod: &mut Value, taint: &str) {
    let toleration = json!({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS});
    match pod["spec"]["tolerations"].as_array_mut() {
        Some(list) => list.push(toleration),
        None => {
            if let Some(spec) = pod["spec"].as_object_mut() {
                spec.insert("tolerations".into(), json!([toleration]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_toleration_without_a_key_covers_everything() {
        assert!(!tolerates(&Value::Null, TAINTS[0]));
        assert!(tolerates(&json!([{"operator": "Exists"}]), TAINTS[0]));
        assert!(tolerates(&json!([{"key": TAINTS[1], "effect": "NoExecute", "tolerationSeconds": 1}]), TAINTS[1]));
        assert!(!tolerates(&json!([{"key": TAINTS[1], "effect": "NoSchedule"}]), TAINTS[1]));
    }
}

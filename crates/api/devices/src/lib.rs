//! Taints of devices: which devices an administrator's rules taint, and who bears a taint.
//!
//! The scheduler, which keeps claims from devices, and the controller that evicts pods must think alike of taints; they
//! do it here. Pure. Source: KEP-5055.

use pintle_types::k8s::api::resource::v1::{DeviceTaint, DeviceToleration};
use pintle_types::k8s::api::resource::v1beta2::DeviceTaintRule;

/// What is served where rules can be: they are off by default.
pub const VERSION_OF_RULES: &str = "/apis/resource.k8s.io/v1beta2";

/// Whether a rule is about a device. A selector without criteria selects all devices; no selector, none.
pub fn is_about(rule: &DeviceTaintRule, driver: &str, pool: &str, device: &str) -> bool {
    let Some(selector) = &rule.spec.device_selector else { return false };
    let fits = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|wanted| wanted == is);
    fits(&selector.driver, driver) && fits(&selector.pool, pool) && fits(&selector.device, device)
}

/// The taint that a rule puts on devices.
pub fn taint_of(rule: &DeviceTaintRule) -> DeviceTaint {
    let taint = &rule.spec.taint;
    DeviceTaint {
        effect: taint.effect.clone(),
        key: taint.key.clone(),
        time_added: taint.time_added.clone(),
        value: taint.value.clone(),
    }
}

/// Whether the taint keeps claims from the device that do not bear it. Other effects only tell.
pub fn repels(taint: &DeviceTaint) -> bool {
    matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute")
}

/// Whether a toleration bears a taint, for however long: without an effect it bears each, without a key every key.
pub fn tolerates(toleration: &DeviceToleration, taint: &DeviceTaint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    if !(effect.is_empty() || effect == taint.effect) || !(key.is_empty() || key == taint.key) {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "" | "Equal" => toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default(),
        "Exists" => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn rules_are_about_the_devices_that_meet_all_their_criteria() {
        let is_about = |selector: Value| {
            let taint = json!({ "key": "broken", "effect": "NoSchedule" });
            let rule = json!({ "metadata": { "name": "r" }, "spec": { "deviceSelector": selector, "taint": taint } });
            let rule: DeviceTaintRule = serde_json::from_value(rule).unwrap();
            assert_eq!(taint_of(&rule).key, "broken");
            is_about(&rule, "gpu.example.com", "node-a", "gpu-0")
        };
        for (selector, expected) in [
            (Value::Null, false),
            (json!({}), true),
            (json!({ "driver": "gpu.example.com" }), true),
            (json!({ "driver": "other.example.com" }), false),
            (json!({ "driver": "gpu.example.com", "pool": "node-a" }), true),
            (json!({ "driver": "gpu.example.com", "pool": "node-b" }), false),
            (json!({ "pool": "node-a", "device": "gpu-0" }), true),
            (json!({ "pool": "node-a", "device": "gpu-1" }), false),
        ] {
            assert_eq!(is_about(selector.clone()), expected, "{selector}");
        }
    }

    #[test]
    fn tolerations_bear_taints_of_their_key_value_and_effect() {
        let taint = json!({ "key": "dra.example.com/unhealthy", "value": "hot", "effect": "NoSchedule" });
        let taint: DeviceTaint = serde_json::from_value(taint).unwrap();
        for (toleration, expected) in [
            (json!({ "operator": "Exists" }), true),
            (json!({ "operator": "Exists", "effect": "NoSchedule" }), true),
            (json!({ "operator": "Exists", "effect": "NoExecute" }), false),
            (json!({ "key": "dra.example.com/unhealthy", "operator": "Exists" }), true),
            (json!({ "key": "dra.example.com/unhealthy", "operator": "Equal", "value": "hot" }), true),
            (json!({ "key": "dra.example.com/unhealthy", "operator": "Equal", "value": "cold" }), false),
            (json!({ "key": "dra.example.com/unhealthy", "value": "hot" }), true),
            (json!({ "key": "dra.example.com/unhealthy" }), false),
            (json!({ "key": "other", "operator": "Exists" }), false),
            (json!({ "key": "dra.example.com/unhealthy", "operator": "NotIn", "value": "hot" }), false),
        ] {
            let parsed: DeviceToleration = serde_json::from_value(toleration.clone()).unwrap();
            assert_eq!(tolerates(&parsed, &taint), expected, "{toleration}");
        }
        for (effect, expected) in [("NoSchedule", true), ("NoExecute", true), ("None", false), ("Later", false)] {
            assert_eq!(repels(&DeviceTaint { effect: effect.into(), ..taint.clone() }), expected, "{effect}");
        }
    }
}

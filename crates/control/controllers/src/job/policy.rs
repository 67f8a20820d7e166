//! What a Job's policies say: of a failed pod whether and how it counts, and of succeeded indexes whether they do.
//!
//! Source: KEP-3329 (failure policy), KEP-3998 (success policy).

use super::indexes;
use pintle_types::Kind;
use pintle_types::k8s::api::batch::v1::{
    PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule, SuccessPolicy, SuccessPolicyRule,
};
use pintle_types::k8s::api::core::v1::{ContainerStatus, Pod};
use std::collections::BTreeSet;

/// What becomes of the failure of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It counts towards the limits.
    Count,
    /// It counts for nothing.
    Ignore,
    /// It fails its index whatever the limits.
    FailIndex,
    /// It fails the Job, with this message.
    FailJob(String),
}

/// Judges a failed pod by the first rule that matches it; without one it counts.
pub fn judge(policy: Option<&PodFailurePolicy>, pod: &Pod) -> Verdict {
    let rules = policy.map(|policy| policy.rules.as_slice()).unwrap_or_default();
    let matched = |(index, rule): (usize, &PodFailurePolicyRule)| Some((index, rule.action.clone(), found(rule, pod)?));
    let Some((index, action, found)) = rules.iter().enumerate().find_map(matched) else { return Verdict::Count };
    match action.as_str() {
        "Ignore" => Verdict::Ignore,
        "FailIndex" => Verdict::FailIndex,
        "FailJob" => Verdict::FailJob(format!("{found} matching FailJob rule at index {index}")),
        _ => Verdict::Count,
    }
}

/// What of the pod matches a rule, in the words of the Job's condition.
fn found(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let whole = format!("{}/{}", pod.namespace(), pod.name());
    if let Some(codes) = &rule.on_exit_codes {
        let containers = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
        let (name, code) = containers.filter_map(|container| exit_code(codes, container)).next()?;
        return Some(format!("Container {name} for pod {whole} failed with exit code {code}"));
    }
    let patterns = rule.on_pod_conditions.as_ref()?;
    let matches = |type_: &str, value: &str| {
        patterns.iter().any(|it| it.type_ == type_ && it.status.as_deref().unwrap_or("True") == value)
    };
    let mut conditions = status.conditions.iter().flatten();
    let condition = conditions.find(|condition| matches(&condition.type_, &condition.status))?;
    Some(format!("Pod {whole} has condition {}", condition.type_))
}

fn exit_code<'a>(
    codes: &PodFailurePolicyOnExitCodesRequirement,
    container: &'a ContainerStatus,
) -> Option<(&'a str, i32)> {
    let code = container.state.as_ref()?.terminated.as_ref()?.exit_code;
    let named = codes.container_name.as_ref().is_none_or(|name| *name == container.name);
    let listed = codes.values.contains(&code);
    let matches = match codes.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        _ => false,
    };
    (named && code != 0 && matches).then_some((container.name.as_str(), code))
}

/// The message of the first rule by which what has succeeded is enough.
pub fn success(policy: Option<&SuccessPolicy>, completions: i32, succeeded: &BTreeSet<i32>) -> Option<String> {
    if succeeded.is_empty() {
        return None;
    }
    let rules = policy?.rules.iter().enumerate();
    let index = rules.filter(|(_, rule)| is_met(rule, completions, succeeded)).map(|(index, _)| index).next()?;
    Some(format!("Matched rules at index {index}"))
}

fn is_met(rule: &SuccessPolicyRule, completions: i32, succeeded: &BTreeSet<i32>) -> bool {
    let enough = |count: usize| {
        rule.succeeded_count.is_some_and(|wanted| i64::try_from(count).unwrap_or(i64::MAX) >= i64::from(wanted))
    };
    let Some(text) = &rule.succeeded_indexes else { return enough(succeeded.len()) };
    let mut required = indexes::parse(text);
    required.retain(|index| *index < completions);
    let have = required.intersection(succeeded).count();
    !required.is_empty() && (have == required.len() || enough(have))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(codes: &[(&str, i32)], condition: &str) -> Pod {
        let container = |(name, code): &(&str, i32)| {
            json!({ "name": name, "ready": false, "restartCount": 0, "image": "", "imageID": "",
                    "state": { "terminated": { "exitCode": code } } })
        };
        Pod::from_value(json!({
            "metadata": { "namespace": "d", "name": "p" },
            "status": {
                "phase": "Failed",
                "containerStatuses": codes.iter().map(container).collect::<Vec<Value>>(),
                "conditions": [{ "type": condition, "status": "True" }],
            },
        }))
        .unwrap()
    }

    fn judged(rules: Value, pod: &Pod) -> Verdict {
        judge(Some(&serde_json::from_value(json!({ "rules": rules })).unwrap()), pod)
    }

    #[test]
    fn the_first_rule_that_matches_says_what_a_failure_means() {
        // The example of the documentation: "Handling retriable and non-retriable pod failures".
        let documented = json!([
            { "action": "FailJob", "onExitCodes": { "containerName": "main", "operator": "In", "values": [42] } },
            { "action": "Ignore", "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }] },
        ]);
        let message = "Container main for pod d/p failed with exit code 42 matching FailJob rule at index 0";
        let cases = [
            (pod(&[("main", 42)], ""), Verdict::FailJob(message.into())),
            (pod(&[("other", 42)], ""), Verdict::Count),
            (pod(&[("main", 1)], "DisruptionTarget"), Verdict::Ignore),
            (pod(&[("main", 1)], ""), Verdict::Count),
        ];
        for (pod, expected) in cases {
            assert_eq!(judged(documented.clone(), &pod), expected);
        }
        let not_in = json!([{ "action": "FailIndex", "onExitCodes": { "operator": "NotIn", "values": [1] } }]);
        assert_eq!(judged(not_in.clone(), &pod(&[("main", 2)], "")), Verdict::FailIndex);
        assert_eq!(judged(not_in.clone(), &pod(&[("main", 0)], "")), Verdict::Count, "zero is no failure");
        assert_eq!(judged(not_in, &pod(&[("main", 1)], "")), Verdict::Count);
        let conditions = json!([{ "action": "FailJob", "onPodConditions": [{ "type": "Config", "status": "True" }] }]);
        let message = "Pod d/p has condition Config matching FailJob rule at index 0";
        assert_eq!(judged(conditions, &pod(&[], "Config")), Verdict::FailJob(message.into()));
        assert_eq!(judge(None, &pod(&[], "")), Verdict::Count);
    }

    #[test]
    fn indexes_or_a_number_of_them_are_enough() {
        let met = |rules: Value, succeeded: &str| {
            let policy = serde_json::from_value(json!({ "rules": rules })).unwrap();
            success(Some(&policy), 10, &indexes::parse(succeeded))
        };
        // The example of the documentation: "Success policy".
        let documented = json!([{ "succeededIndexes": "0,2-3", "succeededCount": 1 }]);
        for (succeeded, expected) in [("1", None), ("0", Some(0)), ("1,3", Some(0)), ("", None)] {
            assert_eq!(
                met(documented.clone(), succeeded),
                expected.map(|i| format!("Matched rules at index {i}")),
                "{succeeded}"
            );
        }
        let two = json!([{ "succeededIndexes": "0-1" }, { "succeededCount": 3 }]);
        for (succeeded, expected) in [("0", None), ("0,1", Some(0)), ("1,5", None), ("1,5,7", Some(1))] {
            assert_eq!(met(two.clone(), succeeded), expected.map(|i| format!("Matched rules at index {i}")));
        }
        assert_eq!(met(json!([{ "succeededIndexes": "0,20" }]), "0"), Some("Matched rules at index 0".into()));
    }
}

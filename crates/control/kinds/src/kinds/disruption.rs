//! Pod disruption budgets.

use super::workload;
use crate::{
    check::{Errors, condition, number, selector},
    column::{self, Column},
    strategy::{NameRule, Strategy},
    tree,
};
use jiff::Timestamp;
use pintle_types::field::{ErrorList, Path};
use serde_json::Value;

pub struct PodDisruptionBudget;

static COLUMNS: &[Column] = &[
    column::NAME,
    Column::new("Min Available", "string", "", 0, "The minimum number of pods that must be available."),
    Column::new("Max Unavailable", "string", "", 0, "The maximum number of pods that may be unavailable."),
    Column::new(
        "Allowed Disruptions",
        "integer",
        "",
        0,
        "Calculated number of pods that may be disrupted at this time.",
    ),
    column::AGE,
];

impl Strategy for PodDisruptionBudget {
    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| {
            let (path, spec) = (Path::new("spec"), &object["spec"]);
            if tree::has(spec, "minAvailable") && tree::has(spec, "maxUnavailable") {
                let policy = spec.get("unhealthyPodEvictionPolicy").unwrap_or(&Value::Null);
                let shown = format!(
                    "{{\"MinAvailable\":{},\"Selector\":{},\"MaxUnavailable\":{},\"UnhealthyPodEvictionPolicy\":{policy}}}",
                    spec["minAvailable"],
                    selector::shown(&spec["selector"]),
                    spec["maxUnavailable"]
                );
                errors.invalid_shown(&path, &shown, "minAvailable and maxUnavailable cannot be both set");
            }
            for field in ["minAvailable", "maxUnavailable"] {
                number::count_or_percent(errors, &path.child(field), &spec[field]);
                number::not_over_100(errors, &path.child(field), &spec[field]);
            }
            selector::labels(errors, &path.child("selector"), &spec["selector"]);
            if let Some(policy) = spec.get("unhealthyPodEvictionPolicy").and_then(Value::as_str) {
                let known = ["AlwaysAllow", "IfHealthyBudget"];
                errors.one_of(&path.child("unhealthyPodEvictionPolicy"), policy, &known);
            }
        })
    }

    fn validate_subresource_update(&self, _subresource: &str, new: &Value, _old: &Value) -> ErrorList {
        const COUNTS: &[&str] = &["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"];
        Errors::of(|errors| {
            let (path, status) = (Path::new("status"), &new["status"]);
            condition::all(errors, &path.child("conditions"), tree::list(status, "conditions"));
            number::fields_not_negative(errors, &path, status, COUNTS);
        })
    }

    fn generation_fields(&self) -> &'static [&'static str] {
        &["spec"]
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let text = |field: &str| match &spec[field] {
            Value::Null => "N/A".to_owned(),
            Value::String(percent) => percent.clone(),
            other => other.to_string(),
        };
        vec![
            workload::name(object),
            text("minAvailable").into(),
            text("maxUnavailable").into(),
            tree::int(&object["status"], "disruptionsAllowed").into(),
            column::age(object, now),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_bound_of_at_most_everything() {
        for (spec, errors) in [
            (json!({"minAvailable": "50%"}), 0),
            (json!({"minAvailable": "101%"}), 1),
            (json!({"minAvailable": 1, "maxUnavailable": 1}), 1),
            (json!({"maxUnavailable": -1}), 1),
        ] {
            assert_eq!(PodDisruptionBudget.validate(&json!({"spec": spec})).len(), errors, "{spec}");
        }
    }
}

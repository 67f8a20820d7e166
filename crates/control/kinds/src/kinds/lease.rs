//! Leases and the candidates for them.

use super::workload;
use crate::{
    check::Errors,
    column::{self, Column},
    strategy::Strategy,
    tree,
};
use jiff::Timestamp;
use pintle_types::field::{ErrorList, Path};
use serde_json::Value;

pub struct Lease;

static COLUMNS: &[Column] = &[
    column::NAME,
    Column::new(
        "Holder",
        "string",
        "",
        0,
        "holderIdentity contains the identity of the holder of a current lease. If Coordinated Leader Election \
         is used, the holder identity must be equal to the elected LeaseCandidate.metadata.name field.",
    ),
    column::AGE,
];

impl Strategy for Lease {
    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| {
            let (path, spec) = (Path::new("spec"), &object["spec"]);
            if let Some(seconds) =
                spec.get("leaseDurationSeconds").and_then(Value::as_i64).filter(|seconds| *seconds <= 0)
            {
                errors.invalid(&path.child("leaseDurationSeconds"), seconds, "must be greater than 0");
            }
            crate::check::number::fields_not_negative(errors, &path, spec, &["leaseTransitions"]);
            if tree::has(spec, "preferredHolder") && tree::text(spec, "strategy").is_empty() {
                errors.forbidden(&path.child("preferredHolder"), "may only be specified if `strategy` is defined");
            }
        })
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let holder = tree::text(&object["spec"], "holderIdentity");
        vec![workload::name(object), holder.into(), column::age(object, now)]
    }
}

pub struct LeaseCandidate;

static CANDIDATE_COLUMNS: &[Column] = &[
    column::NAME,
    Column::new(
        "LeaseName",
        "string",
        "",
        0,
        "LeaseName is the name of the lease for which this candidate is contending.",
    ),
    Column::new("BinaryVersion", "string", "", 0, "BinaryVersion is the binary version."),
    Column::new("EmulationVersion", "string", "", 0, "EmulationVersion is the emulation version."),
    Column::new("Strategy", "string", "", 0, "Strategy is the strategy that coordinated leader election will use."),
    column::AGE,
];

impl Strategy for LeaseCandidate {
    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| {
            let (path, spec) = (Path::new("spec"), &object["spec"]);
            for field in ["leaseName", "strategy", "binaryVersion"] {
                errors.needs(&path.child(field), tree::text(spec, field), "");
            }
        })
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &[Column] {
        CANDIDATE_COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let text = |key: &str| Value::from(tree::text(&object["spec"], key));
        let fields = ["leaseName", "binaryVersion", "emulationVersion", "strategy"];
        let mut cells = vec![workload::name(object)];
        cells.extend(fields.map(text));
        cells.push(column::age(object, now));
        cells
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn durations_are_positive() {
        for (spec, errors) in
            [(json!({}), 0), (json!({"leaseDurationSeconds": 0}), 1), (json!({"leaseTransitions": -1}), 1)]
        {
            assert_eq!(Lease.validate(&json!({"spec": spec})).len(), errors);
        }
    }
}

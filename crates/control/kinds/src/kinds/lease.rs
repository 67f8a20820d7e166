//! Leases and the candidates for them.

use super::workload;
use crate::{
    check::{Errors, name},
    column::{self, Column},
    strategy::{NameRule, Strategy},
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
            if let Some(strategy) = spec.get("strategy").and_then(Value::as_str) {
                check_strategy(errors, &path.child("strategy"), strategy);
            }
            if !tree::text(spec, "preferredHolder").is_empty() && tree::text(spec, "strategy").is_empty() {
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

/// How the holder is elected: a word of Kubernetes' own, or a qualified name. Upstream names the field twice.
fn check_strategy(errors: &mut Errors, at: &Path, strategy: &str) {
    let at = at.child("strategy");
    match strategy.contains('/') {
        false => errors.one_of(&at, strategy, &[OLDEST]),
        true => errors.invalid_for(&at, strategy, name::qualified(strategy)),
    }
}

const OLDEST: &str = "OldestEmulationVersion";

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
    fn name_rule(&self) -> NameRule {
        NameRule::Custom(name::config_key)
    }

    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| validate_candidate(errors, &Path::new("spec"), &object["spec"]))
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut found = self.validate(new);
        let lease = |object: &Value| object["spec"]["leaseName"].clone();
        found.extend(Errors::of(|errors| errors.immutable(&Path::new("spec.leaseName"), &lease(new), &lease(old))));
        found
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

fn validate_candidate(errors: &mut Errors, path: &Path, spec: &Value) {
    let text = |field: &'static str| tree::text(spec, field);
    errors.needs(&path.child("leaseName"), text("leaseName"), "");
    let mut version = |field: &'static str| {
        let given = text(field);
        let parsed = semantic_version(given);
        if parsed.is_none() && !given.is_empty() {
            errors.invalid(&path.child(field), given, "must be a valid semantic version");
        }
        parsed
    };
    let emulated = version("emulationVersion");
    let binary = version("binaryVersion");
    let at = path.child("binaryVersion");
    if errors.needs(&at, text("binaryVersion"), "") && !text("emulationVersion").is_empty() && binary < emulated {
        errors.invalid(&at, text("binaryVersion"), "must be greater than or equal to `emulationVersion`");
    }
    let (strategy, at) = (text("strategy"), path.child("strategy"));
    if !errors.needs(&at, strategy, "") {
        return;
    }
    if strategy == OLDEST && emulated.is_none() {
        let words = "must be specified when `strategy` is 'OldestEmulationVersion'";
        errors.required(&path.child("emulationVersion"), words);
    }
    check_strategy(errors, &at, strategy);
}

/// The three numbers of a semantic version, and whether it is a release: versions before a release come before it.
fn semantic_version(text: &str) -> Option<([u64; 3], bool)> {
    let core = text.split_once('+').map_or(text, |(core, _)| core);
    let (core, before) = core.split_once('-').map_or((core, None), |(core, before)| (core, Some(before)));
    let word = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if before.is_some_and(|before| !before.split('.').all(word)) {
        return None;
    }
    let number = |part: &str| {
        let plain = part.chars().all(|c| c.is_ascii_digit()) && (part.len() == 1 || !part.starts_with('0'));
        if plain { part.parse::<u64>().ok() } else { None }
    };
    let numbers: Vec<u64> = core.split('.').map(number).collect::<Option<_>>()?;
    let numbers: [u64; 3] = numbers.try_into().ok()?;
    Some((numbers, before.is_none()))
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

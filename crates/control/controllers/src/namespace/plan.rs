//! What the conditions of a namespace in deletion say.

use pintle_clock::Timestamp;
use pintle_types::Time;
use pintle_types::k8s::api::core::v1::{NamespaceCondition, NamespaceStatus};
use std::collections::BTreeMap;

/// How far the deletion got.
#[derive(Debug, Default)]
pub struct Progress {
    /// Groups whose resources could not be found out.
    pub undiscovered: Vec<String>,
    /// Collections that could not be deleted, and why.
    pub failures: Vec<String>,
    /// How many objects are left, by `resource.group`.
    pub remaining: BTreeMap<String, usize>,
    /// How many objects wait for a finalizer.
    pub finalizers: BTreeMap<String, usize>,
}

impl Progress {
    /// Whether nothing is left, and that is certain.
    pub fn is_complete(&self) -> bool {
        self.undiscovered.is_empty() && self.failures.is_empty() && self.remaining.is_empty()
    }
}

/// The status of a namespace whose deletion got that far.
pub fn status(old: &NamespaceStatus, progress: &Progress, now: Timestamp) -> NamespaceStatus {
    let listed = |counts: &BTreeMap<String, usize>, noun: &str| {
        let texts: Vec<String> =
            counts.iter().map(|(what, count)| format!("{what} {noun} {count} resource instances")).collect();
        (!texts.is_empty()).then(|| texts.join(", "))
    };
    let joined = |list: &[String]| (!list.is_empty()).then(|| list.join(", "));
    let remaining = listed(&progress.remaining, "has").map(|text| format!("Some resources are remaining: {text}"));
    let finalizers = listed(&progress.finalizers, "in")
        .map(|text| format!("Some content in the namespace has finalizers remaining: {text}"));
    let undiscovered = joined(&progress.undiscovered)
        .map(|text| format!("Discovery failed for some groups, {} failing: {text}", progress.undiscovered.len()));
    let failures = joined(&progress.failures)
        .map(|text| format!("Failed to delete all resource types, {} remaining: {text}", progress.failures.len()));
    let mut status = old.clone();
    status.phase = Some("Terminating".into());
    for (type_, told, reason, well, message) in [
        (
            "NamespaceDeletionDiscoveryFailure",
            undiscovered,
            "DiscoveryFailed",
            "ResourcesDiscovered",
            "All resources successfully discovered",
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            None,
            "GroupVersionParsingFailed",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        (
            "NamespaceDeletionContentFailure",
            failures,
            "ContentDeletionFailed",
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        (
            "NamespaceContentRemaining",
            remaining,
            "SomeResourcesRemain",
            "ContentRemoved",
            "All content successfully removed",
        ),
        (
            "NamespaceFinalizersRemaining",
            finalizers,
            "SomeFinalizersRemain",
            "ContentHasNoFinalizers",
            "All content-preserving finalizers finished",
        ),
    ] {
        let (value, reason, message) = match told {
            Some(text) => ("True", reason, text),
            None => ("False", well, message.to_owned()),
        };
        set(&mut status, type_, value, reason, message, now);
    }
    status
}

fn set(status: &mut NamespaceStatus, type_: &str, value: &str, reason: &str, message: String, now: Timestamp) {
    let conditions = status.conditions.get_or_insert_default();
    let old = conditions.iter().position(|condition| condition.type_ == type_);
    let same_status = old.and_then(|at| conditions.get(at)).filter(|old| old.status == value);
    let since = same_status.and_then(|old| old.last_transition_time.clone()).unwrap_or(Time(now));
    let new = NamespaceCondition {
        type_: type_.into(),
        status: value.into(),
        reason: Some(reason.into()),
        message: Some(message),
        last_transition_time: Some(since),
    };
    match old {
        Some(at) => conditions[at] = new,
        None => conditions.push(new),
    }
}

//! What a deletion does to an object, decided without doing it. Source: `rest.BeforeDelete` and the generic store.

use super::{meta, metadata_mut};
use crate::request::DeleteOptions;
use jiff::{SignedDuration, Timestamp};
use pintle_kinds::ResourceDef;
use pintle_types::Status;
use pintle_types::field::{ErrorList, FieldError, Path};
use pintle_types::names::GroupKind;
use serde_json::{Value, json};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";
const WAITING_FOR_CONTENT: &str = "The system is ensuring all content is removed from this namespace.  Upon completion, this namespace will \
     automatically be purged by the system.";

/// What a deletion does.
#[derive(Debug, PartialEq)]
pub(super) enum Plan {
    /// The object goes at once; this is how it is shown for the last time.
    Remove(Value),
    /// The object is changed and stays until its grace period or its finalizers are over.
    Mark(Value),
    /// Its deletion is under way already.
    Wait,
    /// A namespace that still has content.
    Refuse(&'static str),
}

/// Decides about one object, given as it is stored.
pub(super) fn plan(def: &ResourceDef, old: &Value, options: &DeleteOptions, now: Timestamp) -> Plan {
    if let Some(plan) = marked_by_its_kind(def, old, now) {
        return plan;
    }
    let mut new = old.clone();
    let grace = match grace(def, &mut new, options, now) {
        Grace::Pending => return Plan::Wait,
        Grace::Seconds(seconds) => Some(seconds),
        Grace::None => None,
    };
    let before = finalizers(&new);
    let after = finalizers_after(def, &before, options);
    set_finalizers(&mut new, &after);
    match (grace, after.is_empty()) {
        (Some(seconds), empty) if seconds > 0 || !empty => Plan::Mark(new),
        (_, true) => Plan::Remove(new),
        _ => {
            mark(&mut new, now, now, 0);
            Plan::Mark(new)
        }
    }
}

/// Namespaces and definitions of resources are marked, and emptied by a controller before they go.
fn marked_by_its_kind(def: &ResourceDef, old: &Value, now: Timestamp) -> Option<Plan> {
    let waits = match (&*def.storage.group, &*def.storage.resource) {
        ("", "namespaces") => !list(&old["spec"]["finalizers"]).is_empty(),
        ("apiextensions.k8s.io", "customresourcedefinitions") => finalizers(old).iter().any(|name| name == CLEANUP),
        _ => return None,
    };
    let marked = !old["metadata"]["deletionTimestamp"].is_null();
    let mut new = old.clone();
    metadata_mut(&mut new).insert("deletionTimestamp".into(), now.to_string().into());
    match &*def.storage.resource {
        "namespaces" if !marked => {
            new["status"]["phase"] = "Terminating".into();
            Some(Plan::Mark(new))
        }
        "namespaces" if waits => Some(Plan::Refuse(WAITING_FOR_CONTENT)),
        "customresourcedefinitions" if !marked => {
            hold_definition(&mut new, now);
            Some(Plan::Mark(new))
        }
        "customresourcedefinitions" if waits => Some(Plan::Wait),
        _ => None,
    }
}

/// Keeps a definition until its objects are gone, and says so in its status.
fn hold_definition(definition: &mut Value, now: Timestamp) {
    let mut held = finalizers(definition);
    if !held.iter().any(|name| name == CLEANUP) {
        held.push(CLEANUP.into());
    }
    set_finalizers(definition, &held);
    let conditions = &mut definition["status"]["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    if let Some(all) = conditions.as_array_mut().filter(|all| all.iter().all(|one| one["type"] != "Terminating")) {
        all.push(json!({
            "type": "Terminating", "status": "True", "lastTransitionTime": now.to_string(),
            "reason": "InstanceDeletionPending",
            "message": "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
        }));
    }
}

enum Grace {
    /// The kind knows no grace period.
    None,
    Seconds(i64),
    /// A shorter one runs already.
    Pending,
}

/// The grace period; sets when the deletion is due.
fn grace(def: &ResourceDef, new: &mut Value, options: &DeleteOptions, now: Timestamp) -> Grace {
    let asked = options.grace_period_seconds;
    if let Ok(due) = meta(new, "deletionTimestamp").parse::<Timestamp>() {
        let Some(running) = new["metadata"]["deletionGracePeriodSeconds"].as_i64() else { return Grace::None };
        let Some(shorter) = asked.filter(|asked| *asked < running) else {
            // Without a grace period nothing runs that could be waited for.
            return if running == 0 { Grace::None } else { Grace::Pending };
        };
        let begun = due.saturating_sub(SignedDuration::from_secs(running)).unwrap_or(due);
        mark(new, begun, begun, shorter);
        return Grace::Seconds(shorter);
    }
    match def.strategy.graceful_delete(new, asked) {
        None => Grace::None,
        Some(seconds) => {
            mark(new, now, now, seconds);
            Grace::Seconds(seconds)
        }
    }
}

/// Sets the time of deletion, and counts it as a change of what is wanted.
fn mark(object: &mut Value, now: Timestamp, from: Timestamp, seconds: i64) {
    let due = from.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(now);
    let metadata = metadata_mut(object);
    let first = metadata.get("deletionTimestamp").is_none_or(Value::is_null);
    if let Some(generation) = metadata.get("generation").and_then(Value::as_i64).filter(|g| first && *g > 0) {
        metadata.insert("generation".into(), (generation + 1).into());
    }
    let earlier = metadata.get("deletionTimestamp").and_then(Value::as_str).and_then(|t| t.parse::<Timestamp>().ok());
    if seconds > 0 || earlier.is_none_or(|earlier| earlier > due) {
        metadata.insert("deletionTimestamp".into(), due.to_string().into());
    }
    metadata.insert("deletionGracePeriodSeconds".into(), seconds.into());
}

fn list(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

fn finalizers(object: &Value) -> Vec<String> {
    list(&object["metadata"]["finalizers"])
}

fn set_finalizers(object: &mut Value, finalizers: &[String]) {
    if finalizers.is_empty() {
        metadata_mut(object).remove("finalizers");
    } else {
        metadata_mut(object).insert("finalizers".into(), json!(finalizers));
    }
}

/// The finalizers with those by which the garbage collector is told what to do with dependents.
fn finalizers_after(def: &ResourceDef, before: &[String], options: &DeleteOptions) -> Vec<String> {
    let has = |name: &str| before.iter().any(|finalizer| finalizer == name);
    let (orphan, foreground) = match (options.orphan_dependents, options.propagation_policy.as_deref()) {
        (Some(orphan), _) => (orphan, false),
        (None, Some(policy)) => (policy == "Orphan", policy == "Foreground"),
        (None, None) => (has(ORPHAN) || (!has(FOREGROUND) && def.strategy.orphans_by_default()), has(FOREGROUND)),
    };
    let kept = before.iter().filter(|name| !matches!(name.as_str(), ORPHAN | FOREGROUND)).cloned();
    let added = [(orphan, ORPHAN), (foreground, FOREGROUND)];
    kept.chain(added.into_iter().filter(|(wanted, _)| *wanted).map(|(_, name)| name.to_owned())).collect()
}

/// Whether nothing keeps an object any more whose deletion was asked for.
pub(super) fn is_finished(def: &ResourceDef, object: &Value) -> bool {
    let metadata = &object["metadata"];
    let content = def.storage.group.is_empty()
        && def.storage.resource == "namespaces"
        && !list(&object["spec"]["finalizers"]).is_empty();
    !metadata["deletionTimestamp"].is_null()
        && metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
        && finalizers(object).is_empty()
        && !content
}

/// Whether the options of a deletion make sense.
pub(super) fn check_options(options: &DeleteOptions) -> Result<(), Status> {
    let mut errors = ErrorList::new();
    let path = Path::new("propagationPolicy");
    if let Some(policy) = &options.propagation_policy {
        if options.orphan_dependents.is_some() {
            let why = "orphanDependents and deletionPropagation cannot be both set";
            errors.push(FieldError::invalid(&path, policy.as_str(), why));
        }
        if !matches!(policy.as_str(), "Foreground" | "Background" | "Orphan") {
            let supported = ["Foreground", "Background", "Orphan", "nil"];
            errors.push(FieldError::not_supported(&path, policy.as_str(), &supported));
        }
    }
    if errors.is_empty() {
        return Ok(());
    }
    let kind = GroupKind { group: "meta.k8s.io".into(), kind: "DeleteOptions".into() };
    Err(Status::invalid(&kind, "", &errors))
}

//! Server-side apply and `metadata.managedFields` (KEP-555).
//!
//! The versions of a kind are taken to have one shape: a set of fields that was recorded at another version is read
//! as if it were of this one.

use crate::{TypeRef, normalize};
use managed::{Entries, Entry, Identity};
use serde_json::Value;
use set::{Set, Step};
use std::collections::BTreeMap;
use std::sync::LazyLock;

mod kept;
mod managed;
mod overlay;
mod set;
mod typed;
mod validate;

pub use overlay::overlay;

/// Who writes, how and when: the identity of a `managedFields` entry.
#[derive(Clone, Copy, Debug)]
pub struct Manager<'a> {
    pub name: &'a str,
    /// `apps/v1`
    pub api_version: &'a str,
    /// RFC 3339, now
    pub time: &'a str,
    /// "" for the main resource
    pub subresource: &'a str,
}

/// A field that another manager owns with a different value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// `"kubectl" using apps/v1`, with the quotes; the cause's message is `conflict with` and this.
    pub manager: String,
    /// `.spec.replicas`
    pub field: String,
}

/// Why an apply configuration was not applied.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// 409 with a cause (reason `FieldManagerConflict`, message `conflict with …`) for each.
    #[error("{}", conflict_message(.0))]
    Conflicts(Vec<Conflict>),
    /// 400
    #[error("{0}")]
    BadRequest(String),
    /// The configuration does not fit the schema: upstream answers 500 without a reason.
    #[error("{0}")]
    Typed(String),
}

/// Where client-side apply keeps its configuration.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Fields that no manager owns.
const UNOWNED: [&str; 12] = [
    "apiVersion",
    "kind",
    "metadata",
    "metadata.name",
    "metadata.namespace",
    "metadata.creationTimestamp",
    "metadata.selfLink",
    "metadata.uid",
    "metadata.clusterName",
    "metadata.generation",
    "metadata.managedFields",
    "metadata.resourceVersion",
];

fn unowned() -> &'static Set {
    static SET: LazyLock<Set> = LazyLock::new(|| Set::of_fields(&UNOWNED));
    &SET
}

/// `Apply failed with 1 conflict: conflict with "kubectl" using apps/v1: .spec.replicas`
fn conflict_message(conflicts: &[Conflict]) -> String {
    if let [one] = conflicts {
        return format!("Apply failed with 1 conflict: conflict with {}: {}", one.manager, one.field);
    }
    let mut by_manager: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for conflict in conflicts {
        by_manager.entry(&conflict.manager).or_default().push(&conflict.field);
    }
    let mut lines = Vec::new();
    for (manager, fields) in by_manager {
        lines.push(format!("conflicts with {manager}:"));
        lines.extend(fields.iter().map(|field| format!("- {field}")));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}

/// Records in `new.metadata.managedFields` which fields an ordinary write (create, update, patch) changed.
///
/// Upstream does this right after decoding and defaulting: before mutating admission and before the server fills in
/// what it owns (addresses, finalizers, generated selectors), so that none of these have an owner.
///
/// `old` is what was stored, none at creation; both must be normalized and have their defaults. `reset` are fields
/// that the endpoint ignores, such as `["status"]`; steps of a path are separated by dots. Linear in the object.
pub fn update_managers(ty: TypeRef<'_>, old: Option<&Value>, new: &mut Value, by: Manager<'_>, reset: &[&str]) {
    if !old.is_some_and(|old| kept::keep(ty, old, new, by, reset)) {
        write_managers(ty, old, new, by, reset);
    }
}

/// The same for any write: reads all entries, and writes them again.
fn write_managers(ty: TypeRef<'_>, old: Option<&Value>, new: &mut Value, by: Manager<'_>, reset: &[&str]) {
    let entries = managed::of_write(old, new, by.subresource);
    managed::strip(new);
    // An object that is not tracked stays so until it is applied.
    let entries = if entries.is_empty() && old.is_some() { entries } else { record(ty, old, new, by, reset, entries) };
    managed::encode(new, entries);
}

/// The entries after a write.
fn record(
    ty: TypeRef<'_>,
    old: Option<&Value>,
    new: &Value,
    by: Manager<'_>,
    reset: &[&str],
    mut entries: Entries,
) -> Entries {
    let zero;
    let old = match old {
        Some(old) => old,
        None => {
            zero = normalize::zero(ty);
            &zero
        }
    };
    let changes = typed::compare(Some(ty), Some(old), Some(new)).excluding(&Set::of_fields(reset));
    let written = changes.modified.union(changes.added);
    if !(written.is_empty() && changes.removed.is_empty()) {
        entries.retain(|_, entry| {
            let set = std::mem::take(&mut entry.set);
            entry.set = set.into_difference(&written).into_difference(&changes.removed);
            !entry.set.is_empty()
        });
    }
    let own = written.into_difference(unowned());
    if !own.is_empty() {
        let identity = Identity::updater(by);
        let before = entries.remove(&identity).map(|entry| entry.set).unwrap_or_default();
        let entry = Entry { set: own.union(before), api_version: by.api_version.into(), time: Some(by.time.into()) };
        entries.insert(identity, entry);
    }
    managed::cap(&mut entries);
    entries
}

/// Merges an apply configuration into the live object (none: it is created) and records who owns what.
///
/// The result is neither normalized nor has it defaults. `reset` as for [`update_managers`].
pub fn apply(
    ty: TypeRef<'_>,
    live: Option<&Value>,
    config: Value,
    by: Manager<'_>,
    force: bool,
    reset: &[&str],
) -> Result<Value, ApplyError> {
    check_config(ty, &config, by)?;
    let zero = normalize::zero(ty);
    let mut base = live.unwrap_or(&zero).clone();
    let mut entries = managed::decode(&base).unwrap_or_default();
    managed::strip(&mut base);
    if entries.is_empty() && live.is_some() {
        let before = Manager { name: "before-first-apply", ..by };
        entries = record(ty, None, &base, before, reset, entries);
    }
    let request = Request { ty, base: &base, config: &config, by, reset };
    let (mut object, entries) = match request.run(entries.clone(), force) {
        Err(conflicts) if by.name == "kubectl" => {
            let rest = request.not_last_applied(conflicts);
            if !rest.is_empty() {
                return Err(conflict_error(rest));
            }
            request.run(entries, true).map_err(conflict_error)?
        }
        other => other.map_err(conflict_error)?,
    };
    if by.name == "kubectl" && last_applied(&base).is_some() {
        set_last_applied(&mut object, &config);
    }
    managed::encode(&mut object, entries);
    Ok(object)
}

fn check_config(ty: TypeRef<'_>, config: &Value, by: Manager<'_>) -> Result<(), ApplyError> {
    let version = config["apiVersion"].as_str().unwrap_or_default();
    let kind = config["kind"].as_str().unwrap_or_default();
    if version != by.api_version || !ty.name().ends_with(&format!(".{kind}")) {
        let message = format!("invalid object type: {}, Kind={kind}", gvk_version(version));
        return Err(ApplyError::BadRequest(message));
    }
    if !config["metadata"]["managedFields"].is_null() {
        return Err(ApplyError::BadRequest("metadata.managedFields must be nil".into()));
    }
    validate::check(ty, config).map_err(|error| {
        let text = |key: &str| config["metadata"][key].as_str().unwrap_or_default();
        let object = format!("{}/{}; {}, Kind={kind}", text("namespace"), text("name"), gvk_version(version));
        ApplyError::Typed(format!("failed to create typed patch object ({object}): {error}"))
    })
}

/// The core group prints as an empty one: `/v1`.
fn gvk_version(version: &str) -> String {
    if version.contains('/') { version.to_owned() } else { format!("/{version}") }
}

/// A field and the manager who has it.
type Found = (Identity, Vec<Step>);

fn conflict_error(found: Vec<Found>) -> ApplyError {
    let conflicts =
        found.into_iter().map(|(identity, path)| Conflict { manager: identity.shown(), field: set::shown(&path) });
    ApplyError::Conflicts(conflicts.collect())
}

/// One apply: what is live (without `managedFields`) and what is asked for.
struct Request<'a> {
    ty: TypeRef<'a>,
    base: &'a Value,
    config: &'a Value,
    by: Manager<'a>,
    reset: &'a [&'a str],
}

impl Request<'_> {
    /// The object and the entries after it, or the fields that others own.
    fn run(&self, mut entries: Entries, force: bool) -> Result<(Value, Entries), Vec<Found>> {
        let ty = Some(self.ty);
        let merged = typed::merge(ty, Some(self.base), Some(self.config)).unwrap_or_default();
        let own = typed::field_set(ty, self.config).recursive_difference(&Set::of_fields(self.reset));
        let identity = Identity::applier(self.by);
        let last = entries.remove(&identity);
        let last_time = last.as_ref().and_then(|entry| entry.time.clone());
        let mut object = match last.map(|entry| entry.set) {
            Some(last) if !last.is_empty() => self.prune(&merged, &last, &own, &entries),
            _ => merged.clone(),
        };
        self.take(&mut entries, &object, force)?;
        typed::drop_emptied(&mut object, &merged);
        let changed = object != *self.base;
        let set = own.into_difference(unowned());
        if !set.is_empty() {
            let time = if changed { Some(self.by.time.to_owned()) } else { last_time };
            entries.insert(identity, Entry { set, api_version: self.by.api_version.into(), time });
        }
        Ok((object, entries))
    }

    /// Takes from the other managers what the new object changes.
    fn take(&self, entries: &mut Entries, object: &Value, force: bool) -> Result<(), Vec<Found>> {
        let changes =
            typed::compare(Some(self.ty), Some(self.base), Some(object)).excluding(&Set::of_fields(self.reset));
        let written = changes.modified.union(changes.added);
        if !force {
            let mut found = Vec::new();
            for (identity, entry) in entries.iter() {
                let paths = entry.set.intersection(&written).paths();
                found.extend(paths.into_iter().map(|path| (identity.clone(), path)));
            }
            if !found.is_empty() {
                return Err(found);
            }
        }
        entries.retain(|_, entry| {
            entry.set = entry.set.difference(&written).difference(&changes.removed);
            !entry.set.is_empty()
        });
        Ok(())
    }

    /// Removes what the manager applied last time, does not apply now, and nobody else owns.
    fn prune(&self, merged: &Value, last: &Set, own: &Set, others: &Entries) -> Value {
        let ty = Some(self.ty);
        let named = |set: &Set| set.with_named_fields(ty);
        let last = named(last);
        let everyone = others.values().fold(own.clone(), |all, entry| all.union(entry.set.clone()));
        let merged_set = named(&typed::field_set(ty, merged));
        let without = |fields: &Set| typed::remove(ty, merged, fields).unwrap_or_default();
        let pruned_set = named(&typed::field_set(ty, &without(&last)));
        // What others own comes back …
        let kept = pruned_set.union(named(&everyone));
        let pruned_set = named(&typed::field_set(ty, &without(&merged_set.difference(&kept))));
        // … and what was not applied last time was not this manager's to remove.
        without(&merged_set.difference(&pruned_set).intersection(&last))
    }

    /// The conflicts that are not with what client-side apply wrote: an upgrade from it is none.
    fn not_last_applied(&self, conflicts: Vec<Found>) -> Vec<Found> {
        let Some(last) = last_applied(self.base).and_then(|text| serde_json::from_str::<Value>(text).ok()) else {
            return conflicts;
        };
        if last["apiVersion"] != self.by.api_version || validate::check(self.ty, &last).is_err() {
            return conflicts;
        }
        let ty = Some(self.ty);
        let changes = typed::compare(ty, Some(&last), Some(self.base));
        let same = typed::field_set(ty, &last).difference(&changes.modified).difference(&changes.added);
        let same = same.difference(&changes.removed);
        conflicts.into_iter().filter(|(_, path)| !same.contains_same_member(path)).collect()
    }
}

fn last_applied(object: &Value) -> Option<&str> {
    object["metadata"]["annotations"][LAST_APPLIED].as_str().filter(|text| !text.is_empty())
}

/// Keeps the annotation of client-side apply up to date for those who go back to it.
fn set_last_applied(object: &mut Value, config: &Value) {
    let mut config = config.clone();
    managed::strip(&mut config);
    let annotations = config.get_mut("metadata").and_then(|metadata| metadata.get_mut("annotations"));
    if let Some(annotations) = annotations.and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
    }
    object["metadata"]["annotations"][LAST_APPLIED] = Value::String(format!("{config}\n"));
}

#[cfg(test)]
mod tests;

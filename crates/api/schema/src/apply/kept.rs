//! The everyday write: it changes values of fields that its manager has already and that nobody else has.
//!
//! No set of fields changes by it, only the time of one entry. So the entries are only looked at, as they are stored,
//! and not taken apart, joined and written again.

use super::set::Set;
use super::{Manager, managed, typed, unowned};
use crate::TypeRef;
use serde_json::{Map, Value};

/// Gives `new` the entries of `old`, that of the manager with the time of now, if the write changes no set. False if it
/// does, or if that is not easily told: then the entries in `new` are at most those of `old`.
pub(super) fn keep(ty: TypeRef<'_>, old: &Value, new: &mut Value, by: Manager<'_>, reset: &[&str]) -> bool {
    let Some(stored) = managed::list(old).filter(|stored| !stored.is_empty()) else { return false };
    match managed::list(new) {
        Some(given) if given == stored => {}
        Some(_) if by.subresource.is_empty() => return false,
        _ => match new.get_mut("metadata").and_then(Value::as_object_mut) {
            Some(metadata) => drop(metadata.insert("managedFields".into(), stored.clone().into())),
            None => return false,
        },
    }
    let Some(touched) = Touched::between(ty, old, new, reset) else { return false };
    let Some(own) = touched.owner(stored, by) else { return false };
    if let Some(own) = own
        && let Some(entries) = new["metadata"]["managedFields"].as_array_mut()
    {
        entries[own]["time"] = by.time.into();
        managed::sort(entries);
    }
    true
}

/// The fields that a write changes.
struct Touched {
    /// Its manager will have them.
    own: Set,
    /// Nobody will: what is gone, and what the server alone sets.
    nobodys: Set,
}

impl Touched {
    fn between(ty: TypeRef<'_>, old: &Value, new: &Value, reset: &[&str]) -> Option<Self> {
        let changes = typed::compare(Some(ty), Some(old), Some(new)).excluding(&Set::of_fields(reset));
        let written = changes.modified.union(changes.added);
        if written.member || changes.removed.member {
            return None;
        }
        let nobodys = changes.removed.union(written.intersection(unowned()));
        Some(Self { own: written.into_difference(unowned()), nobodys })
    }

    /// Which of the entries is the manager's, if it needs one; none when a set changes.
    fn owner(&self, entries: &[Value], by: Manager<'_>) -> Option<Option<usize>> {
        if entries.len() > managed::MAX_UPDATERS {
            return None;
        }
        let mut owner = None;
        for (at, entry) in entries.iter().enumerate() {
            let fields = fields(entry)?;
            if overlap(fields, &self.nobodys) {
                return None;
            }
            if !is_of(entry, by) {
                if overlap(fields, &self.own) {
                    return None;
                }
            } else if owner.replace(at).is_some() || !contains(fields, &self.own) {
                return None;
            }
        }
        match self.own.is_empty() {
            true => Some(None),
            false => owner.map(Some),
        }
    }
}

/// The fields of an entry that is as this module's neighbours write it.
fn fields(entry: &Value) -> Option<&Map<String, Value>> {
    let known = matches!(entry["operation"].as_str(), Some("Apply" | "Update")) && entry["fieldsType"] == "FieldsV1";
    let versioned = entry["apiVersion"].as_str().is_some_and(|version| !version.is_empty());
    entry["fieldsV1"].as_object().filter(|fields| known && versioned && !fields.is_empty())
}

/// Whether it is the entry of the manager's updates.
fn is_of(entry: &Value, by: Manager<'_>) -> bool {
    let text = |key: &str| entry[key].as_str().unwrap_or_default();
    text("operation") == "Update"
        && text("manager") == by.name
        && text("apiVersion") == by.api_version
        && text("subresource") == by.subresource
}

fn is_member(fields: &Map<String, Value>) -> bool {
    fields.is_empty() || fields.contains_key(".")
}

/// Whether all members of a set are among the fields of an entry.
fn contains(fields: &Map<String, Value>, set: &Set) -> bool {
    set.below.iter().all(|(step, set)| {
        let below = fields.get(&step.text()).and_then(Value::as_object);
        below.is_some_and(|below| (!set.member || is_member(below)) && contains(below, set))
    })
}

/// Whether any member of a set is.
fn overlap(fields: &Map<String, Value>, set: &Set) -> bool {
    set.below.iter().any(|(step, set)| {
        let below = fields.get(&step.text()).and_then(Value::as_object);
        below.is_some_and(|below| (set.member && is_member(below)) || overlap(below, set))
    })
}

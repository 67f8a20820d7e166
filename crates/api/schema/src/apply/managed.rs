//! The entries of `metadata.managedFields`.

use super::Manager;
use super::set::Set;
use crate::time::unix_seconds;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The most entries of updates; older ones are merged into one.
pub(super) const MAX_UPDATERS: usize = 10;
/// The manager of the merged entries.
const ANCIENT: &str = "ancient-changes";

/// What tells entries apart. Appliers have one entry whatever version they used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Identity {
    pub manager: String,
    pub applied: bool,
    /// "" for appliers
    pub api_version: String,
    pub subresource: String,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub set: Set,
    pub api_version: String,
    pub time: Option<String>,
}

pub(super) type Entries = BTreeMap<Identity, Entry>;

impl Identity {
    pub(super) fn updater(by: Manager<'_>) -> Self {
        Self {
            manager: by.name.into(),
            applied: false,
            api_version: by.api_version.into(),
            subresource: by.subresource.into(),
        }
    }

    pub(super) fn applier(by: Manager<'_>) -> Self {
        Self { applied: true, api_version: String::new(), ..Self::updater(by) }
    }

    /// As conflicts name it: `"kubectl" with subresource "scale" using apps/v1`.
    pub(super) fn shown(&self) -> String {
        let mut shown = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            shown.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if !self.applied {
            shown.push_str(&format!(" using {}", self.api_version));
        }
        shown
    }
}

pub(super) fn list(object: &Value) -> Option<&Vec<Value>> {
    object["metadata"]["managedFields"].as_array()
}

/// The entries of an object; none when any of them is malformed.
pub(super) fn decode(object: &Value) -> Option<Entries> {
    list(object).into_iter().flatten().map(entry).collect()
}

fn entry(value: &Value) -> Option<(Identity, Entry)> {
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let applied = match value["operation"].as_str() {
        Some("Apply") => true,
        Some("Update") => false,
        _ => return None,
    };
    let api_version = text("apiVersion");
    if api_version.is_empty() || value["fieldsType"] != "FieldsV1" {
        return None;
    }
    let set = match &value["fieldsV1"] {
        Value::Null => Set::default(),
        fields => Set::from_fields_v1(fields)?,
    };
    let identity = Identity {
        manager: text("manager"),
        applied,
        api_version: if applied { String::new() } else { api_version.clone() },
        subresource: text("subresource"),
    };
    Some((identity, Entry { set, api_version, time: value["time"].as_str().map(str::to_owned) }))
}

/// The entries to start an ordinary write from: the request's own, or the stored ones.
pub(super) fn of_write(old: Option<&Value>, new: &Value, subresource: &str) -> Entries {
    let stored = || old.and_then(decode).unwrap_or_default();
    if !subresource.is_empty() {
        return stored();
    }
    match list(new).map(Vec::as_slice) {
        // Asked to forget: an empty list, or one empty entry.
        Some([]) => Entries::new(),
        Some([one]) if one.as_object().is_some_and(|map| map.values().all(Value::is_null)) => Entries::new(),
        None => stored(),
        Some(_) => decode(new).filter(|entries| !entries.is_empty()).unwrap_or_else(stored),
    }
}

/// Takes the entries out of an object.
pub(super) fn strip(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}

/// Writes the entries into an object.
pub(super) fn encode(object: &mut Value, entries: Entries) {
    strip(object);
    if entries.is_empty() {
        return;
    }
    let mut list: Vec<Value> = entries.into_iter().map(|(identity, entry)| encode_entry(identity, entry)).collect();
    sort(&mut list);
    if let Some(object) = object.as_object_mut() {
        let metadata = object.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
        if let Some(metadata) = metadata.as_object_mut() {
            metadata.insert("managedFields".into(), Value::Array(list));
        }
    }
}

/// Puts written entries into upstream's order: appliers first, then by time and name.
pub(super) fn sort(entries: &mut [Value]) {
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    entries.sort_by_cached_key(|entry| {
        let seconds = entry["time"].as_str().map_or(0, unix_seconds);
        let rest = (text(entry, "manager"), text(entry, "apiVersion"), text(entry, "subresource"));
        (entry["operation"] != "Apply", seconds, rest)
    });
}

fn encode_entry(identity: Identity, entry: Entry) -> Value {
    let mut map = Map::new();
    map.insert("apiVersion".into(), entry.api_version.into());
    map.insert("fieldsType".into(), "FieldsV1".into());
    map.insert("fieldsV1".into(), entry.set.to_fields_v1());
    if !identity.manager.is_empty() {
        map.insert("manager".into(), identity.manager.into());
    }
    map.insert("operation".into(), if identity.applied { "Apply" } else { "Update" }.into());
    if !identity.subresource.is_empty() {
        map.insert("subresource".into(), identity.subresource.into());
    }
    if let Some(time) = entry.time {
        map.insert("time".into(), time.into());
    }
    Value::Object(map)
}

/// Merges the oldest updates, by version, when there are too many.
pub(super) fn cap(entries: &mut Entries) {
    let mut updaters: Vec<(i64, Identity)> = entries
        .iter()
        .filter(|(identity, _)| !identity.applied)
        .map(|(identity, entry)| (entry.time.as_deref().map_or(0, unix_seconds), identity.clone()))
        .collect();
    let mut left = updaters.len();
    if left <= MAX_UPDATERS {
        return;
    }
    updaters.sort();
    let mut first_of_version: BTreeMap<String, Identity> = BTreeMap::new();
    for (_, identity) in updaters {
        if left <= MAX_UPDATERS {
            break;
        }
        let bucket = Identity { manager: ANCIENT.into(), subresource: String::new(), ..identity.clone() };
        let Some(first) = first_of_version.get(&identity.api_version) else {
            first_of_version.insert(identity.api_version.clone(), identity);
            continue;
        };
        if let Some(entry) = entries.remove(first) {
            entries.insert(bucket.clone(), entry);
            first_of_version.insert(identity.api_version.clone(), bucket.clone());
        }
        if identity != bucket
            && let (Some(entry), Some(merged)) = (entries.remove(&identity), entries.get_mut(&bucket))
        {
            merged.set = std::mem::take(&mut merged.set).union(entry.set);
            merged.time = entry.time;
            left -= 1;
        }
    }
}

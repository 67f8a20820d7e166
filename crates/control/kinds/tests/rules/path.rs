//! Paths such as `spec.containers[0].ports` and `metadata.annotations[a.b/c]` into JSON trees.

use serde_json::{Map, Value};

enum Step<'a> {
    Field(&'a str),
    Index(usize),
}

fn steps(path: &str) -> Result<Vec<Step<'_>>, String> {
    let mut found = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let (key, after) = inner.split_once(']').ok_or_else(|| format!("{path:?} lacks a bracket"))?;
            found.push(key.parse().map_or(Step::Field(key), Step::Index));
            rest = after.strip_prefix('.').unwrap_or(after);
        } else {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            found.push(Step::Field(&rest[..end]));
            rest = rest[end..].strip_prefix('.').unwrap_or(&rest[end..]);
        }
    }
    Ok(found)
}

/// The value at a path, if there is one.
pub fn get<'a>(value: &'a Value, path: &str) -> Result<Option<&'a Value>, String> {
    Ok(steps(path)?.iter().try_fold(value, |value, step| match step {
        Step::Field(key) => value.get(key),
        Step::Index(index) => value.get(index),
    }))
}

/// Sets the value at a path, or takes it away if there is none; objects on the way are made, lists grow by one.
pub fn set(value: &mut Value, path: &str, to: Option<Value>) -> Result<(), String> {
    let steps = steps(path)?;
    let (last, way) = steps.split_last().ok_or("an empty path")?;
    let mut slot = value;
    for step in way {
        slot = enter(slot, step).ok_or_else(|| format!("{path} leads nowhere"))?;
    }
    match (last, to) {
        (Step::Field(key), None) => {
            slot.as_object_mut().and_then(|map| map.remove(*key));
        }
        (Step::Index(index), None) => {
            slot.as_array_mut().map(|list| list.remove(*index));
        }
        (step, Some(to)) => *enter(slot, step).ok_or_else(|| format!("{path} leads nowhere"))? = to,
    }
    Ok(())
}

fn enter<'a>(slot: &'a mut Value, step: &Step<'_>) -> Option<&'a mut Value> {
    match step {
        Step::Field(key) => {
            if slot.is_null() {
                *slot = Value::Object(Map::new());
            }
            Some(slot.as_object_mut()?.entry(*key).or_insert(Value::Null))
        }
        Step::Index(index) => {
            if slot.is_null() {
                *slot = Value::Array(Vec::new());
            }
            let list = slot.as_array_mut()?;
            if list.len() == *index {
                list.push(Value::Null);
            }
            list.get_mut(*index)
        }
    }
}

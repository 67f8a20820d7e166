//! JSON patch (RFC 6902), with the leniencies of the library that upstream uses.

use super::{MAX_OPERATIONS, PatchError};
use serde_json::Value;

/// The depth to which patches may nest values.
const MAX_DEPTH: usize = 512;

pub(super) fn apply(target: &mut Value, operations: &Value) -> Result<(), PatchError> {
    let Value::Array(operations) = operations else {
        let kind = crate::check::json_kind(operations);
        return Err(PatchError::Malformed(format!(
            "json: cannot unmarshal {kind} into Go value of type jsonpatch.Patch"
        )));
    };
    if operations.len() > MAX_OPERATIONS {
        return Err(PatchError::TooLarge { got: operations.len(), limit: MAX_OPERATIONS });
    }
    // A few copies of copies multiply the document.
    let mut budget = 16 << 20;
    operations.iter().try_for_each(|operation| run(target, operation, &mut budget)).map_err(PatchError::Rejected)?;
    // Moves and copies nest values deeper than a document that was sent could be.
    if is_deeper(target, MAX_DEPTH) { Err(PatchError::Rejected("exceeded max depth".into())) } else { Ok(()) }
}

fn is_deeper(value: &Value, limit: usize) -> bool {
    let Some(limit) = limit.checked_sub(1) else { return true };
    match value {
        Value::Array(items) => items.iter().any(|value| is_deeper(value, limit)),
        Value::Object(map) => map.values().any(|value| is_deeper(value, limit)),
        _ => false,
    }
}

fn run(target: &mut Value, operation: &Value, budget: &mut usize) -> Result<(), String> {
    let kind = operation["op"].as_str().unwrap_or_default();
    let path = || operation["path"].as_str().ok_or("missing path".to_owned());
    let from = || operation["from"].as_str().ok_or("missing from".to_owned());
    let value = || operation.get("value").cloned().unwrap_or(Value::Null);
    match kind {
        "add" => add(target, path()?, value()),
        "remove" => remove(target, path()?).map(drop),
        "replace" => {
            *find(target, path()?).ok_or_else(|| missing("replace", path().unwrap_or_default()))? = value();
            Ok(())
        }
        "move" => {
            let (from, path) = (from()?, path()?);
            if path.strip_prefix(from).is_some_and(|rest| rest.starts_with('/')) {
                return Err(format!("Unable to move {from:?} into itself"));
            }
            let moved = remove(target, from)?;
            add(target, path, moved)
        }
        "copy" => {
            let copied = find(target, from()?).ok_or_else(|| missing("copy", from().unwrap_or_default()))?.clone();
            *budget =
                budget.checked_sub(size(&copied)).ok_or("Unable to copy, the accumulated size limit is exceeded")?;
            add(target, path()?, copied)
        }
        "test" => test(target, path()?, &value()),
        other => Err(format!("Unexpected kind: {other}")),
    }
}

fn missing(what: &str, path: &str) -> String {
    format!("{what} operation does not apply: doc is missing path: {path}: missing value")
}

/// About the bytes of a value.
fn size(value: &Value) -> usize {
    match value {
        Value::Array(items) => 16 + items.iter().map(size).sum::<usize>(),
        Value::Object(map) => 16 + map.iter().map(|(key, value)| key.len() + size(value)).sum::<usize>(),
        Value::String(text) => 16 + text.len(),
        _ => 16,
    }
}

fn test(target: &mut Value, path: &str, wanted: &Value) -> Result<(), String> {
    // A missing value equals null.
    let equal = match find(target, path) {
        Some(found) => equal(found, wanted),
        None => wanted.is_null(),
    };
    if equal { Ok(()) } else { Err(format!("testing value {path} failed: test failed")) }
}

/// Numbers compare by value, not by how they are written.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(a, b)| equal(a, b)),
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(key, a)| y.get(key).is_some_and(|b| equal(a, b)))
        }
        _ => a == b,
    }
}

/// The steps of a JSON pointer. The empty pointer is the document.
fn steps(path: &str) -> Vec<String> {
    path.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~")).collect()
}

/// An index into a list of that length; negative ones count from the end.
fn index(step: &str, length: usize) -> Option<usize> {
    let index: i64 = step.parse().ok()?;
    let index = if index < 0 { index + length as i64 } else { index };
    usize::try_from(index).ok()
}

fn child<'a>(value: &'a mut Value, step: &str) -> Option<&'a mut Value> {
    match value {
        Value::Object(map) => map.get_mut(step),
        Value::Array(items) => {
            let index = index(step, items.len())?;
            items.get_mut(index)
        }
        _ => None,
    }
}

fn find<'a>(target: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    steps(path).iter().try_fold(target, |value, step| child(value, step))
}

/// The container that the path's last step is in, and that step.
fn parent<'a>(target: &'a mut Value, path: &str) -> Option<(&'a mut Value, String)> {
    let mut steps = steps(path);
    let last = steps.pop()?;
    let container = steps.iter().try_fold(target, |value, step| child(value, step))?;
    Some((container, last))
}

fn add(target: &mut Value, path: &str, value: Value) -> Result<(), String> {
    let gone = || format!("add operation does not apply: doc is missing path: {path:?}: missing value");
    if path.is_empty() {
        *target = value;
        return Ok(());
    }
    match parent(target, path) {
        Some((Value::Object(map), key)) => {
            map.insert(key, value);
            Ok(())
        }
        Some((Value::Array(items), step)) => {
            let at = if step == "-" { Some(items.len()) } else { index(&step, items.len()) };
            let at = at.filter(|&at| at <= items.len());
            items.insert(
                at.ok_or_else(|| format!("Unable to access invalid index: {step}: invalid index referenced"))?,
                value,
            );
            Ok(())
        }
        _ => Err(gone()),
    }
}

fn remove(target: &mut Value, path: &str) -> Result<Value, String> {
    let gone = || format!("remove operation does not apply: doc is missing path: {path:?}: missing value");
    match parent(target, path) {
        Some((Value::Object(map), key)) => {
            map.remove(&key).ok_or_else(|| format!("Unable to remove nonexistent key: {key}: missing value"))
        }
        Some((Value::Array(items), step)) => {
            let at = index(&step, items.len()).filter(|&at| at < items.len());
            Ok(items
                .remove(at.ok_or_else(|| format!("Unable to access invalid index: {step}: invalid index referenced"))?))
        }
        _ => Err(gone()),
    }
}

//! Reading and writing JSON trees as upstream's typed objects would show them: absent, null and empty are the same.

use serde_json::{Map, Value};

static NULL: Value = Value::Null;

/// The value at a dotted path; null when any part is absent.
pub fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    path.split('.').try_fold(value, |value, key| value.get(key)).unwrap_or(&NULL)
}

/// The text of a field; empty when absent.
pub fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or("")
}

/// The number in a field; zero when absent.
pub fn int(value: &Value, key: &str) -> i64 {
    value.get(key).and_then(Value::as_i64).unwrap_or(0)
}

/// The truth of a field; false when absent.
pub fn flag(value: &Value, key: &str) -> bool {
    value.get(key).and_then(Value::as_bool).unwrap_or(false)
}

/// The items of a list field; none when absent.
pub fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The entries of a map field in the order of their keys; none when absent.
pub fn entries<'a>(value: &'a Value, key: &str) -> Vec<(&'a String, &'a Value)> {
    let mut entries: Vec<_> = value.get(key).and_then(Value::as_object).into_iter().flatten().collect();
    entries.sort_by_key(|(key, _)| *key);
    entries
}

/// Whether a field is there and not null.
pub fn has(value: &Value, key: &str) -> bool {
    value.get(key).is_some_and(|value| !value.is_null())
}

/// Whether a value is absent or what Go calls its zero value: null, false, 0, "", [] or {}.
pub fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

/// Sets a field that is absent or null.
pub fn default_to(value: &mut Value, key: &str, default: impl Into<Value>) {
    if let Some(fields) = value.as_object_mut()
        && fields.get(key).is_none_or(Value::is_null)
    {
        fields.insert(key.to_owned(), default.into());
    }
}

/// Sets a field whose empty value also means "not set": an empty text or zero.
pub fn default_empty(value: &mut Value, key: &str, default: impl Into<Value>) {
    if let Some(fields) = value.as_object_mut()
        && fields.get(key).is_none_or(is_empty)
    {
        fields.insert(key.to_owned(), default.into());
    }
}

/// The object in a field, made when it is absent. Nothing when the field or the value is no object.
pub fn child<'a>(value: &'a mut Value, key: &str) -> Option<&'a mut Value> {
    let slot = value.as_object_mut()?.entry(key).or_insert(Value::Null);
    if slot.is_null() {
        *slot = Value::Object(Map::new());
    }
    slot.is_object().then_some(slot)
}

/// The object in a field when it is there.
pub fn existing<'a>(value: &'a mut Value, key: &str) -> Option<&'a mut Value> {
    value.get_mut(key).filter(|child| child.is_object())
}

/// The objects of a list field for change; none when absent. A null among them becomes an empty object, as it is one
/// to upstream.
pub fn items_mut<'a>(value: &'a mut Value, key: &str) -> impl Iterator<Item = &'a mut Value> + use<'a> {
    value.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten().map(|item| {
        if item.is_null() {
            *item = Value::Object(Map::new());
        }
        item
    })
}

/// Takes a field away.
pub fn remove(value: &mut Value, key: &str) -> Option<Value> {
    value.as_object_mut()?.remove(key)
}

/// Sets a field.
pub fn set(value: &mut Value, key: &str, to: impl Into<Value>) {
    if let Some(fields) = value.as_object_mut() {
        fields.insert(key.to_owned(), to.into());
    }
}

/// Makes a field equal to that of another object, absent if it is absent there.
pub fn copy(to: &mut Value, from: &Value, key: &str) {
    match from.get(key) {
        Some(value) => set(to, key, value.clone()),
        None => {
            remove(to, key);
        }
    }
}

/// Takes over from `from` what the server writes into metadata in every update: who manages fields, and the version.
pub fn copy_metadata_bookkeeping(to: &mut Value, from: &Value) {
    if let Some(metadata) = child(to, "metadata") {
        copy(metadata, &from["metadata"], "managedFields");
        copy(metadata, &from["metadata"], "resourceVersion");
    }
}

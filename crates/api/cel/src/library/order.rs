//! The order and the sameness of values of one type, for lists that are searched and sorted.

use crate::{List, Map, Value};
use std::cmp::Ordering;

/// How two values of the same ordered type relate; nothing for others.
pub(super) fn compare(a: &Value<'_>, b: &Value<'_>) -> Option<Ordering> {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::String(a), Value::String(b)) => Some(a.as_str().cmp(b.as_str())),
        (Value::Bytes(a), Value::Bytes(b)) => Some(a.cmp(b)),
        (Value::Timestamp(a), Value::Timestamp(b)) => Some(a.cmp(b)),
        (Value::Duration(a), Value::Duration(b)) => Some(a.cmp(b)),
        (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
        (Value::Uint(a), Value::Uint(b)) => Some(a.cmp(b)),
        (Value::Int(a), Value::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Value::Uint(a), Value::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        _ => double(a)?.partial_cmp(&double(b)?),
    }
}

fn double(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Double(value) => Some(*value),
        Value::Int(value) => Some(*value as f64),
        Value::Uint(value) => Some(*value as f64),
        _ => None,
    }
}

/// Whether two values are equal; values of different types are not.
pub(super) fn same(a: &Value<'_>, b: &Value<'_>) -> bool {
    match (a, b) {
        (Value::Null, Value::Null) => true,
        (Value::List(a), Value::List(b)) => same_lists(a, b),
        (Value::Map(a), Value::Map(b)) => same_maps(a, b),
        (Value::Opaque(a), Value::Opaque(b)) => a.value_type() == b.value_type() && a.equals(&**b),
        (Value::Type(a), Value::Type(b)) => a.runtime_name() == b.runtime_name(),
        (Value::Optional(a), Value::Optional(b)) => match (a, b) {
            (Some(a), Some(b)) => same(a, b),
            (a, b) => a.is_none() && b.is_none(),
        },
        (Value::Struct(a), Value::Struct(b)) => {
            a.object.name() == b.object.name()
                && a.fields.len() == b.fields.len()
                && a.fields.iter().all(|(name, value)| b.get(name).is_some_and(|other| same(value, other)))
        }
        _ => compare(a, b) == Some(Ordering::Equal),
    }
}

fn same_lists(a: &List<'_>, b: &List<'_>) -> bool {
    a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| same(&a, &b))
}

fn same_maps(a: &Map<'_>, b: &Map<'_>) -> bool {
    a.len() == b.len() && a.iter().all(|(key, value)| b.get(&key).is_some_and(|other| same(&value, &other)))
}

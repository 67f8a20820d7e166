//! Operators on values: equality, order, arithmetic. Numbers of different types compare by what they mean.

use super::{Operation, Relation};
use crate::error::EvalError;
use crate::time;
use crate::types::ListKind;
use crate::value::{List, Map, Span, Value};
use std::cmp::Ordering;
use std::sync::Arc;

/// Whether values are the same. Values of different types are not, but for numbers.
pub(crate) fn equal(left: &Value<'_>, right: &Value<'_>) -> bool {
    match (left, right) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(left), Value::Bool(right)) => left == right,
        (Value::String(left), Value::String(right)) => **left == **right,
        (Value::Bytes(left), Value::Bytes(right)) => left == right,
        (Value::Timestamp(left), Value::Timestamp(right)) => left == right,
        (Value::Duration(left), Value::Duration(right)) => left == right,
        (Value::List(left), Value::List(right)) => equal_lists(left, right),
        (Value::Map(left), Value::Map(right)) => equal_maps(left, right),
        (Value::Struct(left), Value::Struct(right)) => {
            left.object.name() == right.object.name()
                && left.fields.len() == right.fields.len()
                && left.fields.iter().all(|(name, value)| right.get(name).is_some_and(|other| equal(value, other)))
        }
        (Value::Opaque(left), Value::Opaque(right)) => left.value_type() == right.value_type() && left.equals(&**right),
        (Value::Type(left), Value::Type(right)) => left.runtime_name() == right.runtime_name(),
        (Value::Optional(left), Value::Optional(right)) => match (left, right) {
            (None, None) => true,
            (Some(left), Some(right)) => equal(left, right),
            _ => false,
        },
        (left, right) => numbers(left, right) == Some(Some(Ordering::Equal)),
    }
}

fn equal_lists(left: &List<'_>, right: &List<'_>) -> bool {
    if left.len() != right.len() {
        return false;
    }
    match left.kind() {
        ListKind::Atomic => left.iter().zip(right.iter()).all(|(left, right)| equal(&left, &right)),
        ListKind::Set => left.iter().all(|item| right.iter().any(|other| equal(&item, &other))),
        ListKind::Map(keys) => {
            let same = |item: &Value<'_>| right.iter().find(|other| same_keys(item, other, keys));
            left.iter().all(|item| same(&item).is_some_and(|other| equal(&item, &other)))
        }
    }
}

/// Whether two elements of a list of type map have the same keys.
fn same_keys(left: &Value<'_>, right: &Value<'_>, keys: &[Box<str>]) -> bool {
    let (Value::Map(left), Value::Map(right)) = (left, right) else { return equal(left, right) };
    keys.iter().all(|key| {
        let key = crate::escape(key);
        match (left.get_text(&key), right.get_text(&key)) {
            (Some(left), Some(right)) => equal(&left, &right),
            (None, None) => true,
            _ => false,
        }
    })
}

fn equal_maps(left: &Map<'_>, right: &Map<'_>) -> bool {
    left.len() == right.len()
        && left.iter().all(|(key, value)| match (left, &key) {
            // Objects give their keys as they are, and look them up as identifiers.
            (Map::Object(..), Value::String(name)) | (_, Value::String(name)) if matches!(right, Map::Object(..)) => {
                right.get_text(&crate::escape(name)).is_some_and(|other| equal(&value, &other))
            }
            _ => right.get(&key).is_some_and(|other| equal(&value, &other)),
        })
}

/// The order of two numbers: `None` when one is none, `Some(None)` when one is not a number (`NaN`).
fn numbers(left: &Value<'_>, right: &Value<'_>) -> Option<Option<Ordering>> {
    Some(match (left, right) {
        (Value::Int(left), Value::Int(right)) => Some(left.cmp(right)),
        (Value::Uint(left), Value::Uint(right)) => Some(left.cmp(right)),
        (Value::Double(left), Value::Double(right)) => left.partial_cmp(right),
        (Value::Int(left), Value::Uint(right)) => Some(i128::from(*left).cmp(&i128::from(*right))),
        (Value::Uint(left), Value::Int(right)) => Some(i128::from(*left).cmp(&i128::from(*right))),
        (Value::Int(left), Value::Double(right)) => whole_to_double(i128::from(*left), *right),
        (Value::Uint(left), Value::Double(right)) => whole_to_double(i128::from(*left), *right),
        (Value::Double(left), Value::Int(right)) => whole_to_double(i128::from(*right), *left).map(Ordering::reverse),
        (Value::Double(left), Value::Uint(right)) => whole_to_double(i128::from(*right), *left).map(Ordering::reverse),
        _ => return None,
    })
}

/// How a whole number and a double compare, without rounding either.
fn whole_to_double(whole: i128, double: f64) -> Option<Ordering> {
    if double.is_nan() {
        return None;
    }
    if double >= 1e20 {
        return Some(Ordering::Less);
    }
    if double <= -1e20 {
        return Some(Ordering::Greater);
    }
    let floor = double.floor();
    Some(match whole.cmp(&(floor as i128)) {
        Ordering::Equal if double > floor => Ordering::Less,
        order => order,
    })
}

/// The order of values that have one.
pub(crate) fn compare(left: &Value<'_>, right: &Value<'_>) -> Result<Option<Ordering>, EvalError> {
    match (left, right) {
        (Value::Bool(left), Value::Bool(right)) => Ok(Some(left.cmp(right))),
        (Value::String(left), Value::String(right)) => Ok(Some(left.as_str().cmp(right.as_str()))),
        (Value::Bytes(left), Value::Bytes(right)) => Ok(Some(left.cmp(right))),
        (Value::Timestamp(left), Value::Timestamp(right)) => Ok(Some(left.cmp(right))),
        (Value::Duration(left), Value::Duration(right)) => Ok(Some(left.cmp(right))),
        (left, right) => numbers(left, right).ok_or(EvalError::NoSuchOverload),
    }
}

pub(super) fn relate(relation: Relation, left: &Value<'_>, right: &Value<'_>) -> Result<bool, EvalError> {
    let Some(order) = compare(left, right)? else { return Ok(false) };
    Ok(match relation {
        Relation::Less => order.is_lt(),
        Relation::LessOrEqual => order.is_le(),
        Relation::Greater => order.is_gt(),
        Relation::GreaterOrEqual => order.is_ge(),
    })
}

pub(super) fn negate<'a>(value: &Value<'a>) -> Result<Value<'a>, EvalError> {
    match value {
        Value::Int(value) => value.checked_neg().map(Value::Int).ok_or(EvalError::IntegerOverflow),
        Value::Double(value) => Ok(Value::Double(-value)),
        Value::Duration(span) => span.0.checked_neg().map(|span| Value::Duration(Span(span))).ok_or_else(too_long),
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn too_long() -> EvalError {
    EvalError::other("duration overflow")
}

pub(crate) fn arithmetic<'a>(
    operation: Operation,
    left: &Value<'a>,
    right: &Value<'a>,
) -> Result<Value<'a>, EvalError> {
    match (left, right) {
        (Value::Int(left), Value::Int(right)) => ints(operation, *left, *right).map(Value::Int),
        (Value::Uint(left), Value::Uint(right)) => uints(operation, *left, *right).map(Value::Uint),
        (Value::Double(left), Value::Double(right)) => doubles(operation, *left, *right).map(Value::Double),
        _ => match operation {
            Operation::Add => add(left, right),
            Operation::Subtract => subtract(left, right),
            _ => Err(EvalError::NoSuchOverload),
        },
    }
}

fn ints(operation: Operation, left: i64, right: i64) -> Result<i64, EvalError> {
    match operation {
        Operation::Divide if right == 0 => return Err(EvalError::DivisionByZero),
        Operation::Modulo if right == 0 => return Err(EvalError::ModulusByZero),
        Operation::Add => left.checked_add(right),
        Operation::Subtract => left.checked_sub(right),
        Operation::Multiply => left.checked_mul(right),
        Operation::Divide => left.checked_div(right),
        Operation::Modulo => left.checked_rem(right),
    }
    .ok_or(EvalError::IntegerOverflow)
}

fn uints(operation: Operation, left: u64, right: u64) -> Result<u64, EvalError> {
    match operation {
        Operation::Divide if right == 0 => return Err(EvalError::DivisionByZero),
        Operation::Modulo if right == 0 => return Err(EvalError::ModulusByZero),
        Operation::Add => left.checked_add(right),
        Operation::Subtract => left.checked_sub(right),
        Operation::Multiply => left.checked_mul(right),
        Operation::Divide => left.checked_div(right),
        Operation::Modulo => left.checked_rem(right),
    }
    .ok_or(EvalError::UnsignedOverflow)
}

fn doubles(operation: Operation, left: f64, right: f64) -> Result<f64, EvalError> {
    match operation {
        Operation::Add => Ok(left + right),
        Operation::Subtract => Ok(left - right),
        Operation::Multiply => Ok(left * right),
        Operation::Divide => Ok(left / right),
        Operation::Modulo => Err(EvalError::NoSuchOverload),
    }
}

fn add<'a>(left: &Value<'a>, right: &Value<'a>) -> Result<Value<'a>, EvalError> {
    match (left, right) {
        (Value::String(left), Value::String(right)) => Ok([left.as_str(), right].concat().into()),
        (Value::Bytes(left), Value::Bytes(right)) => Ok(Value::Bytes([&**left, right].concat().into())),
        (Value::List(left), Value::List(right)) => Ok(join(left, right)),
        (Value::Duration(left), Value::Duration(right)) => {
            left.0.checked_add(right.0).map(|span| Value::Duration(Span(span))).ok_or_else(too_long)
        }
        (Value::Timestamp(time), Value::Duration(span)) | (Value::Duration(span), Value::Timestamp(time)) => {
            time::shift(*time, i128::from(span.0)).map(Value::Timestamp)
        }
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn subtract<'a>(left: &Value<'a>, right: &Value<'a>) -> Result<Value<'a>, EvalError> {
    match (left, right) {
        (Value::Duration(left), Value::Duration(right)) => {
            left.0.checked_sub(right.0).map(|span| Value::Duration(Span(span))).ok_or_else(too_long)
        }
        (Value::Timestamp(time), Value::Duration(span)) => {
            time::shift(*time, -i128::from(span.0)).map(Value::Timestamp)
        }
        (Value::Timestamp(left), Value::Timestamp(right)) => {
            let span = left.as_nanosecond() - right.as_nanosecond();
            i64::try_from(span).map(|span| Value::Duration(Span(span))).map_err(|_| too_long())
        }
        _ => Err(EvalError::NoSuchOverload),
    }
}

/// Sets get what they lack; lists of type map get new elements, and others in the place of those with their keys.
fn join<'a>(left: &List<'a>, right: &List<'a>) -> Value<'a> {
    let mut items: Vec<Value<'a>> = Vec::with_capacity(left.len() + right.len());
    items.extend(left.iter());
    for item in right.iter() {
        let place = match left.kind() {
            ListKind::Atomic => None,
            ListKind::Set => items.iter().position(|other| equal(other, &item)),
            ListKind::Map(keys) => items.iter().position(|other| same_keys(other, &item, keys)),
        };
        match place {
            Some(place) => items[place] = item,
            None => items.push(item),
        }
    }
    Value::List(List::Owned(Arc::from(items)))
}

/// A value in the text of an error.
pub(crate) fn shown(value: &Value<'_>) -> String {
    match value {
        Value::String(text) => text.as_str().to_owned(),
        Value::Uint(value) => value.to_string(),
        other => format!("{other:?}"),
    }
}

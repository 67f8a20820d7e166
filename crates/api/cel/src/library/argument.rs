//! Arguments of calls as what a function declared them to be, and the costs that many functions share.

use crate::cost::{STRING_TRAVERSAL_FACTOR, scale};
use crate::{CallEstimate, CostEstimate, EstimateArg, EvalError, List, Map, OpaqueValue, SizeEstimate, Value};

pub(super) fn text<'v>(arguments: &'v [Value<'_>], at: usize) -> Result<&'v str, EvalError> {
    arguments.get(at).and_then(Value::as_str).ok_or(EvalError::NoSuchOverload)
}

pub(super) fn int(arguments: &[Value<'_>], at: usize) -> Result<i64, EvalError> {
    arguments.get(at).and_then(Value::as_int).ok_or(EvalError::NoSuchOverload)
}

pub(super) fn boolean(arguments: &[Value<'_>], at: usize) -> Result<bool, EvalError> {
    arguments.get(at).and_then(Value::as_bool).ok_or(EvalError::NoSuchOverload)
}

pub(super) fn list<'v, 'a>(arguments: &'v [Value<'a>], at: usize) -> Result<&'v List<'a>, EvalError> {
    match arguments.get(at) {
        Some(Value::List(list)) => Ok(list),
        _ => Err(EvalError::NoSuchOverload),
    }
}

pub(super) fn opaque<'v, T: OpaqueValue>(arguments: &'v [Value<'_>], at: usize) -> Result<&'v T, EvalError> {
    arguments.get(at).and_then(Value::downcast).ok_or(EvalError::NoSuchOverload)
}

/// An error with a text of its own.
pub(super) fn failed(message: impl Into<String>) -> EvalError {
    EvalError::other(message)
}

/// A list of texts.
pub(super) fn texts<'a>(items: impl IntoIterator<Item = String>) -> Value<'a> {
    items.into_iter().map(Value::from).collect::<Vec<_>>().into()
}

/// Makes a type with equality the value of a library's type called by a constant name.
macro_rules! opaque_value {
    ($value:ty, $name:expr) => {
        impl crate::OpaqueValue for $value {
            fn value_type(&self) -> crate::Type {
                crate::Type::opaque($name)
            }

            fn equals(&self, other: &dyn crate::OpaqueValue) -> bool {
                other.as_any().downcast_ref::<Self>().is_some_and(|other| self == other)
            }

            fn as_any(&self) -> &dyn std::any::Any {
                self
            }
        }
    };
}
pub(super) use opaque_value;

/// Looking once through a text.
pub(super) fn traversal(size: u64) -> u64 {
    scale(size, STRING_TRAVERSAL_FACTOR)
}

/// The cost of looking once through the first argument.
pub(super) fn first_traversed(arguments: &[Value<'_>], _result: &Value<'_>) -> u64 {
    arguments.first().map_or(1, |text| traversal(text.size()))
}

/// The cost of looking twice through the first argument.
pub(super) fn first_traversed_twice(arguments: &[Value<'_>], _result: &Value<'_>) -> u64 {
    arguments.first().map_or(1, |text| scale(text.size(), 2.0 * STRING_TRAVERSAL_FACTOR))
}

pub(super) fn first_size(arguments: &[EstimateArg<'_>]) -> SizeEstimate {
    arguments.first().map_or(SizeEstimate::UNKNOWN, |argument| argument.size)
}

pub(super) fn estimate(cost: CostEstimate) -> CallEstimate {
    CallEstimate { cost, result_size: None }
}

pub(super) fn sized(cost: CostEstimate, size: SizeEstimate) -> CallEstimate {
    CallEstimate { cost, result_size: Some(size) }
}

/// What looking once through the first argument may cost.
pub(super) fn estimate_traversed(arguments: &[EstimateArg<'_>]) -> CallEstimate {
    estimate(first_size(arguments).cost(STRING_TRAVERSAL_FACTOR))
}

/// The same, for what gives a text of that size.
pub(super) fn estimate_traversed_sized(arguments: &[EstimateArg<'_>]) -> CallEstimate {
    let size = first_size(arguments);
    sized(size.cost(STRING_TRAVERSAL_FACTOR), size)
}

/// What going through all of a value costs.
pub(super) fn tree_traversal(value: &Value<'_>) -> u64 {
    match value {
        Value::String(text) => (text.len() as f64 * STRING_TRAVERSAL_FACTOR) as u64,
        Value::Bytes(bytes) => (bytes.len() as f64 * STRING_TRAVERSAL_FACTOR) as u64,
        Value::List(list) => list.iter().map(|item| tree_traversal(&item)).sum(),
        Value::Map(map) => map_traversal(map),
        _ => 1,
    }
}

fn map_traversal(map: &Map<'_>) -> u64 {
    map.iter().map(|(key, value)| tree_traversal(&key) + tree_traversal(&value)).sum()
}

//! Lists as Kubernetes extends them: `isSorted`, `sum`, `min`, `max`, `indexOf`, `lastIndexOf`.

use super::argument::*;
use super::order::{compare, same};
use crate::cost::STRING_TRAVERSAL_FACTOR;
use crate::{
    CallEstimate, CallFn, CostEstimate, EstimateArg, EvalError, Function, Library, Overload, Span, Type, Value,
};
use std::cmp::Ordering;

/// Types that have an order, with the overloads that are theirs: sorted, max, min.
fn ordered() -> [(Type, [&'static str; 3]); 8] {
    [
        (Type::Int, ["list_int_is_sorted_bool", "list_int_max_int", "list_int_min_int"]),
        (Type::Uint, ["list_uint_is_sorted_bool", "list_uint_max_uint", "list_uint_min_uint"]),
        (Type::Double, ["list_double_is_sorted_bool", "list_double_max_double", "list_double_min_double"]),
        (Type::Bool, ["list_bool_is_sorted_bool", "list_bool_max_bool", "list_bool_min_bool"]),
        (Type::Duration, ["list_duration_is_sorted_bool", "list_duration_max_duration", "list_duration_min_duration"]),
        (
            Type::Timestamp,
            ["list_timestamp_is_sorted_bool", "list_timestamp_max_timestamp", "list_timestamp_min_timestamp"],
        ),
        (Type::String, ["list_string_is_sorted_bool", "list_string_max_string", "list_string_min_string"]),
        (Type::Bytes, ["list_bytes_is_sorted_bool", "list_bytes_max_bytes", "list_bytes_min_bytes"]),
    ]
}

/// The most or the least of a list: the one that no other is `better` than.
fn best<'a>(arguments: &[Value<'a>], name: &str, better: Ordering) -> Result<Value<'a>, EvalError> {
    let mut items = list(arguments, 0)?.iter();
    let mut best = items.next().ok_or_else(|| failed(format!("{name} called on empty list")))?;
    for item in items {
        // A number that is none is neither more nor less.
        match compare(&item, &best) {
            Some(order) if order == better => best = item,
            None if !matches!(item, Value::Double(_)) => return Err(EvalError::NoSuchOverload),
            _ => {}
        }
    }
    Ok(best)
}

fn is_sorted(arguments: &[Value<'_>]) -> Result<bool, EvalError> {
    let items = list(arguments, 0)?;
    let mut pairs = items.iter().zip(items.iter().skip(1));
    Ok(pairs.all(|(a, b)| compare(&a, &b) != Some(Ordering::Greater)))
}

fn sum<'a>(arguments: &[Value<'a>], zero: Value<'a>) -> Result<Value<'a>, EvalError> {
    let plus = |sum: Value<'a>, item: Value<'a>| match (sum, item) {
        (Value::Int(a), Value::Int(b)) => a.checked_add(b).map(Value::Int).ok_or(EvalError::IntegerOverflow),
        (Value::Uint(a), Value::Uint(b)) => a.checked_add(b).map(Value::Uint).ok_or(EvalError::UnsignedOverflow),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a + b)),
        (Value::Duration(a), Value::Duration(b)) => {
            let sum = a.0.checked_add(b.0).map(|sum| Value::Duration(Span(sum)));
            sum.ok_or(EvalError::IntegerOverflow)
        }
        _ => Err(EvalError::NoSuchOverload),
    };
    list(arguments, 0)?.iter().try_fold(zero, plus)
}

/// What going through all elements costs.
pub(super) fn cost(arguments: &[Value<'_>], _result: &Value<'_>) -> u64 {
    arguments.first().map_or(0, tree_traversal)
}

pub(super) fn estimate_elements(arguments: &[EstimateArg<'_>]) -> CallEstimate {
    let Some(target) = arguments.first() else { return estimate(CostEstimate::ONE) };
    let element = match target.value {
        Type::List(list) => &list.element,
        // A text that is searched.
        _ => return estimate(target.size.cost(STRING_TRAVERSAL_FACTOR)),
    };
    let mut each = CostEstimate::ONE;
    if matches!(element, Type::String | Type::Bytes) {
        each = each.plus(target.element_size.cost(STRING_TRAVERSAL_FACTOR));
    }
    estimate(CostEstimate { min: target.size.min, max: target.size.max }.times(each))
}

fn through(overload: Overload) -> Overload {
    overload.cost(cost).estimate(estimate_elements)
}

fn each(name: &str, at: usize, result: fn(&Type) -> Type, call: CallFn) -> Function {
    let overloads = ordered().map(|(element, ids)| {
        let result = result(&element);
        through(Overload::member(ids[at], [Type::list(element)], result, call))
    });
    Function::new(name, overloads)
}

pub(super) fn library() -> Library {
    let summed =
        |id, element: Type, call: CallFn| through(Overload::member(id, [Type::list(element.clone())], element, call));
    let a = || Type::param("A");
    let found = |id, call: CallFn| through(Overload::member(id, [Type::list(a()), a()], Type::Int, call));
    let functions = vec![
        each("isSorted", 0, |_| Type::Bool, |_, a| is_sorted(a).map(Value::Bool)),
        each("max", 1, Type::clone, |_, a| best(a, "max", Ordering::Greater)),
        each("min", 2, Type::clone, |_, a| best(a, "min", Ordering::Less)),
        Function::new(
            "sum",
            [
                summed("list_int_sum_int", Type::Int, |_, a| sum(a, Value::Int(0))),
                summed("list_uint_sum_uint", Type::Uint, |_, a| sum(a, Value::Uint(0))),
                summed("list_double_sum_double", Type::Double, |_, a| sum(a, Value::Double(0.0))),
                summed("list_duration_sum_duration", Type::Duration, |_, a| sum(a, Value::Duration(Span(0)))),
            ],
        ),
        Function::new(
            "indexOf",
            [found("list_a_index_of_int", |_, a| {
                let at = list(a, 0)?.iter().position(|item| same(&item, &a[1]));
                Ok(Value::Int(at.map_or(-1, |at| at as i64)))
            })],
        ),
        Function::new(
            "lastIndexOf",
            [found("list_a_last_index_of_int", |_, a| {
                let items = list(a, 0)?;
                let at = (0..items.len()).rev().find(|at| items.get(*at).is_some_and(|item| same(&item, &a[1])));
                Ok(Value::Int(at.map_or(-1, |at| at as i64)))
            })],
        ),
    ];
    Library { functions, ..Library::default() }
}

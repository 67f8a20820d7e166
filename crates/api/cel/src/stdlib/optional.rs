//! Values that may be absent: `optional.of`, `hasValue`, `orValue` and others.

use super::{function, global, member, no_overload};
use crate::error::EvalError;
use crate::function::{CallContext, Function};
use crate::types::Type;
use crate::value::{Map, Value};

pub(super) fn functions() -> Vec<Function> {
    let v = || Type::param("V");
    let some = || Type::optional(v());
    let list = || Type::list(v());
    let none: crate::CallFn = |_, _| Ok(Value::Optional(None));
    vec![
        function("optional.of", vec![global("optional_of", &[v()], some(), |_, a| Ok(Value::some(a[0].clone())))]),
        function(
            "optional.ofNonZeroValue",
            vec![global("optional_ofNonZeroValue", &[v()], some(), |_, a| {
                Ok(if is_zero(&a[0]) { Value::Optional(None) } else { Value::some(a[0].clone()) })
            })],
        ),
        function("optional.none", vec![global("optional_none", &[], some(), none)]),
        function("value", vec![member("optional_value", &[some()], v(), value)]),
        function(
            "hasValue",
            vec![member("optional_hasValue", &[some()], Type::Bool, |_, a| match &a[0] {
                Value::Optional(inner) => Ok(inner.is_some().into()),
                _ => no_overload(),
            })],
        ),
        // These two are steps of their own, so that the second is only evaluated when it is needed.
        function("or", vec![member("optional_or_optional", &[some(), some()], some(), |_, _| no_overload())]),
        function("orValue", vec![member("optional_orValue_value", &[some(), v()], v(), |_, _| no_overload())]),
        function("optional.unwrap", vec![global("optional_unwrap", &[Type::list(some())], list(), unwrap)]),
        function("unwrapOpt", vec![member("optional_unwrapOpt", &[Type::list(some())], list(), unwrap)]),
        function("first", vec![member("list_first", &[list()], some(), |_, a| end(&a[0], false))]),
        function("last", vec![member("list_last", &[list()], some(), |_, a| end(&a[0], true))]),
    ]
}

fn value<'a>(_: &mut CallContext<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    match &arguments[0] {
        Value::Optional(Some(inner)) => Ok((**inner).clone()),
        Value::Optional(None) => Err(EvalError::other("optional.none() dereference")),
        _ => no_overload(),
    }
}

fn unwrap<'a>(_: &mut CallContext<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let Value::List(list) = &arguments[0] else { return no_overload() };
    let mut items = Vec::new();
    for item in list.iter() {
        match item {
            Value::Optional(inner) => items.extend(inner.map(|inner| (*inner).clone())),
            other => return Err(EvalError::other(format!("value {other:?} is not optional"))),
        }
    }
    Ok(items.into())
}

fn end<'a>(list: &Value<'a>, last: bool) -> Result<Value<'a>, EvalError> {
    let Value::List(list) = list else { return no_overload() };
    let place = if last { list.len().wrapping_sub(1) } else { 0 };
    Ok(list.get(place).map_or(Value::Optional(None), Value::some))
}

fn is_zero(value: &Value<'_>) -> bool {
    match value {
        Value::Null | Value::Optional(None) => true,
        Value::Bool(value) => !value,
        Value::Int(value) => *value == 0,
        Value::Uint(value) => *value == 0,
        Value::Double(value) => *value == 0.0,
        Value::Duration(span) => span.0 == 0,
        Value::Timestamp(time) => time.as_second() == -62_135_596_800 && time.subsec_nanosecond() == 0,
        Value::String(_) | Value::Bytes(_) | Value::List(_) => value.size() == 0,
        Value::Map(Map::Object(fields, _)) => fields.is_empty(),
        Value::Map(map) => map.is_empty(),
        Value::Struct(made) => made.fields.iter().all(|field| is_zero(&field.1)),
        Value::Opaque(value) => value.is_zero(),
        Value::Type(_) | Value::Optional(Some(_)) => false,
    }
}

//! Conversions between types: `int("1")`, `string(1.5)`, `timestamp("…")`, `type(x)`, `dyn(x)`.

use super::{function, global, no_overload};
use crate::cost::{CallEstimate, STRING_TRAVERSAL_FACTOR, SizeEstimate, scale};
use crate::error::EvalError;
use crate::function::{CallContext, CallFn, Function, Overload};
use crate::time;
use crate::types::Type::{self, *};
use crate::value::{Span, Value};

type Outcome<'a> = Result<Value<'a>, EvalError>;

pub(super) fn functions() -> Vec<Function> {
    let a = Type::param("A");
    let same: CallFn = |_, a| Ok(a[0].clone());
    let of = |id, from: Type, to: Type, call: CallFn| global(id, &[from], to, call);
    let mut functions = vec![
        function(
            "type",
            vec![of("type", a.clone(), Type::type_of(a.clone()), |_, a| Ok(Value::Type(a[0].runtime_type())))],
        ),
        function("dyn", vec![of("to_dyn", a, Dyn, same)]),
        function("bool", vec![of("bool_to_bool", Bool, Bool, same), of("string_to_bool", String, Bool, to_bool)]),
        function(
            "bytes",
            vec![
                of("bytes_to_bytes", Bytes, Bytes, same),
                copied(of("string_to_bytes", String, Bytes, to_bytes), 4, 1),
            ],
        ),
        function(
            "duration",
            vec![
                of("duration_to_duration", Duration, Duration, same),
                of("string_to_duration", String, Duration, to_duration),
            ],
        ),
        function(
            "timestamp",
            vec![
                of("timestamp_to_timestamp", Timestamp, Timestamp, same),
                of("int64_to_timestamp", Int, Timestamp, to_timestamp),
                of("string_to_timestamp", String, Timestamp, to_timestamp),
            ],
        ),
    ];
    functions.extend(numbers(same));
    functions.push(texts(same));
    functions
}

fn numbers(same: CallFn) -> [Function; 3] {
    let of = |id, from: Type, to: Type, call: CallFn| global(id, &[from], to, call);
    [
        function(
            "double",
            vec![
                of("double_to_double", Double, Double, same),
                of("int64_to_double", Int, Double, to_double),
                of("string_to_double", String, Double, to_double),
                of("uint64_to_double", Uint, Double, to_double),
            ],
        ),
        function(
            "int",
            vec![
                of("int64_to_int64", Int, Int, same),
                of("double_to_int64", Double, Int, to_int),
                of("duration_to_int64", Duration, Int, to_int),
                of("string_to_int64", String, Int, to_int),
                of("timestamp_to_int64", Timestamp, Int, to_int),
                of("uint64_to_int64", Uint, Int, to_int),
            ],
        ),
        function(
            "uint",
            vec![
                of("uint64_to_uint64", Uint, Uint, same),
                of("double_to_uint64", Double, Uint, to_uint),
                of("int64_to_uint64", Int, Uint, to_uint),
                of("string_to_uint64", String, Uint, to_uint),
            ],
        ),
    ]
}

fn texts(same: CallFn) -> Function {
    let of = |id, from: Type, call: CallFn| global(id, &[from], String, call);
    function(
        "string",
        vec![
            of("string_to_string", String, same),
            of("bool_to_string", Bool, to_text),
            copied(of("bytes_to_string", Bytes, to_text), 1, 4),
            of("double_to_string", Double, to_text),
            of("duration_to_string", Duration, to_text),
            of("int64_to_string", Int, to_text),
            of("timestamp_to_string", Timestamp, to_text),
            of("uint64_to_string", Uint, to_text),
        ],
    )
}

/// The cost of going through the argument once; the result has at most `most` times and at least a `least`th of its
/// size.
fn copied(overload: Overload, most: u64, least: u64) -> Overload {
    let overload = overload.cost(|a, _| scale(a[0].size(), STRING_TRAVERSAL_FACTOR));
    match (most, least) {
        (4, 1) => overload.estimate(|a| CallEstimate {
            cost: a[0].size.cost(STRING_TRAVERSAL_FACTOR),
            result_size: Some(SizeEstimate { min: a[0].size.min, max: a[0].size.max.saturating_mul(4) }),
        }),
        _ => overload.estimate(|a| CallEstimate {
            cost: a[0].size.cost(STRING_TRAVERSAL_FACTOR),
            result_size: Some(SizeEstimate { min: a[0].size.min / 4, max: a[0].size.max }),
        }),
    }
}

fn to_bool<'a>(_: &mut CallContext<'_>, arguments: &[Value<'a>]) -> Outcome<'a> {
    match arguments[0].as_str() {
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true.into()),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false.into()),
        Some(other) => Err(EvalError::other(format!("strconv.ParseBool: parsing {other:?}: invalid syntax"))),
        None => no_overload(),
    }
}

fn to_bytes<'a>(_: &mut CallContext<'_>, arguments: &[Value<'a>]) -> Outcome<'a> {
    let text = arguments[0].as_str().ok_or(EvalError::NoSuchOverload)?;
    Ok(Value::Bytes(text.as_bytes().into()))
}

fn to_duration<'a>(_: &mut CallContext<'_>, arguments: &[Value<'a>]) -> Outcome<'a> {
    let text = arguments[0].as_str().ok_or(EvalError::NoSuchOverload)?;
    let parsed = time::parse_duration(text).map(Value::Duration);
    parsed.ok_or_else(|| {
        let digits_only = !text.is_empty() && text.trim_start_matches(['-', '+']).parse::<f64>().is_ok();
        let problem = if digits_only { "missing unit in" } else { "invalid" };
        EvalError::other(format!("time: {problem} duration {text:?}"))
    })
}

fn to_timestamp<'a>(_: &mut CallContext<'_>, arguments: &[Value<'a>]) -> Outcome<'a> {
    let range = || EvalError::other("timestamp overflow");
    match &arguments[0] {
        Value::Int(seconds) => {
            let found = jiff::Timestamp::from_second(*seconds).ok().filter(time::in_range);
            found.map(Value::Timestamp).ok_or_else(range)
        }
        Value::String(text) => time::parse_timestamp(text).map(Value::Timestamp).ok_or_else(|| {
            let text = text.as_str();
            EvalError::other(format!(
                "parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as \"2006\""
            ))
        }),
        _ => no_overload(),
    }
}

fn number_problem(function: &str, text: &str, overflow: bool) -> EvalError {
    let problem = if overflow { "value out of range" } else { "invalid syntax" };
    EvalError::other(format!("strconv.{function}: parsing {text:?}: {problem}"))
}

fn to_double<'a>(_: &mut CallContext<'_>, arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Double(match &arguments[0] {
        Value::Int(value) => *value as f64,
        Value::Uint(value) => *value as f64,
        Value::String(text) => {
            let value: f64 = text.parse().map_err(|_| number_problem("ParseFloat", text, false))?;
            let named = text.to_ascii_lowercase().contains("inf");
            if value.is_infinite() && !named {
                return Err(number_problem("ParseFloat", text, true));
            }
            value
        }
        _ => return no_overload(),
    }))
}

fn to_int<'a>(_: &mut CallContext<'_>, arguments: &[Value<'a>]) -> Outcome<'a> {
    let overflow = || EvalError::IntegerOverflow;
    Ok(Value::Int(match &arguments[0] {
        Value::Uint(value) => i64::try_from(*value).map_err(|_| overflow())?,
        Value::Double(value) if *value > -9.223372036854775e18 && *value < 9.223372036854775e18 => *value as i64,
        Value::Double(_) => return Err(overflow()),
        Value::Duration(Span(nanoseconds)) => *nanoseconds,
        Value::Timestamp(time) => time.as_nanosecond().div_euclid(1_000_000_000) as i64,
        Value::String(text) => text.parse().map_err(|error: std::num::ParseIntError| {
            use std::num::IntErrorKind::{NegOverflow, PosOverflow};
            number_problem("ParseInt", text, matches!(error.kind(), PosOverflow | NegOverflow))
        })?,
        _ => return no_overload(),
    }))
}

fn to_uint<'a>(_: &mut CallContext<'_>, arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Uint(match &arguments[0] {
        Value::Int(value) => u64::try_from(*value).map_err(|_| EvalError::UnsignedOverflow)?,
        Value::Double(value) if *value >= 0.0 && *value < 1.844674407370955e19 => *value as u64,
        Value::Double(_) => return Err(EvalError::UnsignedOverflow),
        Value::String(text) => text.parse().map_err(|error: std::num::ParseIntError| {
            number_problem("ParseUint", text, *error.kind() == std::num::IntErrorKind::PosOverflow)
        })?,
        _ => return no_overload(),
    }))
}

fn to_text<'a>(_: &mut CallContext<'_>, arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::from(match &arguments[0] {
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Uint(value) => value.to_string(),
        Value::Double(value) => double_text(*value),
        Value::Duration(span) => time::format_duration(*span),
        Value::Timestamp(time) => time::format_timestamp(*time),
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => return Err(EvalError::other("invalid UTF-8 in bytes, cannot convert to string")),
        },
        _ => return no_overload(),
    }))
}

/// Go's `%g` with as many digits as needed: exponents below -4 and from 6 on are written out.
pub(crate) fn double_text(value: f64) -> std::string::String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf".into() } else { "-Inf".into() };
    }
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        return format!("{value}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

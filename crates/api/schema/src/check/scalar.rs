//! Scalars as Go's decoder takes them, with its words for what it does not take.

use crate::Shape;
use pintle_types::quantity::Quantity;
use serde_json::{Number, Value};

/// What is wrong with a scalar.
pub(super) enum Problem {
    /// The kind of JSON value, for `cannot unmarshal … into`; and the type, where it is not the field's.
    Mismatch(String, Option<&'static str>),
    /// A whole message.
    Message(String),
}

pub(crate) fn json_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Checks a value that is not null.
pub(super) fn check(shape: Shape<'_>, value: &Value) -> Result<(), Problem> {
    let mismatch = || Err(Problem::Mismatch(json_kind(value).to_owned(), None));
    match (shape, value) {
        (Shape::String, Value::String(_)) | (Shape::Bool, Value::Bool(_)) | (Shape::Number, Value::Number(_)) => Ok(()),
        (Shape::Int32, Value::Number(n)) => integer(n, |i| i32::try_from(i).is_ok()),
        (Shape::Int64, Value::Number(n)) => integer(n, |_| true),
        (Shape::Quantity, value) => quantity(value),
        (Shape::IntOrString, value) => int_or_string(value),
        (Shape::Time | Shape::MicroTime, value) => time(shape, value),
        (Shape::Bytes, Value::String(text)) => base64(text),
        (Shape::Bytes, Value::Array(_)) | (Shape::Any, _) => Ok(()),
        _ => mismatch(),
    }
}

fn integer(number: &Number, fits: impl Fn(i64) -> bool) -> Result<(), Problem> {
    match number.as_i64() {
        Some(i) if fits(i) => Ok(()),
        _ => Err(Problem::Mismatch(format!("number {number}"), None)),
    }
}

fn quantity(value: &Value) -> Result<(), Problem> {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match text.parse::<Quantity>() {
        Ok(_) => Ok(()),
        Err(_) if well_formed(&text) => Err(Problem::Message("unable to parse quantity's suffix".into())),
        Err(error) => Err(Problem::Message(error.to_string())),
    }
}

/// Whether only the suffix is at fault.
fn well_formed(text: &str) -> bool {
    let rest = text.trim_start_matches(['+', '-']);
    let number = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    let after = number.strip_prefix('.').map_or(number, |f| f.trim_start_matches(|c: char| c.is_ascii_digit()));
    let letters = after.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let digits = letters.strip_prefix(['+', '-']).unwrap_or(letters);
    after.len() < rest.len() && digits.chars().all(|c| c.is_ascii_digit())
}

fn int_or_string(value: &Value) -> Result<(), Problem> {
    match value {
        Value::String(_) => Ok(()),
        Value::Number(n) if n.as_i64().is_some_and(|i| i32::try_from(i).is_ok()) => Ok(()),
        Value::Number(n) => Err(Problem::Mismatch(format!("number {n}"), Some("int32"))),
        other => Err(Problem::Mismatch(json_kind(other).to_owned(), Some("int32"))),
    }
}

fn time(shape: Shape<'_>, value: &Value) -> Result<(), Problem> {
    let Value::String(text) = value else {
        return Err(Problem::Mismatch(json_kind(value).to_owned(), Some("string")));
    };
    let layout = match shape {
        Shape::MicroTime => "2006-01-02T15:04:05.000000Z07:00",
        _ => "2006-01-02T15:04:05Z07:00",
    };
    crate::time::check(text, layout).map_err(Problem::Message)
}

/// Standard base64 with padding; line breaks are skipped.
fn base64(text: &str) -> Result<(), Problem> {
    let wrong = |at: usize| Err(Problem::Message(format!("illegal base64 data at input byte {at}")));
    let mut seen = 0;
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'\r' | b'\n' => {}
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' => seen += 1,
            b'=' if seen % 4 >= 2 => return base64_end(bytes, at, seen % 4).or_else(wrong),
            _ => return wrong(at),
        }
        at += 1;
    }
    if seen % 4 == 0 { Ok(()) } else { wrong(bytes.len() - seen % 4) }
}

/// After the first `=`: none when all is well, else where it is not.
fn base64_end(bytes: &[u8], at: usize, seen: usize) -> Result<(), usize> {
    let mut rest = bytes[at + 1..].iter().enumerate().filter(|(_, b)| !matches!(b, b'\r' | b'\n'));
    if seen == 2 {
        match rest.next() {
            Some((_, b'=')) => {}
            Some((i, _)) => return Err(at + 1 + i),
            None => return Err(bytes.len()),
        }
    }
    rest.next().map_or(Ok(()), |(i, _)| Err(at + 1 + i))
}

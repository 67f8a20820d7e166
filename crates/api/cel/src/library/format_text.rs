//! `"…%s…".format([…])`: texts from a pattern and values.

use super::double_text;
use crate::{EvalError, List, Map, Value, time};

const DEFAULT_PRECISION: usize = 6;
/// Go prints that many digits; more are refused, as they are never meant.
const MAX_PRECISION: usize = 1000;
/// Longer texts are refused.
const MAX_BYTES: usize = 8 << 20;

fn wrong(message: impl Into<String>) -> EvalError {
    EvalError::other(message)
}

/// The pattern with each clause replaced by the next value.
pub(super) fn format(pattern: &str, values: &List<'_>) -> Result<String, EvalError> {
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern;
    let mut next = 0;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        let value = values.get(next).ok_or_else(|| wrong(format!("index {next} out of range")))?;
        if rest.is_empty() {
            return Err(wrong("unexpected end of string"));
        }
        let (clause, after) = Clause::parse(rest)?;
        out.push_str(&clause.apply(&value).map_err(|why| wrong(format!("error during formatting: {why}")))?);
        if out.len() > MAX_BYTES {
            return Err(EvalError::CostLimit);
        }
        rest = after;
        next += 1;
    }
    out.push_str(rest);
    Ok(out)
}

struct Clause {
    letter: char,
    precision: usize,
}

impl Clause {
    /// What follows a `%`, and the text after it.
    fn parse(text: &str) -> Result<(Self, &str), EvalError> {
        let (precision, rest) = match text.strip_prefix('.') {
            None => (DEFAULT_PRECISION, text),
            Some(after) => {
                let end = after.find(|c: char| !c.is_ascii_digit());
                let end = end.ok_or_else(|| precision_error("could not find end of precision specifier"))?;
                let digits = &after[..end];
                let number = digits.parse().ok().filter(|n| *n <= MAX_PRECISION);
                let why = format!(
                    "error while converting precision to integer: strconv.Atoi: parsing {digits:?}: invalid syntax"
                );
                (number.ok_or_else(|| precision_error(&why))?, &after[end..])
            }
        };
        let mut chars = rest.chars();
        match chars.next() {
            Some(letter) if "sdfebxXo".contains(letter) => Ok((Self { letter, precision }, chars.as_str())),
            letter => {
                let letter = letter.map(String::from).unwrap_or_default();
                Err(wrong(format!("could not parse formatting clause: unrecognized formatting clause \"{letter}\"")))
            }
        }
    }

    fn apply(&self, value: &Value<'_>) -> Result<String, String> {
        match self.letter {
            's' => text(value),
            'd' => decimal(value),
            'f' => double(value, "fixed-point").map(|v| double_text::fixed(v, self.precision)),
            'e' => double(value, "scientific").map(|v| double_text::scientific(v, self.precision)),
            'b' => binary(value),
            'o' => octal(value),
            letter => hexadecimal(value, letter == 'X'),
        }
    }
}

fn precision_error(why: &str) -> EvalError {
    wrong(format!("could not parse formatting clause: error while parsing precision: {why}"))
}

fn type_name(value: &Value<'_>) -> String {
    value.runtime_type().runtime_name().to_owned()
}

/// `%s`.
fn text(value: &Value<'_>) -> Result<String, String> {
    Ok(match value {
        Value::Null => "null".into(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Uint(value) => value.to_string(),
        Value::Double(value) => double_text::shortest(*value),
        Value::String(text) => text.as_str().to_owned(),
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Timestamp(time) => time.to_string(),
        Value::Duration(span) => time::format_duration(*span),
        Value::Type(named) => named.runtime_name().to_owned(),
        Value::List(list) => list_text(list)?,
        Value::Map(map) => map_text(map)?,
        other => {
            return Err(format!(
                "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, \
                 durations, and timestamps, was given {}",
                type_name(other)
            ));
        }
    })
}

/// A value inside of a list or a map.
fn inner(value: &Value<'_>) -> Result<String, String> {
    Ok(match value {
        Value::String(text) => format!("{:?}", text.as_str()),
        Value::Bytes(bytes) => format!("b{:?}", String::from_utf8_lossy(bytes)),
        Value::Timestamp(time) => format!("timestamp({:?})", time.to_string()),
        Value::Duration(span) => format!("duration({:?})", time::format_duration(*span)),
        Value::Double(value) if !value.is_finite() => format!("{:?}", double_text::shortest(*value)),
        Value::Double(value) => format!("{value:.DEFAULT_PRECISION$}"),
        Value::Opaque(_) | Value::Struct(_) | Value::Optional(_) => {
            return Err(format!("no formatting function for {}", type_name(value)));
        }
        other => text(other)?,
    })
}

fn list_text(list: &List<'_>) -> Result<String, String> {
    let items: Vec<String> = list.iter().map(|item| inner(&item)).collect::<Result<_, _>>()?;
    Ok(format!("[{}]", items.join(", ")))
}

fn map_text(map: &Map<'_>) -> Result<String, String> {
    let mut entries = Vec::with_capacity(map.len());
    for (key, value) in map.iter() {
        if !matches!(key, Value::String(_) | Value::Bool(_) | Value::Int(_) | Value::Uint(_)) {
            return Err(format!("no formatting function for map key of type {}", type_name(&key)));
        }
        entries.push((inner(&key)?, inner(&value)?));
    }
    entries.sort();
    let entries: Vec<String> = entries.into_iter().map(|(key, value)| format!("{key}:{value}")).collect();
    Ok(format!("{{{}}}", entries.join(", ")))
}

fn decimal(value: &Value<'_>) -> Result<String, String> {
    match value {
        Value::Int(value) => Ok(value.to_string()),
        Value::Uint(value) => Ok(value.to_string()),
        other => Err(format!("decimal clause can only be used on integers, was given {}", type_name(other))),
    }
}

fn double(value: &Value<'_>, clause: &str) -> Result<f64, String> {
    match value {
        Value::Double(value) => Ok(*value),
        Value::String(text) if text.as_str() == "NaN" => Ok(f64::NAN),
        Value::String(text) if text.as_str() == "Infinity" => Ok(f64::INFINITY),
        Value::String(text) if text.as_str() == "-Infinity" => Ok(f64::NEG_INFINITY),
        other => Err(format!("{clause} clause can only be used on doubles, was given {}", type_name(other))),
    }
}

fn signed(value: i64, digits: impl Fn(u64) -> String) -> String {
    format!("{}{}", if value < 0 { "-" } else { "" }, digits(value.unsigned_abs()))
}

fn binary(value: &Value<'_>) -> Result<String, String> {
    match value {
        Value::Int(value) => Ok(signed(*value, |v| format!("{v:b}"))),
        Value::Uint(value) => Ok(format!("{value:b}")),
        Value::Bool(value) => Ok(if *value { "1" } else { "0" }.into()),
        other => Err(format!("only integers and bools can be formatted as binary, was given {}", type_name(other))),
    }
}

fn octal(value: &Value<'_>) -> Result<String, String> {
    match value {
        Value::Int(value) => Ok(signed(*value, |v| format!("{v:o}"))),
        Value::Uint(value) => Ok(format!("{value:o}")),
        other => Err(format!("octal clause can only be used on integers, was given {}", type_name(other))),
    }
}

fn hexadecimal(value: &Value<'_>, upper: bool) -> Result<String, String> {
    let of_bytes = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let text = match value {
        Value::Int(value) => signed(*value, |v| format!("{v:x}")),
        Value::Uint(value) => format!("{value:x}"),
        Value::String(text) => of_bytes(text.as_bytes()),
        Value::Bytes(bytes) => of_bytes(bytes),
        other => {
            return Err(format!(
                "only integers, byte buffers, and strings can be formatted as hex, was given {}",
                type_name(other)
            ));
        }
    };
    Ok(if upper { text.to_uppercase() } else { text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clauses() {
        let values = List::Json(&[], None);
        assert_eq!(format("100%%", &values).unwrap(), "100%");
        for (pattern, value, text) in [
            ("%s", serde_json::json!(2.71), "2.71"),
            ("%s", serde_json::json!([2.71, "a", null, {"b": 1}]), "[2.710000, \"a\", null, {\"b\":1}]"),
            ("%d items", serde_json::json!(7), "7 items"),
            ("%x", serde_json::json!(-30), "-1e"),
            ("%X", serde_json::json!("Hello world!"), "48656C6C6F20776F726C6421"),
            ("%b", serde_json::json!(true), "1"),
            ("%o", serde_json::json!(-11), "-13"),
            ("%.3f", serde_json::json!(10000.1234), "10,000.123"),
        ] {
            let values = [value];
            assert_eq!(format(pattern, &List::Json(&values, None)).unwrap(), text, "{pattern}");
        }
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let values = [serde_json::json!("x")];
        let values = List::Json(&values, None);
        for (pattern, error) in [
            ("%d", "error during formatting: decimal clause can only be used on integers, was given string"),
            ("%q", "could not parse formatting clause: unrecognized formatting clause \"q\""),
            ("%s %s", "index 1 out of range"),
        ] {
            assert_eq!(format(pattern, &values).unwrap_err().to_string(), error);
        }
    }
}

//! Numbers: ports, ranges, and what may be a number or a percentage.

use super::Errors;
use crate::tree;
use pintle_types::field::Path;
use serde_json::Value;

pub(crate) const PORT: &str = "must be between 1 and 65535, inclusive";
pub(crate) const NOT_NEGATIVE: &str = "must be greater than or equal to 0";
const PERCENT: &str = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', \
                       regex used for validation is '[0-9]+%')";

pub(crate) fn is_port(number: i64) -> bool {
    (1..=65535).contains(&number)
}

pub(crate) fn port(errors: &mut Errors, path: &Path, number: i64) {
    if !is_port(number) {
        errors.invalid(path, number, PORT);
    }
}

/// What is wrong with the name of a port.
pub(crate) fn port_name(name: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let mut push = |wrong: bool, words: &str| {
        if wrong {
            errors.push(words.to_owned());
        }
    };
    push(name.len() > 15, "must be no more than 15 characters");
    let simple = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    push(
        !name.is_empty() && !name.chars().all(simple) || name.is_empty(),
        "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
    );
    push(
        !name.chars().any(|c| c.is_ascii_lowercase()) && name.chars().all(simple),
        "must contain at least one letter (a-z)",
    );
    push(name.contains("--"), "must not contain consecutive hyphens");
    push(name.starts_with('-') || name.ends_with('-'), "must not begin or end with a hyphen");
    errors
}

/// A port by number or by name; absent counts as 0.
pub(crate) fn port_or_name(errors: &mut Errors, path: &Path, value: &Value) {
    match value {
        Value::String(name) => errors.invalid_for(path, name, port_name(name)),
        other => port(errors, path, other.as_i64().unwrap_or(0)),
    }
}

pub(crate) fn not_negative(errors: &mut Errors, path: &Path, number: i64) {
    if number < 0 {
        errors.invalid(path, number, NOT_NEGATIVE);
    }
}

/// Several fields of an object that must not be negative.
pub(crate) fn fields_not_negative(errors: &mut Errors, path: &Path, object: &Value, fields: &[&str]) {
    for field in fields {
        not_negative(errors, &path.child(field), tree::int(object, field));
    }
}

/// A whole number that is not negative, or a percentage.
pub(crate) fn count_or_percent(errors: &mut Errors, path: &Path, value: &Value) {
    match value {
        Value::String(text) if percent(value).is_none() => errors.invalid(path, text.as_str(), PERCENT),
        Value::Number(_) => not_negative(errors, path, value.as_i64().unwrap_or(0)),
        _ => {}
    }
}

/// The number before the percent sign.
pub(crate) fn percent(value: &Value) -> Option<i64> {
    let digits = value.as_str()?.strip_suffix('%')?;
    (!digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit())).then(|| digits.parse().unwrap_or(i64::MAX))
}

/// A percentage of at most 100.
pub(crate) fn not_over_100(errors: &mut Errors, path: &Path, value: &Value) {
    if percent(value).is_some_and(|number| number > 100) {
        errors.invalid(path, value.clone(), "must not be greater than 100%");
    }
}

/// Whether a number or percentage is zero, as an absent one is.
pub(crate) fn is_zero(value: &Value) -> bool {
    match value {
        Value::String(_) => percent(value).unwrap_or(0) == 0,
        other => other.as_i64().unwrap_or(0) == 0,
    }
}

/// A user or group ID.
pub(crate) fn id(errors: &mut Errors, path: &Path, number: i64) {
    if !(0..=i64::from(i32::MAX)).contains(&number) {
        errors.invalid(path, number, "must be between 0 and 2147483647, inclusive");
    }
}

/// Permissions of a file.
pub(crate) fn mode(errors: &mut Errors, path: &Path, object: &Value, field: &str) {
    let Some(number) = object.get(field).and_then(Value::as_i64) else { return };
    if !(0..=0o777).contains(&number) {
        errors.invalid(&path.child(field), number, "must be a number between 0 and 0777 (octal), both inclusive");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_ports() {
        for (name, errors) in [("http", 0), ("a-1", 0), ("1", 1), ("-a", 1), ("a--b", 1), ("Not Valid!", 1), ("", 2)] {
            assert!(port_name(name).len() == errors || name.is_empty(), "{name}: {:?}", port_name(name));
        }
    }
}

//! Bounds of numbers, lengths and counts.

use pintle_types::field::{ErrorList, FieldError, Path};
use serde_json::Value;

pub(super) fn check(schema: &Value, value: &Value, path: &Path, errors: &mut ErrorList) {
    match value {
        Value::Number(number) => numbers(schema, number.as_f64().unwrap_or_default(), value, path, errors),
        Value::String(text) => lengths(schema, text, path, errors),
        Value::Array(items) => counts(schema, items.len(), ["maxItems", "minItems"], "items", path, errors),
        Value::Object(map) => {
            counts(schema, map.len(), ["maxProperties", "minProperties"], "properties", path, errors);
        }
        _ => {}
    }
}

fn numbers(schema: &Value, number: f64, value: &Value, path: &Path, errors: &mut ErrorList) {
    let mut wrong = |detail: &str, bound: &Value| {
        let detail = format!("{} in body should be {detail} {bound}", path.as_str());
        errors.push(FieldError::invalid(path, value.clone(), &detail));
    };
    let (max, min) = (&schema["maximum"], &schema["minimum"]);
    if let Some(bound) = max.as_f64() {
        let exclusive = schema["exclusiveMaximum"] == true;
        match exclusive {
            true if number >= bound => wrong("less than", max),
            false if number > bound => wrong("less than or equal to", max),
            _ => {}
        }
    }
    if let Some(bound) = min.as_f64() {
        let exclusive = schema["exclusiveMinimum"] == true;
        match exclusive {
            true if number <= bound => wrong("greater than", min),
            false if number < bound => wrong("greater than or equal to", min),
            _ => {}
        }
    }
    let factor = &schema["multipleOf"];
    if factor.as_f64().is_some_and(|factor| factor > 0.0 && (number / factor).fract() != 0.0) {
        wrong("a multiple of", factor);
    }
}

fn lengths(schema: &Value, text: &str, path: &Path, errors: &mut ErrorList) {
    let length = text.chars().count() as u64;
    if let Some(max) = schema["maxLength"].as_u64().filter(|max| length > *max) {
        errors.push(FieldError::too_long(path, max as usize));
    }
    if let Some(min) = schema["minLength"].as_u64().filter(|min| length < *min) {
        let detail = format!("{} in body should be at least {min} chars long", path.as_str());
        errors.push(FieldError::invalid(path, text, &detail));
    }
}

fn counts(schema: &Value, count: usize, names: [&str; 2], what: &str, path: &Path, errors: &mut ErrorList) {
    let [max, min] = names.map(|name| schema[name].as_u64());
    if let Some(max) = max.filter(|max| count as u64 > *max) {
        errors.push(FieldError::too_many(path, count, max as usize));
    }
    if let Some(min) = min.filter(|min| (count as u64) < *min) {
        let detail = format!("{} in body should have at least {min} {what}", path.as_str());
        errors.push(FieldError::invalid(path, count, &detail));
    }
}

//! `format.named("dns1123Label")` and its like: what a text must look like, and what is wrong when it does not.

use super::argument::*;
use super::url_text::Url;
use crate::cost::{REGEX_STRING_FACTOR, STRING_TRAVERSAL_FACTOR, scale};
use crate::{
    CallEstimate, CallFn, EstimateArg, EvalError, Function, Library, OpaqueValue, Overload, Type, Value, time,
};
use base64::Engine;
use pintle_types::names;
use std::any::Any;

const NAME: &str = "kubernetes.NamedFormat";
/// The length that estimates take every format's pattern to have.
const MAX_PATTERN: f64 = 128.0;

/// A format: its name, the length of its pattern (for costs), and what is wrong with a text.
struct Format {
    name: &'static str,
    pattern_size: u64,
    check: fn(&str) -> Vec<String>,
    /// Makes the value: functions of formats without arguments have no other way to say which is meant.
    call: CallFn,
}

impl OpaqueValue for &'static Format {
    fn value_type(&self) -> Type {
        Type::opaque(NAME)
    }

    fn equals(&self, other: &dyn OpaqueValue) -> bool {
        other.as_any().downcast_ref::<Self>().is_some_and(|other| self.name == other.name)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn one(fine: bool, why: &str) -> Vec<String> {
    if fine { Vec::new() } else { vec![why.to_owned()] }
}

/// A name whose rest is to come: a dash at its end is fine.
fn as_prefix(text: &str) -> String {
    match text.strip_suffix('-') {
        Some(_) => format!("{}a", text.trim_end_matches('-')),
        None => text.to_owned(),
    }
}

fn errors(result: Result<(), String>) -> Vec<String> {
    result.err().into_iter().collect()
}

fn is_uuid(text: &str) -> bool {
    let digits: Vec<u8> = text.bytes().filter(|b| *b != b'-').collect();
    let dashes = text.bytes().enumerate().filter(|(_, b)| *b == b'-').count();
    digits.len() == 32 && dashes <= 4 && digits.iter().all(u8::is_ascii_hexdigit) && groups_fit(text)
}

/// Whether dashes stand only between the groups of a UUID.
fn groups_fit(text: &str) -> bool {
    let mut digits = 0;
    text.bytes().all(|b| match b {
        b'-' => matches!(digits, 8 | 12 | 16 | 20),
        _ => {
            digits += 1;
            true
        }
    })
}

fn is_date(text: &str) -> bool {
    text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok()
}

macro_rules! formats {
    ($($name:literal, $size:literal, $check:expr;)*) => {
        [$(Format { name: $name, pattern_size: $size, check: $check, call: |_, _| named($name).ok_or(EvalError::NoSuchOverload) }),*]
    };
}

static FORMATS: [Format; 13] = formats! {
    "dns1123Label", 30, names::dns1123_label_errors;
    "dns1123Subdomain", 60, names::dns1123_subdomain_errors;
    "dns1035Label", 30, names::dns1035_label_errors;
    "qualifiedName", 60, |text| errors(names::check_label_key(text));
    "dns1123LabelPrefix", 30, |text| names::dns1123_label_errors(&as_prefix(text));
    "dns1123SubdomainPrefix", 60, |text| names::dns1123_subdomain_errors(&as_prefix(text));
    "dns1035LabelPrefix", 30, |text| names::dns1035_label_errors(&as_prefix(text));
    "labelValue", 40, |text| errors(names::check_label_value(text));
    "uri", 1103, |text| errors(Url::parse(text).map(drop));
    "uuid", 72, |text| one(is_uuid(text), "does not match the UUID format");
    "byte", 84, |text| one(base64::engine::general_purpose::STANDARD.decode(text).is_ok(), "invalid base64");
    "date", 110, |text| one(is_date(text), "invalid date");
    "datetime", 110, |text| one(time::parse_timestamp(text).is_some(), "invalid datetime");
};

fn named(name: &str) -> Option<Value<'static>> {
    FORMATS.iter().find(|format| format.name == name).map(Value::opaque)
}

fn validate_cost(arguments: &[Value<'_>], _result: &Value<'_>) -> u64 {
    let format = arguments.first().and_then(Value::downcast::<&'static Format>);
    let text = arguments.get(1).map_or(0, Value::size);
    let pattern = scale(format.map_or(0, |format| format.pattern_size), REGEX_STRING_FACTOR);
    scale(text + 1, STRING_TRAVERSAL_FACTOR).saturating_mul(pattern)
}

fn estimate_validate(arguments: &[EstimateArg<'_>]) -> CallEstimate {
    let size = arguments.get(1).map_or(crate::SizeEstimate::UNKNOWN, |text| text.size);
    estimate(size.cost(STRING_TRAVERSAL_FACTOR).scaled(MAX_PATTERN * REGEX_STRING_FACTOR))
}

pub(super) fn library() -> Library {
    let format = || Type::opaque(NAME);
    let validate: CallFn = |_, a| {
        let wrong = (opaque::<&'static Format>(a, 0)?.check)(text(a, 1)?);
        Ok(if wrong.is_empty() { Value::Optional(None) } else { Value::some(texts(wrong)) })
    };
    let mut functions = vec![
        Function::new(
            "validate",
            [Overload::member(
                "format-validate",
                [format(), Type::String],
                Type::optional(Type::list(Type::String)),
                validate,
            )
            .cost(validate_cost)
            .estimate(estimate_validate)],
        ),
        Function::new(
            "format.named",
            [Overload::global("format-named", [Type::String], Type::optional(format()), |_, a| {
                Ok(named(text(a, 0)?).map_or(Value::Optional(None), Value::some))
            })],
        ),
    ];
    functions.extend(FORMATS.iter().map(|known| {
        let id: &'static str = known.name;
        Function::new(&format!("format.{id}"), [Overload::global(id, [], format(), known.call)])
    }));
    Library { functions, ..Library::default() }
}

//! Expressions that choose devices: the variable `device`, and what compiling and cost say of them.
//!
//! Source: dynamic-resource-allocation's `cel/compile.go`, and the API's limits of what a device has.

use crate::library::{quantity, semver};
use crate::rules::kubernetes_env;
use crate::{Budget, Env, EvalError, Fields, Program, SizeEstimate, SizeEstimator, Type, Value, Variables};
use std::sync::LazyLock;

/// Bytes that an expression has at most.
pub const MOST_BYTES: usize = 10 * 1024;
/// What an expression may cost at most, as estimated when it is written.
pub const COST_LIMIT: u64 = 1_000_000;

/// Attributes or capacities that a device has at most, and so domains of them.
const MOST_ENTRIES: u64 = 32;
const MOST_DRIVER_BYTES: u64 = 63;
const MOST_ID_BYTES: u64 = 32;
const MOST_VALUE_BYTES: u64 = 64;

/// What an attribute of a device says.
#[derive(Clone, Copy, Debug)]
pub enum Attribute<'a> {
    Int(i64),
    Bool(bool),
    Text(&'a str),
    /// A semantic version.
    Version(&'a str),
}

/// A device as expressions see it. Names without a domain are the driver's own.
#[derive(Clone, Debug, Default)]
pub struct Device<'a> {
    pub driver: &'a str,
    pub attributes: Vec<(&'a str, Attribute<'a>)>,
    /// Names and quantities.
    pub capacity: Vec<(&'a str, &'a str)>,
    pub allow_multiple_allocations: bool,
}

impl<'a> Device<'a> {
    /// The variable `device`. Fails when an attribute or a capacity is not what it claims to be.
    pub fn value(&self) -> Result<Value<'a>, EvalError> {
        let mut attributes = Vec::with_capacity(self.attributes.len());
        for (name, attribute) in &self.attributes {
            let value = match attribute {
                Attribute::Int(number) => Value::Int(*number),
                Attribute::Bool(truth) => Value::Bool(*truth),
                Attribute::Text(text) => (*text).into(),
                Attribute::Version(text) => semver::value(text)?,
            };
            attributes.push((*name, value));
        }
        let mut capacity = Vec::with_capacity(self.capacity.len());
        for (name, amount) in &self.capacity {
            capacity.push((*name, quantity::value(amount)?));
        }
        Ok(Value::map(vec![
            ("driver".into(), self.driver.into()),
            ("attributes".into(), self.by_domain(attributes)),
            ("capacity".into(), self.by_domain(capacity)),
            ("allowMultipleAllocations".into(), self.allow_multiple_allocations.into()),
        ]))
    }

    /// Maps by domain; a domain that has nothing is an empty map.
    fn by_domain(&self, all: Vec<(&'a str, Value<'a>)>) -> Value<'a> {
        let mut domains: Vec<(&'a str, Vec<(Value<'a>, Value<'a>)>)> = Vec::new();
        for (name, value) in all {
            let (domain, own) = name.split_once('/').unwrap_or((self.driver, name));
            match domains.iter_mut().find(|(known, _)| *known == domain) {
                Some((_, entries)) => entries.push((own.into(), value)),
                None => domains.push((domain, vec![(own.into(), value)])),
            }
        }
        let domains = domains.into_iter().map(|(domain, entries)| (domain.into(), Value::map(entries)));
        Value::map_or(domains.collect(), Value::map(Vec::new()))
    }
}

/// Whether the selector chooses the device, a [`Device::value`]. Costs are bounded.
pub fn matches(selector: &Program, device: &Value<'_>) -> Result<bool, EvalError> {
    let variables = Variables::new().with("device", device.clone());
    let result = selector.eval(&variables, &mut Budget::new(COST_LIMIT, COST_LIMIT))?;
    result.as_bool().ok_or(EvalError::NoSuchOverload)
}

/// Why an expression can't choose devices.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// In upstream's words.
    #[error("{0}")]
    Wrong(String),
    #[error("too complex, exceeds cost limit")]
    TooComplex,
}

/// The program of a selector, which gives a truth.
pub fn compile(source: &str) -> Result<Program, SelectorError> {
    let wrong = SelectorError::Wrong;
    let checked = env().check(source).map_err(|issues| wrong(format!("compilation failed: {issues}")))?;
    let output = checked.output_type();
    if !matches!(output, Type::Bool | Type::Dyn) {
        return Err(wrong(format!("must evaluate to bool or the unknown type, not {output}")));
    }
    if checked.estimate_cost(&Sizes).max > COST_LIMIT {
        return Err(SelectorError::TooComplex);
    }
    checked.into_program(source).map_err(|issues| wrong(format!("program instantiation failed: {issues}")))
}

fn env() -> &'static Env {
    static ENV: LazyLock<Env> = LazyLock::new(|| kubernetes_env().extend().variable("device", device_type()).build());
    &ENV
}

fn device_type() -> Type {
    let by_domain = |value: Type| Type::map(Type::String, Type::map(Type::String, value));
    let fields = [
        ("driver", Type::String),
        ("attributes", by_domain(Type::Dyn)),
        ("capacity", by_domain(Type::opaque("kubernetes.Quantity"))),
        ("allowMultipleAllocations", Type::Bool),
    ];
    Type::object(Fields::new("kubernetes.DRADevice", fields))
}

/// The sizes that the API allows the parts of a device.
struct Sizes;

impl SizeEstimator for Sizes {
    fn size(&self, path: &[&str], _value: &Type) -> Option<SizeEstimate> {
        let max = match path {
            ["device", "driver"] => MOST_DRIVER_BYTES,
            ["device", "attributes" | "capacity"] => MOST_ENTRIES,
            ["device", "attributes" | "capacity", "@keys"] => MOST_DRIVER_BYTES,
            ["device", "attributes" | "capacity", _] => MOST_ENTRIES,
            ["device", "attributes" | "capacity", _, "@keys"] => MOST_ID_BYTES,
            ["device", "attributes" | "capacity", _, _] => MOST_VALUE_BYTES,
            _ => return None,
        };
        Some(SizeEstimate { min: 0, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(source: &str) -> String {
        compile(source).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn selectors_read_devices() {
        for good in [
            "device.driver == 'dra.example.com'",
            "device.attributes['dra.example.com'].model == 'a100'",
            "device.attributes['dra.example.com'].healthy",
            "device.capacity['dra.example.com'].memory.compareTo(quantity('10Gi')) >= 0",
            "'dra.example.com' in device.attributes && device.allowMultipleAllocations",
            "cel.bind(own, device.attributes['dra.example.com'], own.a == 1 && own.b)",
            "device.attributes['dra.example.com'].exists(k, k.startsWith('x'))",
        ] {
            assert_eq!(failure(good), "", "{good}");
        }
    }

    #[test]
    fn devices_are_chosen_by_what_they_say() {
        let device = Device {
            driver: "dra.example.com",
            attributes: vec![
                ("model", Attribute::Text("a100")),
                ("dra.example.com/healthy", Attribute::Bool(true)),
                ("numa", Attribute::Int(1)),
                ("other.example.com/driver", Attribute::Version("1.2.3")),
            ],
            capacity: vec![("memory", "40Gi")],
            allow_multiple_allocations: false,
        };
        let value = device.value().unwrap();
        for (source, expected) in [
            ("device.driver == 'dra.example.com'", Ok(true)),
            ("device.attributes['dra.example.com'].model == 'a100'", Ok(true)),
            (
                "device.attributes['dra.example.com'].healthy && device.attributes['dra.example.com'].numa < 1",
                Ok(false),
            ),
            ("device.attributes['other.example.com'].driver.isGreaterThan(semver('1.0.0'))", Ok(true)),
            ("device.capacity['dra.example.com'].memory.compareTo(quantity('10Gi')) >= 0", Ok(true)),
            ("'other.example.com' in device.attributes", Ok(true)),
            // A domain that is not there is an empty map.
            ("'nowhere.example.com' in device.attributes", Ok(false)),
            ("'x' in device.attributes['nowhere.example.com']", Ok(false)),
            ("device.attributes['nowhere.example.com'].x == 1", Err("no such key: x")),
            ("device.allowMultipleAllocations", Ok(false)),
        ] {
            let result = matches(&compile(source).unwrap(), &value).map_err(|error| error.to_string());
            assert_eq!(result.as_ref().copied().map_err(String::as_str), expected, "{source}");
        }
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        assert!(
            failure("Not Valid!").starts_with("compilation failed: ERROR: <input>:1:5: Syntax error: mismatched input")
        );
        assert!(failure("device.nothing == 1").contains("undefined field 'nothing'"));
        assert_eq!(failure("device.driver"), "must evaluate to bool or the unknown type, not string");
        let all = "device.attributes.all(d, device.attributes.all(e, ";
        assert_eq!(failure(&format!("{}true{}", all.repeat(4), "))".repeat(4))), "too complex, exceeds cost limit");
    }
}

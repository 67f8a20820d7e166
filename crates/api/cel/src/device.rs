//! Expressions that choose devices: the variable `device`, and what compiling and cost say of them.
//!
//! Source: dynamic-resource-allocation's `cel/compile.go`, and the API's limits of what a device has.

use crate::rules::kubernetes_env;
use crate::{Env, Fields, Program, SizeEstimate, SizeEstimator, Type};
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

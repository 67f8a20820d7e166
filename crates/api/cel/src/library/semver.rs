//! `semver(…)`: versions of software.

use super::argument::*;
use super::semver_text::Version;
use crate::{EvalError, Function, Library, Overload, Type, Value};
use std::cmp::Ordering;

const NAME: &str = "kubernetes.Semver";
opaque_value!(Version, NAME);

fn parse(text: &str, normalized: bool) -> Result<Version, String> {
    if normalized { Version::parse_normalized(text) } else { Version::parse(text) }
}

fn order(arguments: &[Value<'_>]) -> Result<Ordering, EvalError> {
    Ok(opaque::<Version>(arguments, 0)?.cmp(opaque(arguments, 1)?))
}

fn number<'a>(number: u64) -> Result<Value<'a>, EvalError> {
    Ok(Value::Int(number as i64))
}

/// The value of a version that is written like that.
pub(crate) fn value(text: &str) -> Result<Value<'static>, EvalError> {
    parse(text, false).map(Value::opaque).map_err(failed)
}

pub(super) fn library() -> Library {
    let version = || Type::opaque(NAME);
    let parsing = |overload: Overload| overload.cost(first_traversed).estimate(estimate_traversed);
    let part =
        |name: &str, id, call: crate::CallFn| Function::new(name, [Overload::member(id, [version()], Type::Int, call)]);
    let compare = |name: &str, id, result, call: crate::CallFn| {
        Function::new(name, [Overload::member(id, [version(), version()], result, call)])
    };
    let functions = vec![
        Function::new(
            "semver",
            [
                parsing(Overload::global("string_to_semver", [Type::String], version(), |_, a| {
                    parse(text(a, 0)?, false).map(Value::opaque).map_err(failed)
                })),
                parsing(Overload::global("string_bool_to_semver", [Type::String, Type::Bool], version(), |_, a| {
                    parse(text(a, 0)?, boolean(a, 1)?).map(Value::opaque).map_err(failed)
                })),
            ],
        ),
        Function::new(
            "isSemver",
            [
                parsing(Overload::global("is_semver_string", [Type::String], Type::Bool, |_, a| {
                    Ok(parse(text(a, 0)?, false).is_ok().into())
                })),
                parsing(Overload::global("is_semver_string_bool", [Type::String, Type::Bool], Type::Bool, |_, a| {
                    Ok(parse(text(a, 0)?, boolean(a, 1)?).is_ok().into())
                })),
            ],
        ),
        compare("isGreaterThan", "semver_is_greater_than", Type::Bool, |_, a| Ok(order(a)?.is_gt().into())),
        compare("isLessThan", "semver_is_less_than", Type::Bool, |_, a| Ok(order(a)?.is_lt().into())),
        compare("compareTo", "semver_compare_to", Type::Int, |_, a| Ok(Value::Int(order(a)? as i64))),
        part("major", "semver_major", |_, a| number(opaque::<Version>(a, 0)?.major)),
        part("minor", "semver_minor", |_, a| number(opaque::<Version>(a, 0)?.minor)),
        part("patch", "semver_patch", |_, a| number(opaque::<Version>(a, 0)?.patch)),
    ];
    Library { functions, ..Library::default() }
}

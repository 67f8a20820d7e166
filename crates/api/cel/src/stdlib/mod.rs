//! The standard library: what operators are declared to take, conversions, texts, times, optional values.

mod convert;
mod operators;
mod optional;
mod text;
mod times;

pub(crate) use text::compile_pattern;

use crate::env::Libraries;
use crate::error::EvalError;
use crate::function::{CallFn, Function, Library, Overload};
use crate::syntax::standard::MACROS;
use crate::types::Type;
use crate::value::Value;
use std::sync::{Arc, OnceLock};

/// The libraries that every environment has; built once.
pub(crate) fn standard() -> Arc<Libraries> {
    static STANDARD: OnceLock<Arc<Libraries>> = OnceLock::new();
    let build = || {
        let functions = [
            operators::functions(),
            convert::functions(),
            text::functions(),
            times::functions(),
            optional::functions(),
        ];
        let mut libraries = Libraries::default();
        libraries.add(&Library { functions: functions.concat(), macros: MACROS.to_vec(), ..Library::default() });
        Arc::new(libraries)
    };
    STANDARD.get_or_init(build).clone()
}

fn global(id: &'static str, arguments: &[Type], result: Type, call: CallFn) -> Overload {
    Overload::global(id, arguments, result, call)
}

fn member(id: &'static str, arguments: &[Type], result: Type, call: CallFn) -> Overload {
    Overload::member(id, arguments, result, call)
}

fn function(name: &str, overloads: Vec<Overload>) -> Function {
    Function::new(name, overloads)
}

/// What arguments of another type than declared give, which the checker and the evaluator keep away.
fn no_overload<T>() -> Result<T, EvalError> {
    Err(EvalError::NoSuchOverload)
}

fn text<'v>(arguments: &'v [Value<'_>], place: usize) -> Result<&'v str, EvalError> {
    arguments.get(place).and_then(Value::as_str).ok_or(EvalError::NoSuchOverload)
}

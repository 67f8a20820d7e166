//! `find` and `findAll`: what matches a pattern. `matches` belongs to the language itself.

use super::argument::*;
use crate::cost::{REGEX_STRING_FACTOR, STRING_TRAVERSAL_FACTOR, scale};
use crate::{
    CallContext, CallEstimate, EstimateArg, EvalError, Function, Library, Overload, SizeEstimate, Type, Value,
};
use regex::Regex;
use std::sync::Arc;

/// Patterns that need more memory are refused.
const MAX_COMPILED_BYTES: usize = 2 << 20;

fn pattern(context: &mut CallContext<'_>, arguments: &[Value<'_>]) -> Result<Arc<Regex>, EvalError> {
    let pattern = text(arguments, 1)?;
    context.memo(|| {
        let regex = regex::RegexBuilder::new(pattern).size_limit(MAX_COMPILED_BYTES).build();
        regex.map_err(|e| failed(format!("Illegal regex: error parsing regexp: {e}")))
    })
}

fn find_all<'a>(regex: &Regex, text: &str, limit: i64) -> Value<'a> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    texts(regex.find_iter(text).take(limit).map(|found| found.as_str().to_owned()))
}

fn cost(arguments: &[Value<'_>], _result: &Value<'_>) -> u64 {
    let size = |at: usize| arguments.get(at).map_or(0, Value::size);
    scale(size(0) + 1, STRING_TRAVERSAL_FACTOR).saturating_mul(scale(size(1), REGEX_STRING_FACTOR))
}

fn estimate_find(arguments: &[EstimateArg<'_>]) -> CallEstimate {
    let size = first_size(arguments);
    let text = size.plus(SizeEstimate::fixed(1)).cost(STRING_TRAVERSAL_FACTOR);
    let pattern = arguments.get(1).map_or(SizeEstimate::UNKNOWN, |a| a.size).cost(REGEX_STRING_FACTOR);
    sized(text.times(pattern), SizeEstimate { min: 0, max: size.max })
}

pub(super) fn library() -> Library {
    let costing = |overload: Overload| overload.cost(cost).estimate(estimate_find);
    let find = Overload::member("string_find_string", [Type::String, Type::String], Type::String, |c, a| {
        let found = pattern(c, a)?.find(text(a, 0)?).map(|found| found.as_str().to_owned());
        Ok(found.unwrap_or_default().into())
    });
    let all =
        Overload::member("string_find_all_string", [Type::String, Type::String], Type::list(Type::String), |c, a| {
            Ok(find_all(&*pattern(c, a)?, text(a, 0)?, -1))
        });
    let some = Overload::member(
        "string_find_all_string_int",
        [Type::String, Type::String, Type::Int],
        Type::list(Type::String),
        |c, a| Ok(find_all(&*pattern(c, a)?, text(a, 0)?, int(a, 2)?)),
    );
    let functions =
        vec![Function::new("find", [costing(find)]), Function::new("findAll", [costing(all), costing(some)])];
    Library { functions, ..Library::default() }
}

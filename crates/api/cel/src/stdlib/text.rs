//! Functions on texts: contains, startsWith, endsWith, matches.

use super::{function, global, member, text};
use crate::cost::{
    CallEstimate, CostEstimate, EstimateArg, REGEX_STRING_FACTOR, STRING_TRAVERSAL_FACTOR, SizeEstimate, scale,
};
use crate::error::EvalError;
use crate::function::{CallContext, Function};
use crate::types::Type::{Bool, String};
use crate::value::Value;

/// What a compiled pattern may take, in bytes.
const LARGEST_PATTERN: usize = 1 << 20;

pub(super) fn functions() -> Vec<Function> {
    let two = [String, String];
    let search = |arguments: &[EstimateArg<'_>]| of(product(arguments, STRING_TRAVERSAL_FACTOR, 0));
    let part = |arguments: &[EstimateArg<'_>]| of(arguments[1].size.cost(STRING_TRAVERSAL_FACTOR));
    let pattern = |arguments: &[EstimateArg<'_>]| of(product(arguments, REGEX_STRING_FACTOR, 1));
    vec![
        function(
            "contains",
            vec![
                member("contains_string", &two, Bool, |_, a| Ok(text(a, 0)?.contains(text(a, 1)?).into()))
                    .cost(|a, _| traversal(&a[0], 0).saturating_mul(traversal(&a[1], 0)))
                    .estimate(search),
            ],
        ),
        function(
            "startsWith",
            vec![
                member("starts_with_string", &two, Bool, |_, a| Ok(text(a, 0)?.starts_with(text(a, 1)?).into()))
                    .cost(|a, _| traversal(&a[0], 0))
                    .estimate(part),
            ],
        ),
        function(
            "endsWith",
            vec![
                member("ends_with_string", &two, Bool, |_, a| Ok(text(a, 0)?.ends_with(text(a, 1)?).into()))
                    .cost(|a, _| traversal(&a[0], 0))
                    .estimate(part),
            ],
        ),
        function(
            "matches",
            vec![
                global("matches", &two, Bool, matches).cost(pattern_cost).estimate(pattern),
                member("matches_string", &two, Bool, matches).cost(pattern_cost).estimate(pattern),
            ],
        ),
    ]
}

fn of(cost: CostEstimate) -> CallEstimate {
    CallEstimate { cost, result_size: None }
}

fn product(arguments: &[EstimateArg<'_>], factor: f64, more: u64) -> CostEstimate {
    let size = arguments[0].size.plus(SizeEstimate::fixed(more));
    size.cost(STRING_TRAVERSAL_FACTOR).times(arguments[1].size.cost(factor))
}

fn traversal(value: &Value<'_>, more: u64) -> u64 {
    scale(value.size() + more, STRING_TRAVERSAL_FACTOR)
}

fn pattern_cost(arguments: &[Value<'_>], _: &Value<'_>) -> u64 {
    traversal(&arguments[0], 1).saturating_mul(scale(arguments[1].size(), REGEX_STRING_FACTOR))
}

/// A pattern as programs run it; the message names what is wrong with it.
pub(crate) fn compile_pattern(pattern: &str) -> Result<regex::Regex, EvalError> {
    regex::RegexBuilder::new(pattern).size_limit(LARGEST_PATTERN).build().map_err(|error| {
        let reason = error.to_string();
        let last = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
        EvalError::other(format!("error parsing regexp: {last}: `{pattern}`"))
    })
}

fn matches<'a>(context: &mut CallContext<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let pattern = text(arguments, 1)?;
    let compiled = context.memo(|| compile_pattern(pattern))?;
    Ok(compiled.is_match(text(arguments, 0)?).into())
}

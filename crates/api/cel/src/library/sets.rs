//! `sets.contains`, `sets.equivalent`, `sets.intersects`: lists as sets.

use super::argument::*;
use super::order::same;
use crate::{
    CallEstimate, CallFn, CostEstimate, CostFn, EstimateArg, EstimateFn, Function, Library, List, Overload,
    SizeEstimate, Type, Value,
};

fn has(list: &List<'_>, item: &Value<'_>) -> bool {
    list.iter().any(|other| same(&other, item))
}

fn contains(list: &List<'_>, sub: &List<'_>) -> bool {
    sub.iter().all(|item| has(list, &item))
}

fn pairs(arguments: &[Value<'_>]) -> u64 {
    arguments.iter().map(Value::size).fold(1, u64::saturating_mul)
}

fn estimated(arguments: &[EstimateArg<'_>], factor: f64) -> CallEstimate {
    let size = arguments.iter().fold(SizeEstimate::fixed(1), |product, argument| product.times(argument.size));
    estimate(size.cost(factor).plus(CostEstimate::ONE))
}

pub(super) fn library() -> Library {
    let lists = || [Type::list(Type::param("T")), Type::list(Type::param("T"))];
    let once: (CostFn, EstimateFn) = (|a, _| pairs(a).saturating_add(1), |a| estimated(a, 1.0));
    let twice: (CostFn, EstimateFn) = (|a, _| pairs(a).saturating_mul(2).saturating_add(1), |a| estimated(a, 2.0));
    let function = |name: &str, id, (cost, estimate): (CostFn, EstimateFn), call: CallFn| {
        Function::new(name, [Overload::global(id, lists(), Type::Bool, call).cost(cost).estimate(estimate)])
    };
    let functions =
        vec![
            function("sets.contains", "list_sets_contains_list", once, |_, a| {
                Ok(contains(list(a, 0)?, list(a, 1)?).into())
            }),
            function("sets.equivalent", "list_sets_equivalent_list", twice, |_, a| {
                let (one, other) = (list(a, 0)?, list(a, 1)?);
                Ok((contains(one, other) && contains(other, one)).into())
            }),
            function("sets.intersects", "list_sets_intersects_list", once, |_, a| {
                let other = list(a, 1)?;
                Ok(list(a, 0)?.iter().any(|item| has(other, &item)).into())
            }),
        ];
    Library { functions, ..Library::default() }
}

//! Lists as cel-go extends them (version 3): `slice`, `flatten`, `sort`, `sortBy`, `range`, `reverse`, `distinct`.

use super::argument::*;
use super::order::{compare, same};
use crate::cost::STRING_TRAVERSAL_FACTOR;
use crate::syntax::{Comprehension, Expr, ExprKind, Literal, Macro, MacroError, Maker};
use crate::{
    CallEstimate, CallFn, CostEstimate, EstimateArg, EvalError, Function, Library, List, Overload, SizeEstimate, Type,
    Value,
};

/// Making a list.
const CREATE: u64 = 10;
/// A range of more numbers is refused: it would cost more than any budget.
const MAX_RANGE: i64 = crate::cost::PER_CALL_LIMIT as i64;

/// Types that have an order, with the overloads that sort them, and by keys of them.
fn ordered() -> [(Type, [&'static str; 2]); 8] {
    [
        (Type::Int, ["list_int_sort", "list_int_sortByAssociatedKeys"]),
        (Type::Uint, ["list_uint_sort", "list_uint_sortByAssociatedKeys"]),
        (Type::Double, ["list_double_sort", "list_double_sortByAssociatedKeys"]),
        (Type::Bool, ["list_bool_sort", "list_bool_sortByAssociatedKeys"]),
        (Type::Duration, ["list_google.protobuf.Duration_sort", "list_google.protobuf.Duration_sortByAssociatedKeys"]),
        (
            Type::Timestamp,
            ["list_google.protobuf.Timestamp_sort", "list_google.protobuf.Timestamp_sortByAssociatedKeys"],
        ),
        (Type::String, ["list_string_sort", "list_string_sortByAssociatedKeys"]),
        (Type::Bytes, ["list_bytes_sort", "list_bytes_sortByAssociatedKeys"]),
    ]
}

fn slice<'a>(arguments: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let (items, start, end) = (list(arguments, 0)?, int(arguments, 1)?, int(arguments, 2)?);
    let wrong = |why: String| Err(failed(format!("cannot slice({start}, {end}), {why}")));
    if start < 0 || end < 0 {
        return wrong("negative indexes not supported".into());
    }
    if start > end {
        return wrong("start index must be less than or equal to end index".into());
    }
    if items.len() < end as usize {
        return wrong(format!("list is length {}", items.len()));
    }
    Ok((start..end).filter_map(|at| items.get(at as usize)).collect::<Vec<_>>().into())
}

fn flatten<'a>(items: &List<'a>, depth: i64, into: &mut Vec<Value<'a>>) {
    for item in items.iter() {
        match item {
            Value::List(inner) if depth > 0 => flatten(&inner, depth - 1, into),
            item => into.push(item),
        }
    }
}

fn flat<'a>(items: &List<'a>, depth: i64) -> Result<Value<'a>, EvalError> {
    if depth < 0 {
        return Err(failed("level must be non-negative"));
    }
    let mut all = Vec::new();
    flatten(items, depth, &mut all);
    Ok(all.into())
}

fn sort_by<'a>(items: &List<'a>, keys: &List<'a>) -> Result<Value<'a>, EvalError> {
    if items.len() != keys.len() {
        return Err(failed(format!(
            "@sortByAssociatedKeys() expected a list of the same size as the associated keys list, but got {} and {} \
             elements respectively",
            items.len(),
            keys.len()
        )));
    }
    let mut pairs: Vec<_> = keys.iter().zip(items.iter()).collect();
    if let Some((first, _)) = pairs.first() {
        if !matches!(first, Value::Double(_)) && compare(first, first).is_none() {
            return Err(failed("list elements must be comparable"));
        }
        let kind = std::mem::discriminant(first);
        if pairs.iter().any(|(key, _)| std::mem::discriminant(key) != kind) {
            return Err(failed("list elements must have the same type"));
        }
    }
    pairs.sort_by(|(a, _), (b, _)| compare(a, b).unwrap_or(std::cmp::Ordering::Equal));
    Ok(pairs.into_iter().map(|(_, item)| item).collect::<Vec<_>>().into())
}

fn distinct<'a>(items: &List<'a>) -> Value<'a> {
    let mut unique: Vec<Value<'a>> = Vec::new();
    for item in items.iter() {
        if !unique.iter().any(|other| same(other, &item)) {
            unique.push(item);
        }
    }
    unique.into()
}

fn range<'a>(end: i64) -> Result<Value<'a>, EvalError> {
    if end > MAX_RANGE {
        return Err(EvalError::CostLimit);
    }
    Ok((0..end).map(Value::Int).collect::<Vec<_>>().into())
}

fn made(size: u64, factor: f64) -> u64 {
    ((size as f64 * factor) as u64).saturating_add(1 + CREATE)
}

fn result_made(_arguments: &[Value<'_>], result: &Value<'_>) -> u64 {
    made(result.size(), 1.0)
}

fn flatten_cost(arguments: &[Value<'_>], _result: &Value<'_>) -> u64 {
    let depth = arguments.get(1).and_then(Value::as_int).unwrap_or(1);
    made(arguments.first().map_or(0, Value::size), depth as f64)
}

/// What comparing all elements with each other costs.
fn self_compared(items: Option<&Value<'_>>) -> u64 {
    let Some(Value::List(items)) = items else { return made(0, 2.0) };
    let texts = matches!(items.get(0), Some(Value::String(_) | Value::Bytes(_)));
    let size = items.len() as u64;
    made(size.saturating_mul(size), if texts { 2.0 + STRING_TRAVERSAL_FACTOR } else { 2.0 })
}

fn estimate_made(size: SizeEstimate, factor: f64) -> CallEstimate {
    sized(size.cost(factor).plus(CostEstimate::fixed(1 + CREATE)), size)
}

fn literal(arguments: &[EstimateArg<'_>], at: usize, otherwise: u64) -> u64 {
    let literal = arguments.get(at).and_then(|argument| argument.literal_int);
    literal.map_or(otherwise, |value| u64::try_from(value).unwrap_or(0))
}

fn estimate_slice(arguments: &[EstimateArg<'_>]) -> CallEstimate {
    let (start, end) = (literal(arguments, 1, 0), literal(arguments, 2, first_size(arguments).max));
    estimate_made(SizeEstimate::fixed(end.wrapping_sub(start)), 1.0)
}

fn estimate_flatten(arguments: &[EstimateArg<'_>]) -> CallEstimate {
    let depth = if arguments.len() > 1 { literal(arguments, 1, u64::MAX) } else { 1 };
    estimate_made(first_size(arguments), depth as f64)
}

fn estimate_compared(list: Option<&EstimateArg<'_>>) -> CallEstimate {
    let Some(list) = list else { return estimate_made(SizeEstimate::UNKNOWN, 2.0) };
    let texts = matches!(list.value, Type::List(list) if matches!(list.element, Type::String | Type::Bytes));
    estimate_made(list.size.times(list.size), if texts { 2.0 + STRING_TRAVERSAL_FACTOR } else { 2.0 })
}

const INPUT: &str = "@__sortBy_input__";

/// `list.sortBy(x, key)`: the list sorted by the keys of its elements.
fn expand_sort_by(maker: &mut Maker<'_>, target: Option<Expr>, mut arguments: Vec<Expr>) -> Result<Expr, MacroError> {
    let (Some(target), Some(key), Some(variable)) = (target, arguments.pop(), arguments.pop()) else {
        return Err(MacroError::new(maker.at(), "sortBy takes a variable and a key"));
    };
    let sortable = matches!(
        target.kind,
        ExprKind::List { .. }
            | ExprKind::Select { .. }
            | ExprKind::Ident(_)
            | ExprKind::Comprehension(_)
            | ExprKind::Call { .. }
    );
    if !sortable {
        let words = "sortBy can only be applied to a list, identifier, comprehension, call or select expression";
        return Err(MacroError::new(target.at, words));
    }
    let Some(name) = variable.as_ident() else {
        return Err(MacroError::new(variable.at, "argument is not an identifier"));
    };
    let keys = map_of(maker, name, key);
    let input = maker.ident(INPUT);
    let sorted = maker.member(input, "@sortByAssociatedKeys", vec![keys]);
    let bind = Comprehension {
        range: maker.list(Vec::new()),
        variable: "#unused".into(),
        variable2: None,
        accumulator: INPUT.into(),
        init: target,
        condition: maker.literal(Literal::Bool(false)),
        step: maker.ident(INPUT),
        result: sorted,
    };
    Ok(maker.comprehension(bind))
}

/// `@__sortBy_input__.map(name, key)`.
fn map_of(maker: &mut Maker<'_>, name: &str, key: Expr) -> Expr {
    use crate::syntax::ACCUMULATOR;
    let items = maker.list(vec![key]);
    let accumulator = maker.ident(ACCUMULATOR);
    let fold = Comprehension {
        range: maker.ident(INPUT),
        variable: name.into(),
        variable2: None,
        accumulator: ACCUMULATOR.into(),
        init: maker.list(Vec::new()),
        condition: maker.literal(Literal::Bool(true)),
        step: maker.call("_+_", vec![accumulator, items]),
        result: maker.ident(ACCUMULATOR),
    };
    maker.comprehension(fold)
}

fn sorting() -> [Function; 2] {
    let t = || Type::list(Type::param("T"));
    let sort: CallFn = |_, a| sort_by(list(a, 0)?, list(a, 0)?);
    let by: CallFn = |_, a| sort_by(list(a, 0)?, list(a, 1)?);
    let sorts = ordered().map(|(element, ids)| {
        let elements = Type::list(element);
        Overload::member(ids[0], [elements.clone()], elements, sort)
            .cost(|a, _| self_compared(a.first()))
            .estimate(|a| estimate_compared(a.first()))
    });
    let by_keys = ordered().map(|(key, ids)| {
        Overload::member(ids[1], [t(), Type::list(key)], t(), by)
            .cost(|a, _| self_compared(a.get(1)))
            .estimate(|a| estimate_compared(a.get(1)))
    });
    [Function::new("sort", sorts), Function::new("@sortByAssociatedKeys", by_keys)]
}

pub(super) fn library() -> Library {
    let t = || Type::list(Type::param("T"));
    let flattening = |overload: Overload| overload.cost(flatten_cost).estimate(estimate_flatten);
    let mut functions = vec![
        Function::new(
            "slice",
            [Overload::member("list_slice", [t(), Type::Int, Type::Int], t(), |_, a| slice(a))
                .cost(result_made)
                .estimate(estimate_slice)],
        ),
        Function::new(
            "flatten",
            [
                flattening(Overload::member("list_flatten", [Type::list(t())], t(), |_, a| flat(list(a, 0)?, 1))),
                flattening(Overload::member(
                    "list_flatten_int",
                    [Type::list(Type::Dyn), Type::Int],
                    Type::list(Type::Dyn),
                    |_, a| flat(list(a, 0)?, int(a, 1)?),
                )),
            ],
        ),
        Function::new(
            "lists.range",
            [Overload::global("lists_range", [Type::Int], Type::list(Type::Int), |_, a| range(int(a, 0)?))
                .cost(result_made)
                .estimate(|a| estimate_made(SizeEstimate::fixed(literal(a, 0, u64::MAX)), 1.0))],
        ),
        Function::new(
            "reverse",
            [Overload::member("list_reverse", [t()], t(), |_, a| {
                let mut items: Vec<_> = list(a, 0)?.iter().collect();
                items.reverse();
                Ok(items.into())
            })
            .cost(result_made)
            .estimate(|a| estimate_made(first_size(a), 1.0))],
        ),
        Function::new(
            "distinct",
            [Overload::member("list_distinct", [t()], t(), |_, a| Ok(distinct(list(a, 0)?)))
                .cost(|a, _| self_compared(a.first()))
                .estimate(|a| {
                    let size = first_size(a);
                    estimate_made(size.times(size), 2.0)
                })],
        ),
    ];
    functions.extend(sorting());
    let sort_by = Macro { name: "sortBy", member: true, namespace: None, arguments: Some(2), expand: expand_sort_by };
    Library { functions, macros: vec![sort_by], ..Library::default() }
}

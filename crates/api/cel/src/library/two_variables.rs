//! Macros with two variables: the index or key, and the element or value.

use super::argument::*;
use crate::syntax::{ACCUMULATOR, Comprehension, Expr, Literal, Macro, MacroError, Maker};
use crate::{EvalError, Function, Library, Map, Overload, Type, Value};

type Expanded = Result<Expr, MacroError>;

/// What differs between the macros: where the fold begins, goes on and ends.
struct Fold {
    init: Expr,
    condition: Expr,
    step: Expr,
    result: Expr,
}

/// The two variables and what follows them.
fn split(arguments: Vec<Expr>) -> Result<(Box<str>, Box<str>, Vec<Expr>), MacroError> {
    let name = |argument: &Expr| {
        let name = argument.as_ident().ok_or_else(|| MacroError::new(argument.at, "argument must be a simple name"))?;
        if name == ACCUMULATOR || name == "__result__" {
            return Err(MacroError::new(argument.at, "iteration variable overwrites accumulator variable"));
        }
        Ok(Box::<str>::from(name))
    };
    let (first, second) = (name(&arguments[0])?, name(&arguments[1])?);
    if first == second {
        return Err(MacroError::new(arguments[1].at, format!("duplicate variable name: {first}")));
    }
    Ok((first, second, arguments.into_iter().skip(2).collect()))
}

fn fold(
    maker: &mut Maker<'_>,
    target: Option<Expr>,
    arguments: Vec<Expr>,
    make: impl FnOnce(&mut Maker<'_>, Vec<Expr>, &str) -> Fold,
) -> Expanded {
    let target = target.ok_or_else(|| MacroError::new(maker.at(), "must be called on a list or a map"))?;
    let (first, second, rest) = split(arguments)?;
    let Fold { init, condition, step, result } = make(maker, rest, &first);
    Ok(maker.comprehension(Comprehension {
        range: target,
        variable: first,
        variable2: Some(second),
        accumulator: ACCUMULATOR.into(),
        init,
        condition,
        step,
        result,
    }))
}

fn accumulator(maker: &mut Maker<'_>) -> Expr {
    maker.ident(ACCUMULATOR)
}

fn last(mut rest: Vec<Expr>, maker: &mut Maker<'_>) -> (Expr, Option<Expr>) {
    let transform = rest.pop().unwrap_or_else(|| maker.literal(Literal::Null));
    (transform, rest.pop())
}

fn all(maker: &mut Maker<'_>, target: Option<Expr>, arguments: Vec<Expr>) -> Expanded {
    fold(maker, target, arguments, |m, rest, _| {
        let (test, _) = last(rest, m);
        let (now, so_far) = (accumulator(m), accumulator(m));
        Fold {
            init: m.literal(Literal::Bool(true)),
            condition: m.call("@not_strictly_false", vec![now]),
            step: m.call("_&&_", vec![so_far, test]),
            result: accumulator(m),
        }
    })
}

fn exists(maker: &mut Maker<'_>, target: Option<Expr>, arguments: Vec<Expr>) -> Expanded {
    fold(maker, target, arguments, |m, rest, _| {
        let (test, _) = last(rest, m);
        let (now, so_far) = (accumulator(m), accumulator(m));
        let none_yet = m.call("!_", vec![now]);
        Fold {
            init: m.literal(Literal::Bool(false)),
            condition: m.call("@not_strictly_false", vec![none_yet]),
            step: m.call("_||_", vec![so_far, test]),
            result: accumulator(m),
        }
    })
}

fn exists_one(maker: &mut Maker<'_>, target: Option<Expr>, arguments: Vec<Expr>) -> Expanded {
    fold(maker, target, arguments, |m, rest, _| {
        let (test, _) = last(rest, m);
        let (now, other, found) = (accumulator(m), accumulator(m), accumulator(m));
        let one = m.literal(Literal::Int(1));
        let more = m.call("_+_", vec![now, one]);
        let one = m.literal(Literal::Int(1));
        Fold {
            init: m.literal(Literal::Int(0)),
            condition: m.literal(Literal::Bool(true)),
            step: m.call("_?_:_", vec![test, more, other]),
            result: m.call("_==_", vec![found, one]),
        }
    })
}

/// Takes the step only where the filter is true.
fn filtered(maker: &mut Maker<'_>, filter: Option<Expr>, step: Expr) -> Expr {
    match filter {
        Some(filter) => {
            let unchanged = accumulator(maker);
            maker.call("_?_:_", vec![filter, step, unchanged])
        }
        None => step,
    }
}

fn transform_list(maker: &mut Maker<'_>, target: Option<Expr>, arguments: Vec<Expr>) -> Expanded {
    fold(maker, target, arguments, |m, rest, _| {
        let (transform, filter) = last(rest, m);
        let (so_far, item) = (accumulator(m), m.list(vec![transform]));
        let step = m.call("_+_", vec![so_far, item]);
        Fold {
            init: m.list(Vec::new()),
            condition: m.literal(Literal::Bool(true)),
            step: filtered(m, filter, step),
            result: accumulator(m),
        }
    })
}

const INSERT: &str = "cel.@mapInsert";

fn transform_map(maker: &mut Maker<'_>, target: Option<Expr>, arguments: Vec<Expr>) -> Expanded {
    fold(maker, target, arguments, |m, rest, key| {
        let (transform, filter) = last(rest, m);
        let (so_far, key) = (accumulator(m), m.ident(key));
        let step = m.call(INSERT, vec![so_far, key, transform]);
        Fold {
            init: m.map(Vec::new()),
            condition: m.literal(Literal::Bool(true)),
            step: filtered(m, filter, step),
            result: accumulator(m),
        }
    })
}

fn transform_map_entry(maker: &mut Maker<'_>, target: Option<Expr>, arguments: Vec<Expr>) -> Expanded {
    fold(maker, target, arguments, |m, rest, _| {
        let (transform, filter) = last(rest, m);
        let so_far = accumulator(m);
        let step = m.call(INSERT, vec![so_far, transform]);
        Fold {
            init: m.map(Vec::new()),
            condition: m.literal(Literal::Bool(true)),
            step: filtered(m, filter, step),
            result: accumulator(m),
        }
    })
}

fn map<'v, 'a>(arguments: &'v [Value<'a>], at: usize) -> Result<&'v Map<'a>, EvalError> {
    match arguments.get(at) {
        Some(Value::Map(map)) => Ok(map),
        _ => Err(EvalError::NoSuchOverload),
    }
}

/// `into` with more entries, none of which it may have.
fn insert<'a>(into: &Map<'a>, added: impl Iterator<Item = (Value<'a>, Value<'a>)>) -> Result<Value<'a>, EvalError> {
    let mut entries: Vec<_> = into.iter().collect();
    for (key, value) in added {
        if into.get(&key).is_some() {
            let shown = key.as_str().map_or_else(|| format!("{key:?}"), str::to_owned);
            return Err(failed(format!("insert failed: key {shown} already exists")));
        }
        entries.push((key, value));
    }
    Ok(Value::map(entries))
}

pub(super) fn library() -> Library {
    let (k, v) = (|| Type::param("K"), || Type::param("V"));
    let of = || Type::map(k(), v());
    let functions = vec![Function::new(
        INSERT,
        [
            Overload::global("@mapInsert_map_key_value", [of(), k(), v()], of(), |_, a| {
                insert(map(a, 0)?, std::iter::once((a[1].clone(), a[2].clone())))
            }),
            Overload::global("@mapInsert_map_map", [of(), of()], of(), |_, a| insert(map(a, 0)?, map(a, 1)?.iter())),
        ],
    )];
    let member =
        |name, arguments, expand| Macro { name, member: true, namespace: None, arguments: Some(arguments), expand };
    let macros = vec![
        member("all", 3, all),
        member("exists", 3, exists),
        member("existsOne", 3, exists_one),
        member("exists_one", 3, exists_one),
        member("transformList", 3, transform_list),
        member("transformList", 4, transform_list),
        member("transformMap", 3, transform_map),
        member("transformMap", 4, transform_map),
        member("transformMapEntry", 3, transform_map_entry),
        member("transformMapEntry", 4, transform_map_entry),
    ];
    Library { functions, macros, ..Library::default() }
}

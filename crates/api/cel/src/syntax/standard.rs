//! The macros of the language and of its extensions for bindings and optional values.

use super::ast::{ACCUMULATOR, Comprehension, Expr, ExprKind, Literal};
use super::expand::{Macro, MacroError, Maker};

/// All of them.
pub(crate) const MACROS: &[Macro] = &[
    Macro { name: "has", member: false, namespace: None, arguments: Some(1), expand: has },
    member("all", 2, all),
    member("exists", 2, exists),
    member("exists_one", 2, exists_one),
    member("existsOne", 2, exists_one),
    member("map", 2, map),
    member("map", 3, map),
    member("filter", 2, filter),
    Macro { name: "bind", member: true, namespace: Some("cel"), arguments: Some(3), expand: bind },
    member("optMap", 2, opt_map),
    member("optFlatMap", 2, opt_flat_map),
];

const fn member(name: &'static str, arguments: usize, expand: super::expand::Expand) -> Macro {
    Macro { name, member: true, namespace: None, arguments: Some(arguments), expand }
}

type Expanded = Result<Expr, MacroError>;

fn has(maker: &mut Maker<'_>, _target: Option<Expr>, arguments: Vec<Expr>) -> Expanded {
    let [argument] = take(arguments)?;
    match argument.kind {
        ExprKind::Select { operand, field, test: false } => {
            Ok(maker.node(ExprKind::Select { operand, field, test: true }))
        }
        _ => Err(MacroError::new(argument.at, "invalid argument to has() macro")),
    }
}

/// The range, the variable and the other arguments of a macro on a range.
struct Fold {
    range: Expr,
    variable: Box<str>,
    rest: Vec<Expr>,
}

impl Fold {
    /// The first argument is a name; `problem` says so when it is not.
    fn new(target: Option<Expr>, mut arguments: Vec<Expr>, problem: &str) -> Result<Fold, MacroError> {
        let rest = arguments.split_off(1.min(arguments.len()));
        let [variable] = take(arguments)?;
        let name = name_of(&variable, problem)?;
        if &*name == ACCUMULATOR || &*name == "__result__" {
            return Err(MacroError::new(variable.at, "iteration variable overwrites accumulator variable"));
        }
        let range = target.ok_or_else(|| MacroError::new(variable.at, "macro without a range"))?;
        Ok(Fold { range, variable: name, rest })
    }

    fn make(self, maker: &mut Maker<'_>, init: Expr, condition: Expr, step: Expr, result: Expr) -> Expr {
        maker.comprehension(Comprehension {
            range: self.range,
            variable: self.variable,
            variable2: None,
            accumulator: ACCUMULATOR.into(),
            init,
            condition,
            step,
            result,
        })
    }

    fn last(&mut self) -> Expanded {
        self.rest.pop().ok_or_else(|| MacroError::new(self.range.at, "macro without an argument"))
    }
}

const SIMPLE_NAME: &str = "argument must be a simple name";
const NO_IDENTIFIER: &str = "argument is not an identifier";

fn accumulator(maker: &mut Maker<'_>) -> Expr {
    maker.ident(ACCUMULATOR)
}

fn quantifier(target: Option<Expr>, arguments: Vec<Expr>) -> Result<(Fold, Expr), MacroError> {
    let mut fold = Fold::new(target, arguments, SIMPLE_NAME)?;
    let predicate = fold.last()?;
    Ok((fold, predicate))
}

fn all(maker: &mut Maker<'_>, target: Option<Expr>, arguments: Vec<Expr>) -> Expanded {
    let (fold, predicate) = quantifier(target, arguments)?;
    let init = maker.literal(Literal::Bool(true));
    let so_far = accumulator(maker);
    let condition = maker.call("@not_strictly_false", vec![so_far]);
    let so_far = accumulator(maker);
    let step = maker.call("_&&_", vec![so_far, predicate]);
    let result = accumulator(maker);
    Ok(fold.make(maker, init, condition, step, result))
}

fn exists(maker: &mut Maker<'_>, target: Option<Expr>, arguments: Vec<Expr>) -> Expanded {
    let (fold, predicate) = quantifier(target, arguments)?;
    let init = maker.literal(Literal::Bool(false));
    let so_far = accumulator(maker);
    let not = maker.call("!_", vec![so_far]);
    let condition = maker.call("@not_strictly_false", vec![not]);
    let so_far = accumulator(maker);
    let step = maker.call("_||_", vec![so_far, predicate]);
    let result = accumulator(maker);
    Ok(fold.make(maker, init, condition, step, result))
}

fn exists_one(maker: &mut Maker<'_>, target: Option<Expr>, arguments: Vec<Expr>) -> Expanded {
    let (fold, predicate) = quantifier(target, arguments)?;
    let init = maker.literal(Literal::Int(0));
    let condition = maker.literal(Literal::Bool(true));
    let (so_far, one) = (accumulator(maker), maker.literal(Literal::Int(1)));
    let more = maker.call("_+_", vec![so_far, one]);
    let same = accumulator(maker);
    let step = maker.call("_?_:_", vec![predicate, more, same]);
    let (count, one) = (accumulator(maker), maker.literal(Literal::Int(1)));
    let result = maker.call("_==_", vec![count, one]);
    Ok(fold.make(maker, init, condition, step, result))
}

fn map(maker: &mut Maker<'_>, target: Option<Expr>, arguments: Vec<Expr>) -> Expanded {
    collect(maker, Fold::new(target, arguments, NO_IDENTIFIER)?)
}

/// A list of what the last argument makes, of those that the argument before it, if any, lets through.
fn collect(maker: &mut Maker<'_>, mut fold: Fold) -> Expanded {
    let made = fold.last()?;
    let filter = fold.rest.pop();
    let init = maker.list(Vec::new());
    let so_far = accumulator(maker);
    let one = maker.list(vec![made]);
    let step = maker.call("_+_", vec![so_far, one]);
    Ok(filtered(maker, fold, init, filter, step))
}

fn filter(maker: &mut Maker<'_>, target: Option<Expr>, arguments: Vec<Expr>) -> Expanded {
    let mut fold = Fold::new(target, arguments, NO_IDENTIFIER)?;
    let predicate = fold.last()?;
    let init = maker.list(Vec::new());
    let so_far = accumulator(maker);
    let element = maker.ident(&fold.variable);
    let one = maker.list(vec![element]);
    let step = maker.call("_+_", vec![so_far, one]);
    Ok(filtered(maker, fold, init, Some(predicate), step))
}

/// A fold that takes a step where `filter` is true, and everywhere without one.
fn filtered(maker: &mut Maker<'_>, fold: Fold, init: Expr, filter: Option<Expr>, step: Expr) -> Expr {
    let condition = maker.literal(Literal::Bool(true));
    let step = match filter {
        Some(filter) => {
            let same = accumulator(maker);
            maker.call("_?_:_", vec![filter, step, same])
        }
        None => step,
    };
    let result = accumulator(maker);
    fold.make(maker, init, condition, step, result)
}

/// `expr` where `name` is what `init` is: a fold of nothing.
fn binding(maker: &mut Maker<'_>, name: Box<str>, init: Expr, expr: Expr) -> Expr {
    let range = maker.list(Vec::new());
    let condition = maker.literal(Literal::Bool(false));
    let step = maker.ident(&name);
    maker.comprehension(Comprehension {
        range,
        variable: "#unused".into(),
        variable2: None,
        accumulator: name,
        init,
        condition,
        step,
        result: expr,
    })
}

fn name_of(argument: &Expr, problem: &str) -> Result<Box<str>, MacroError> {
    argument.as_ident().map(Box::from).ok_or_else(|| MacroError::new(argument.at, problem))
}

fn bind(maker: &mut Maker<'_>, _target: Option<Expr>, arguments: Vec<Expr>) -> Expanded {
    let [name, init, expr] = take(arguments)?;
    let name = name_of(&name, "cel.bind() variable names must be simple identifiers")?;
    Ok(binding(maker, name, init, expr))
}

fn opt_map(maker: &mut Maker<'_>, target: Option<Expr>, arguments: Vec<Expr>) -> Expanded {
    optional(maker, target, arguments, "optMap() variable name must be a simple identifier", |maker, bound| {
        maker.call("optional.of", vec![bound])
    })
}

fn opt_flat_map(maker: &mut Maker<'_>, target: Option<Expr>, arguments: Vec<Expr>) -> Expanded {
    optional(maker, target, arguments, "optFlatMap() variable name must be a simple identifier", |_, bound| bound)
}

fn optional(
    maker: &mut Maker<'_>,
    target: Option<Expr>,
    arguments: Vec<Expr>,
    problem: &str,
    wrap: fn(&mut Maker<'_>, Expr) -> Expr,
) -> Expanded {
    let [name, expr] = take(arguments)?;
    let name = name_of(&name, problem)?;
    let target = target.ok_or_else(|| MacroError::new(maker.at(), "macro without a receiver"))?;
    let copy = maker.copy(&target);
    let there = maker.member(target, "hasValue", Vec::new());
    let value = maker.member(copy, "value", Vec::new());
    let bound = binding(maker, name, value, expr);
    let some = wrap(maker, bound);
    let none = maker.call("optional.none", Vec::new());
    Ok(maker.call("_?_:_", vec![there, some, none]))
}

fn take<const N: usize>(arguments: Vec<Expr>) -> Result<[Expr; N], MacroError> {
    arguments.try_into().map_err(|_| MacroError::new(0, "macro with another number of arguments"))
}

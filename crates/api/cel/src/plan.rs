//! Checked trees to programs: names become places, operators and macros steps of their own.

use crate::check::{Tree, named_type};
use crate::env::Env;
use crate::error::Issues;
use crate::eval::{Call, Field, Fold, FoldKind, List, Made, MapEntry, Node, Operation, Relation};
use crate::program::Program;
use crate::syntax::{Comprehension, Expr, ExprKind, Literal};
use crate::types::Type;
use crate::value::{Entries, Map, Value};
use std::sync::{Arc, OnceLock};

pub(crate) fn plan(env: &Env, tree: Tree, source: &str) -> Result<Program, Issues> {
    let mut planner = Planner { env, tree: &tree, variables: Vec::new(), locals: Vec::new() };
    let root = planner.node(&tree.root);
    if planner.variables.len() > usize::from(u16::MAX) {
        return Err(Issues::nowhere(source, "the expression names more than 65535 variables"));
    }
    let variables = planner.variables.into();
    Ok(Program { root, output: tree.output_type().clone(), variables })
}

struct Planner<'p> {
    env: &'p Env,
    tree: &'p Tree,
    variables: Vec<Box<str>>,
    /// Variables of macros by their place on the stack.
    locals: Vec<&'p str>,
}

impl<'p> Planner<'p> {
    fn node(&mut self, expr: &'p Expr) -> Node {
        match &expr.kind {
            ExprKind::Literal(literal) => Node::literal(literal),
            ExprKind::Ident(name) => self.ident(name),
            ExprKind::Select { operand, field, test } => self.select(operand, field, *test),
            ExprKind::Call { target, arguments, function } => self.call(expr, function, target.as_deref(), arguments),
            ExprKind::List { items, optional } => self.list(items, optional),
            ExprKind::Map(entries) => self.map(entries),
            ExprKind::Struct { fields, .. } => self.message(expr, fields),
            ExprKind::Comprehension(fold) => self.fold(fold),
        }
    }

    fn ident(&mut self, name: &'p str) -> Node {
        if let Some(place) = self.locals.iter().rposition(|local| *local == name) {
            return Node::Local(place as u16);
        }
        let name = name.strip_prefix('.').unwrap_or(name);
        if self.env.variables.contains_key(name) {
            return Node::Global(self.variable(name));
        }
        if let Some((_, value)) = self.env.libraries.constants.get(name) {
            return Node::Literal(Box::new(value.clone()));
        }
        let named = named_type(self.env, name).unwrap_or(Type::Dyn);
        Node::Literal(Box::new(Value::Type(named)))
    }

    fn variable(&mut self, name: &str) -> u16 {
        let known = self.variables.iter().position(|variable| **variable == *name);
        known.unwrap_or_else(|| {
            self.variables.push(name.into());
            self.variables.len() - 1
        }) as u16
    }

    fn select(&mut self, operand: &'p Expr, field: &str, test: bool) -> Node {
        if let ExprKind::Ident(name) = &operand.kind
            && !self.locals.contains(&&**name)
            && self.env.variables.get(name).is_some_and(|variable| variable.lazy)
        {
            // What is declared is there: the checker has seen to that.
            let there = || Node::Literal(Box::new(Value::Bool(true)));
            return if test { there() } else { Node::Lazy(self.variable(name), field.into()) };
        }
        let field = self.field(operand, field);
        if test { Node::Has(Box::new(field)) } else { Node::Select(Box::new(field)) }
    }

    fn field(&mut self, operand: &'p Expr, field: &str) -> Field {
        let operand = self.node(operand);
        let cost = if operand.is_attribute() { 1 } else { 2 };
        Field { operand, field: field.into(), cost }
    }

    fn pair(&mut self, arguments: &'p [Expr]) -> Box<[Node; 2]> {
        Box::new([self.node(&arguments[0]), self.node(&arguments[1])])
    }

    fn call(&mut self, expr: &'p Expr, function: &str, target: Option<&'p Expr>, arguments: &'p [Expr]) -> Node {
        if target.is_none()
            && let Some(node) = self.operator(function, arguments)
        {
            return node;
        }
        if let (Some(receiver), [argument], "or" | "orValue") = (target, arguments, function)
            && matches!(self.tree.type_of(receiver), Type::Optional(_) | Type::Dyn)
        {
            let parts = Box::new([self.node(receiver), self.node(argument)]);
            return if function == "or" { Node::OptionalOr(parts) } else { Node::OptionalOrValue(parts) };
        }
        let Some(call) = self.tree.call(expr) else { return Node::Literal(Box::new(Value::Null)) };
        let arguments: Box<[Node]> = target.into_iter().chain(arguments).map(|argument| self.node(argument)).collect();
        let constant = arguments.len() > 1 && arguments[1..].iter().all(|node| matches!(node, Node::Literal(_)));
        Node::Call(Box::new(Call {
            function: call.function.clone(),
            overloads: call.overloads.clone().into(),
            arguments,
            memo: constant.then(OnceLock::new),
        }))
    }

    fn operator(&mut self, function: &str, arguments: &'p [Expr]) -> Option<Node> {
        let relation = |relation| move |parts| Node::Compare(relation, parts);
        let arithmetic = |operation| move |parts| Node::Arithmetic(operation, parts);
        Some(match function {
            "!_" => Node::Not(Box::new(self.node(&arguments[0]))),
            "-_" => Node::Negate(Box::new(self.node(&arguments[0]))),
            "@not_strictly_false" => Node::NotStrictlyFalse(Box::new(self.node(&arguments[0]))),
            "_?_:_" => Node::Conditional(Box::new([0, 1, 2].map(|place: usize| self.node(&arguments[place])))),
            "_?._" => {
                let ExprKind::Literal(Literal::String(field)) = &arguments[1].kind else { return None };
                Node::OptionalSelect(Box::new(self.field(&arguments[0], field)))
            }
            "_&&_" => Node::And(self.pair(arguments)),
            "_||_" => Node::Or(self.pair(arguments)),
            "_[_]" => Node::Index(self.pair(arguments)),
            "_[?_]" => Node::OptionalIndex(self.pair(arguments)),
            "_==_" => Node::Equal(self.pair(arguments)),
            "_!=_" => Node::NotEqual(self.pair(arguments)),
            "@in" => {
                let parts = self.pair(arguments);
                let free = matches!(&parts[1], Node::Literal(list) if matches!(**list, Value::List(_)));
                Node::In { parts, free }
            }
            "_<_" => relation(Relation::Less)(self.pair(arguments)),
            "_<=_" => relation(Relation::LessOrEqual)(self.pair(arguments)),
            "_>_" => relation(Relation::Greater)(self.pair(arguments)),
            "_>=_" => relation(Relation::GreaterOrEqual)(self.pair(arguments)),
            "_+_" => arithmetic(Operation::Add)(self.pair(arguments)),
            "_-_" => arithmetic(Operation::Subtract)(self.pair(arguments)),
            "_*_" => arithmetic(Operation::Multiply)(self.pair(arguments)),
            "_/_" => arithmetic(Operation::Divide)(self.pair(arguments)),
            "_%_" => arithmetic(Operation::Modulo)(self.pair(arguments)),
            _ => return None,
        })
    }

    /// Lists of literals are literals.
    fn list(&mut self, items: &'p [Expr], optional: &[u32]) -> Node {
        let items: Vec<Node> = items.iter().map(|item| self.node(item)).collect();
        let literal: Option<Vec<Value<'static>>> = items.iter().map(literal_value).collect();
        match literal {
            Some(values) if optional.is_empty() => Node::Literal(Box::new(values.into())),
            _ => Node::List(Box::new(List { items: items.into(), optional: optional.into() })),
        }
    }

    /// Maps of literals are literals.
    fn map(&mut self, entries: &'p [crate::syntax::Entry]) -> Node {
        let planned: Box<[MapEntry]> = entries
            .iter()
            .map(|entry| MapEntry {
                key: self.node(&entry.key),
                value: self.node(&entry.value),
                optional: entry.optional,
            })
            .collect();
        let literal = |entry: &MapEntry| {
            let key = literal_value(&entry.key).filter(is_key)?;
            Some((key, literal_value(&entry.value).filter(|_| !entry.optional)?))
        };
        let literals: Option<Vec<_>> = planned.iter().map(literal).collect();
        match literals.map(Entries::distinct) {
            Some(Ok(entries)) => Node::Literal(Box::new(Value::Map(Map::Owned(Arc::new(entries))))),
            _ => Node::Map(planned),
        }
    }

    fn message(&mut self, expr: &'p Expr, fields: &'p [crate::syntax::FieldInit]) -> Node {
        let Type::Object(object) = self.tree.type_of(expr) else { return Node::Literal(Box::new(Value::Null)) };
        let fields = fields.iter().map(|field| (field.name.clone(), self.node(&field.value), field.optional)).collect();
        Node::Struct(Box::new(Made { object: object.clone(), fields }))
    }

    fn fold(&mut self, fold: &'p Comprehension) -> Node {
        let range = self.node(&fold.range);
        let init = self.node(&fold.init);
        let outer = self.locals.len();
        self.locals.push(&fold.accumulator);
        let result = self.node(&fold.result);
        self.locals.push(&fold.variable);
        self.locals.extend(fold.variable2.as_deref());
        let kind = self.fold_kind(fold);
        self.locals.truncate(outer);
        Node::Fold(Box::new(Fold { range, init, two: fold.variable2.is_some(), kind, result }))
    }

    fn fold_kind(&mut self, fold: &'p Comprehension) -> FoldKind {
        if is_bool(&fold.condition, false) && is_empty_list(&fold.range) {
            return FoldKind::Bind;
        }
        let quantifier = is_call(&fold.condition, "@not_strictly_false");
        if let (Some([_, predicate]), Some([condition])) = (arguments(&fold.step, "_&&_", fold), quantifier)
            && is_bool(&fold.init, true)
            && is_accumulator(condition, fold)
        {
            return FoldKind::All(self.node(predicate));
        }
        if let (Some([_, predicate]), Some([condition])) = (arguments(&fold.step, "_||_", fold), quantifier)
            && is_bool(&fold.init, false)
            && is_call(condition, "!_").is_some_and(|not| is_accumulator(&not[0], fold))
        {
            return FoldKind::Exists(self.node(predicate));
        }
        if is_bool(&fold.condition, true)
            && is_accumulator(&fold.result, fold)
            && let Some(kind) = self.collecting(fold)
        {
            return kind;
        }
        FoldKind::General(self.node(&fold.condition), self.node(&fold.step))
    }

    /// Folds that make a list or a map of what they go through.
    fn collecting(&mut self, fold: &'p Comprehension) -> Option<FoldKind> {
        let (filter, step) = match is_call(&fold.step, "_?_:_") {
            Some([filter, step, same]) if is_accumulator(same, fold) => (Some(filter), step),
            _ => (None, &fold.step),
        };
        if let Some([so_far, inserted @ ..]) = is_call(step, "cel.@mapInsert")
            && is_accumulator(so_far, fold)
            && matches!(&fold.init.kind, ExprKind::Map(entries) if entries.is_empty())
        {
            let (key, value) = match inserted {
                [key, value] => (Some(key), value),
                [value] => (None, value),
                _ => return None,
            };
            let filter = filter.map(|filter| self.node(filter));
            let key = key.map(|key| self.node(key));
            return Some(FoldKind::Insert(filter, key, self.node(value)));
        }
        let [_, Expr { kind: ExprKind::List { items, optional }, .. }] = arguments(step, "_+_", fold)? else {
            return None;
        };
        let ([item], [], true) = (items.as_slice(), optional.as_slice(), is_empty_list(&fold.init)) else {
            return None;
        };
        let filter = filter.map(|filter| self.node(filter));
        Some(FoldKind::Collect(filter, self.node(item)))
    }
}

/// Whether maps may have such keys.
pub(crate) fn is_key(key: &Value<'_>) -> bool {
    matches!(key, Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::String(_))
}

fn literal_value(node: &Node) -> Option<Value<'static>> {
    match node {
        Node::Literal(value) => Some((**value).clone()),
        _ => None,
    }
}

fn is_bool(expr: &Expr, wanted: bool) -> bool {
    matches!(&expr.kind, ExprKind::Literal(Literal::Bool(value)) if *value == wanted)
}

fn is_empty_list(expr: &Expr) -> bool {
    matches!(&expr.kind, ExprKind::List { items, .. } if items.is_empty())
}

fn is_accumulator(expr: &Expr, fold: &Comprehension) -> bool {
    expr.as_ident() == Some(&*fold.accumulator) && *fold.accumulator == *crate::syntax::ACCUMULATOR
}

fn is_call<'e>(expr: &'e Expr, name: &str) -> Option<&'e [Expr]> {
    match &expr.kind {
        ExprKind::Call { function, target: None, arguments } if **function == *name => Some(arguments),
        _ => None,
    }
}

/// The arguments of a call on the accumulator.
fn arguments<'e>(expr: &'e Expr, name: &str, fold: &Comprehension) -> Option<&'e [Expr]> {
    is_call(expr, name).filter(|arguments| arguments.len() == 2 && is_accumulator(&arguments[0], fold))
}

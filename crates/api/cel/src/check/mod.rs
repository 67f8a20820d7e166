//! Checks that names are declared and types agree, and finds out the type of every node.

mod literals;
mod paths;
mod unify;

use crate::env::Env;
use crate::error::{Issue, Issues, SHOWN};
use crate::function::Function;
use crate::syntax::{self, Comprehension, Expr, ExprKind, FieldInit, Literal};
use crate::types::Type;
use std::collections::HashMap;
use std::sync::Arc;
use unify::Mapping;

/// A tree whose types are right.
pub(crate) struct Tree {
    pub root: Expr,
    types: Vec<Type>,
    calls: HashMap<u32, Call>,
}

/// What a call may call: overloads by their place in the function.
pub(crate) struct Call {
    pub function: Arc<Function>,
    pub overloads: Vec<u16>,
}

impl Tree {
    pub fn output_type(&self) -> &Type {
        self.type_of(&self.root)
    }

    pub fn type_of(&self, expr: &Expr) -> &Type {
        self.types.get(expr.id as usize).unwrap_or(&Type::Dyn)
    }

    pub fn call(&self, expr: &Expr) -> Option<&Call> {
        self.calls.get(&expr.id)
    }

    /// The paths of fields of variables that are read.
    pub fn paths(&self) -> Vec<Vec<Box<str>>> {
        paths::paths(&self.root)
    }
}

/// The type that a name stands for, when it is a type's.
pub(crate) fn named_type(env: &Env, name: &str) -> Option<Type> {
    Some(match name {
        "bool" => Type::Bool,
        "bytes" => Type::Bytes,
        "double" => Type::Double,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "string" => Type::String,
        "dyn" => Type::Dyn,
        "null_type" => Type::Null,
        "list" => Type::list(Type::Dyn),
        "map" => Type::map(Type::Dyn, Type::Dyn),
        "type" => Type::type_of(Type::Dyn),
        "optional_type" => Type::optional(Type::Dyn),
        "google.protobuf.Timestamp" => Type::Timestamp,
        "google.protobuf.Duration" => Type::Duration,
        _ => return env.libraries.types.get(name).cloned().or_else(|| env.types.as_ref()?.find(name)),
    })
}

/// Parses and checks `source`.
pub(crate) fn check(env: &Env, source: &str) -> Result<Tree, Issues> {
    let (mut root, nodes) = syntax::parse(source, &env.libraries.macros)?;
    let mut checker = Checker {
        env,
        source,
        types: vec![Type::Error; nodes as usize + 1],
        calls: HashMap::new(),
        scopes: Vec::new(),
        mapping: Mapping::default(),
        issues: Vec::new(),
        more: 0,
    };
    checker.check(&mut root);
    let Checker { types, calls, mapping, mut issues, more, .. } = checker;
    if issues.is_empty() {
        literals::check(&root, source, &mut issues);
    }
    if !issues.is_empty() {
        return Err(Issues::truncated(source, issues, more));
    }
    let types = types.into_iter().map(|known| mapping.substitute(&known, true)).collect();
    Ok(Tree { root, types, calls })
}

struct Checker<'c> {
    env: &'c Env,
    source: &'c str,
    types: Vec<Type>,
    calls: HashMap<u32, Call>,
    /// Variables of macros, the innermost last.
    scopes: Vec<(Box<str>, Type)>,
    mapping: Mapping,
    issues: Vec<Issue>,
    /// Issues that are not kept.
    more: usize,
}

impl Checker<'_> {
    fn fail(&mut self, at: u32, message: String) {
        if self.issues.len() >= SHOWN {
            self.more += 1;
            return;
        }
        self.issues.push(Issue::at(self.source, at, message));
    }

    fn undeclared(&mut self, at: u32, name: &str) {
        self.fail(at, format!("undeclared reference to '{name}' (in container '')"));
    }

    fn mismatch(&mut self, at: u32, expected: &Type, found: &Type) {
        let (expected, found) = (self.mapping.substitute(expected, false), self.mapping.substitute(found, false));
        self.fail(at, format!("expected type '{expected}' but found '{found}'"));
    }

    fn known(&self, expr: &Expr) -> Type {
        self.types[expr.id as usize].clone()
    }

    fn check(&mut self, expr: &mut Expr) -> Type {
        let (id, at) = (expr.id, expr.at);
        let found = match &mut expr.kind {
            ExprKind::Literal(literal) => literal_type(literal),
            ExprKind::Ident(name) => self.ident(at, name),
            ExprKind::Select { .. } => self.select(expr),
            ExprKind::Call { .. } => self.call(expr),
            ExprKind::List { items, optional } => self.list(items, optional),
            ExprKind::Map(entries) => self.map(entries),
            ExprKind::Struct { name, fields } => self.message(at, name, fields),
            ExprKind::Comprehension(fold) => self.fold(fold),
        };
        self.types[id as usize] = found.clone();
        found
    }

    fn ident(&mut self, at: u32, name: &str) -> Type {
        match self.lookup(name) {
            Some(found) => found,
            None => {
                self.undeclared(at, name);
                Type::Error
            }
        }
    }

    /// The type of a variable, constant or type called `name`.
    fn lookup(&self, name: &str) -> Option<Type> {
        if let Some(local) = self.scopes.iter().rev().find(|scope| *scope.0 == *name) {
            return Some(local.1.clone());
        }
        let name = name.strip_prefix('.').unwrap_or(name);
        if let Some(variable) = self.env.variables.get(name) {
            return Some(variable.value.clone());
        }
        if let Some(constant) = self.env.libraries.constants.get(name) {
            return Some(constant.0.clone());
        }
        named_type(self.env, name).map(Type::type_of)
    }

    /// A name with dots is first looked up as a whole, and then becomes an identifier.
    fn select(&mut self, expr: &mut Expr) -> Type {
        if let Some(name) = expr.qualified_name()
            && !self.shadowed(&name)
            && let Some(found) = self.lookup(&name)
        {
            expr.kind = ExprKind::Ident(name.into());
            return found;
        }
        let at = expr.at;
        let ExprKind::Select { operand, field, test } = &mut expr.kind else { return Type::Error };
        let test = *test;
        let found = self.select_field(at, operand, field, false);
        if test { Type::Bool } else { self.mapping.substitute(&found, false) }
    }

    /// Whether the first part of a name with dots is a macro's variable.
    fn shadowed(&self, name: &str) -> bool {
        let first = name.split('.').next().unwrap_or(name);
        self.scopes.iter().any(|scope| *scope.0 == *first)
    }

    fn select_field(&mut self, at: u32, operand: &mut Expr, field: &str, optional: bool) -> Type {
        self.check(operand);
        let operand_type = self.mapping.substitute(&self.known(operand), false);
        let (target, unwrapped) = match operand_type {
            Type::Optional(inner) => ((*inner).clone(), true),
            other => (other, false),
        };
        let found = match &target {
            Type::Map(map) => map.value.clone(),
            Type::Object(object) => match object.field(field) {
                Some(found) => found,
                None => {
                    self.fail(at, format!("undefined field '{field}'"));
                    Type::Error
                }
            },
            Type::Param(_) => {
                self.mapping.assignable(&Type::Dyn, &target);
                Type::Dyn
            }
            other if other.is_dyn() => Type::Dyn,
            other => {
                let message = format!("type '{other}' does not support field selection");
                self.fail(at, message);
                Type::Dyn
            }
        };
        if unwrapped || optional { Type::optional(found) } else { found }
    }

    fn call(&mut self, expr: &mut Expr) -> Type {
        let (id, at) = (expr.id, expr.at);
        let ExprKind::Call { function, target, arguments } = &mut expr.kind else { return Type::Error };
        if &**function == "_?._" {
            let [operand, field] = arguments.as_mut_slice() else { return Type::Error };
            let ExprKind::Literal(Literal::String(name)) = &field.kind else { return Type::Error };
            let name = name.clone();
            self.check(field);
            return self.select_field(at, operand, &name, true);
        }
        let mut given: Vec<Type> = arguments.iter_mut().map(|argument| self.check(argument)).collect();
        let functions = &self.env.libraries.functions;
        if let Some(receiver) = target {
            let name = receiver.qualified_name().map(|prefix| format!("{prefix}.{function}"));
            let qualified = name.as_deref().and_then(|name| functions.get(name.strip_prefix('.').unwrap_or(name)));
            if let Some(found) = qualified {
                *target = None;
                *function = found.name.clone();
                return self.resolve(id, at, found, given, false, arguments);
            }
            given.insert(0, self.check(receiver));
        }
        let name = function.strip_prefix('.').unwrap_or(function);
        let Some(found) = functions.get(name) else {
            let name = function.clone();
            self.undeclared(at, &name);
            return Type::Error;
        };
        let member = target.is_some();
        self.resolve(id, at, found, given, member, arguments)
    }

    /// The type of a call of `function` with arguments of the types `given`.
    fn resolve(
        &mut self,
        id: u32,
        at: u32,
        function: &Arc<Function>,
        mut given: Vec<Type>,
        member: bool,
        arguments: &[Expr],
    ) -> Type {
        if matches!(&*function.name, "_&&_" | "_||_") {
            return self.logical(id, function, &given, arguments);
        }
        let mut result: Option<Type> = None;
        let mut fitting = Vec::new();
        for (place, overload) in function.overloads.iter().enumerate() {
            if overload.member != member || overload.arguments.len() != given.len() {
                continue;
            }
            let mut signature = overload.arguments.to_vec();
            signature.push(overload.result.clone());
            let mut wanted = self.mapping.instantiate(&signature);
            let declared = wanted.pop().unwrap_or(Type::Dyn);
            if !self.mapping.all_assignable(&given, &wanted) {
                continue;
            }
            fitting.push(place as u16);
            let found = self.mapping.substitute(&declared, false);
            result = Some(match result {
                None => found,
                Some(before) if before.is_dyn() || before == found => before,
                Some(_) => Type::Dyn,
            });
        }
        let Some(result) = result else {
            for part in &mut given {
                *part = self.mapping.substitute(part, true);
            }
            let message = format!(
                "found no matching overload for '{}' applied to '{}'",
                function.name,
                signature(&given, member)
            );
            self.fail(at, message);
            return Type::Error;
        };
        self.calls.insert(id, Call { function: function.clone(), overloads: fitting });
        result
    }

    fn logical(&mut self, id: u32, function: &Arc<Function>, given: &[Type], arguments: &[Expr]) -> Type {
        let mut right = true;
        for (found, argument) in given.iter().zip(arguments) {
            if !self.mapping.assignable(found, &Type::Bool) {
                self.mismatch(argument.at, &Type::Bool, found);
                right = false;
            }
        }
        self.calls.insert(id, Call { function: function.clone(), overloads: vec![0] });
        if right { Type::Bool } else { Type::Error }
    }

    /// The type of something optional when it is written `?x`.
    fn unwrapped(&mut self, at: u32, found: Type, optional: bool) -> Type {
        match found {
            Type::Optional(inner) if optional => (*inner).clone(),
            other => {
                if optional && !other.is_dyn() {
                    self.mismatch(at, &Type::optional(other.clone()), &other);
                }
                other
            }
        }
    }

    fn join(&mut self, at: u32, before: Option<Type>, current: Type) -> Option<Type> {
        let Some(before) = before else { return Some(current) };
        if self.mapping.assignable(&before, &current) {
            return Some(unify::most_general(before, current));
        }
        self.mismatch(at, &before, &current);
        Some(Type::Error)
    }

    fn list(&mut self, items: &mut [Expr], optional: &[u32]) -> Type {
        let mut element = None;
        for (place, item) in items.iter_mut().enumerate() {
            let found = self.check(item);
            let found = self.unwrapped(item.at, found, optional.binary_search(&(place as u32)).is_ok());
            element = self.join(item.at, element, found);
        }
        Type::list(element.unwrap_or_else(|| self.mapping.fresh()))
    }

    fn map(&mut self, entries: &mut [syntax::Entry]) -> Type {
        let (mut key, mut value) = (None, None);
        for entry in entries {
            let found = self.check(&mut entry.key);
            // Only simple keys can be looked up; others are errors at evaluation.
            let simple = !matches!(found, Type::List(_) | Type::Map(_) | Type::Optional(_) | Type::Opaque(_));
            key = self.join(entry.key.at, key, if simple { found } else { Type::Dyn });
            let found = self.check(&mut entry.value);
            let found = self.unwrapped(entry.value.at, found, entry.optional);
            value = self.join(entry.value.at, value, found);
        }
        let mut fresh = || self.mapping.fresh();
        Type::map(key.unwrap_or_else(&mut fresh), value.unwrap_or_else(&mut fresh))
    }

    fn message(&mut self, at: u32, name: &str, fields: &mut [FieldInit]) -> Type {
        let Some(found) = named_type(self.env, name.strip_prefix('.').unwrap_or(name)) else {
            self.undeclared(at, name);
            return Type::Error;
        };
        let Type::Object(object) = &found else {
            self.fail(at, format!("'{}' is not a message type", found.runtime_name()));
            return Type::Error;
        };
        for field in fields {
            let given = self.check(&mut field.value);
            let declared = object.field(&field.name).unwrap_or_else(|| {
                self.fail(field.at, format!("undefined field '{}'", field.name));
                Type::Error
            });
            let given = self.unwrapped(field.value.at, given, field.optional);
            if !self.mapping.assignable(&declared, &given) {
                let message = format!(
                    "expected type of field '{}' is '{declared}' but provided type is '{}'",
                    field.name,
                    self.mapping.substitute(&given, false)
                );
                self.fail(field.at, message);
            }
        }
        found.clone()
    }

    fn fold(&mut self, fold: &mut Comprehension) -> Type {
        self.check(&mut fold.range);
        let accumulated = self.check(&mut fold.init);
        let range = self.mapping.substitute(&self.known(&fold.range), false);
        let two = fold.variable2.is_some();
        let (first, second) = match &range {
            Type::List(list) if two => (Type::Int, list.element.clone()),
            Type::List(list) => (list.element.clone(), Type::Error),
            Type::Map(map) => (map.key.clone(), map.value.clone()),
            Type::Dyn | Type::Error | Type::Param(_) => {
                self.mapping.assignable(&Type::Dyn, &range);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                let message = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.fail(fold.range.at, message);
                (Type::Error, Type::Error)
            }
        };
        self.scopes.push((fold.accumulator.clone(), accumulated.clone()));
        self.scopes.push((fold.variable.clone(), first));
        if let Some(variable) = &fold.variable2 {
            self.scopes.push((variable.clone(), second));
        }
        self.expect(&mut fold.condition, &Type::Bool);
        self.expect(&mut fold.step, &accumulated);
        self.scopes.truncate(self.scopes.len() - if two { 2 } else { 1 });
        let result = self.check(&mut fold.result);
        self.scopes.pop();
        self.mapping.substitute(&result, false)
    }

    fn expect(&mut self, expr: &mut Expr, wanted: &Type) {
        let found = self.check(expr);
        if !self.mapping.assignable(wanted, &found) {
            self.mismatch(expr.at, wanted, &found);
        }
    }
}

fn literal_type(literal: &Literal) -> Type {
    match literal {
        Literal::Null => Type::Null,
        Literal::Bool(_) => Type::Bool,
        Literal::Int(_) => Type::Int,
        Literal::Uint(_) => Type::Uint,
        Literal::Double(_) => Type::Double,
        Literal::String(_) => Type::String,
        Literal::Bytes(_) => Type::Bytes,
    }
}

/// `(int, string)`, or `string.(int)` for calls on something.
fn signature(given: &[Type], member: bool) -> String {
    let list = |types: &[Type]| types.iter().map(Type::to_string).collect::<Vec<_>>().join(", ");
    match given.split_first() {
        Some((receiver, rest)) if member => format!("{receiver}.({})", list(rest)),
        _ => format!("({})", list(given)),
    }
}

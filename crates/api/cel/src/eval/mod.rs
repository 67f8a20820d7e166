//! Evaluates programs step by step, and counts what it costs.

mod fold;
mod node;
mod operate;

pub(crate) use node::{Call, Field, Fold, FoldKind, List, Made, MapEntry, Node, Operation, Relation};
pub(crate) use operate::equal;

use crate::cost::{Budget, STRING_TRAVERSAL_FACTOR, scale};
use crate::error::EvalError;
use crate::function::{CallContext, Overload};
use crate::program::{Activation, Program};
use crate::value::{Map, Struct, Value};
use std::sync::Arc;

/// What making a list, a map and a message costs.
const LIST_COST: u64 = 10;
const MAP_COST: u64 = 30;
const STRUCT_COST: u64 = 40;

type Outcome<'a> = Result<Value<'a>, EvalError>;

/// The result and what it did cost, which is spent from the budget.
pub(crate) fn run<'a>(program: &Program, activation: &dyn Activation<'a>, budget: &mut Budget) -> (Outcome<'a>, u64) {
    let limit = budget.per_call();
    let mut frame = Frame { program, activation, budget, locals: Vec::new(), cost: 0, limit };
    let result = frame.eval(&program.root);
    let cost = frame.cost;
    if budget.spend(cost) { (result, cost) } else { (Err(EvalError::OutOfBudget), cost) }
}

/// One evaluation.
struct Frame<'a, 'p> {
    program: &'p Program,
    activation: &'p dyn Activation<'a>,
    budget: &'p mut Budget,
    /// Variables of macros.
    locals: Vec<Value<'a>>,
    cost: u64,
    limit: u64,
}

impl<'a, 'p> Frame<'a, 'p> {
    fn charge(&mut self, cost: u64) -> Result<(), EvalError> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > self.limit { Err(EvalError::CostLimit) } else { Ok(()) }
    }

    fn eval(&mut self, node: &'p Node) -> Outcome<'a> {
        match node {
            Node::Literal(value) => Ok((**value).clone()),
            Node::Global(slot) => self.global(*slot),
            Node::Local(place) => {
                self.charge(1)?;
                self.locals.get(usize::from(*place)).cloned().ok_or(EvalError::NoSuchOverload)
            }
            Node::Lazy(slot, field) => self.lazy(*slot, field),
            Node::Select(field) => self.select(field, false),
            Node::Has(field) => self.has(field),
            Node::OptionalSelect(field) => self.select(field, true),
            Node::Index(parts) => self.index(parts, false),
            Node::OptionalIndex(parts) => self.index(parts, true),
            Node::And(parts) => self.logical(&parts[0], &parts[1], false),
            Node::Or(parts) => self.logical(&parts[0], &parts[1], true),
            Node::Not(operand) => {
                let value = self.boolean(operand)?;
                self.charge(1)?;
                Ok(Value::Bool(!value))
            }
            Node::NotStrictlyFalse(operand) => {
                let value = self.eval(operand);
                self.charge(1)?;
                Ok(Value::Bool(!matches!(value, Ok(Value::Bool(false)))))
            }
            Node::Conditional(parts) => {
                let yes = self.boolean(&parts[0])?;
                self.eval(&parts[if yes { 1 } else { 2 }])
            }
            Node::Equal(parts) => self.equality(parts, true),
            Node::NotEqual(parts) => self.equality(parts, false),
            Node::In { parts, free } => self.contains(parts, *free),
            Node::Compare(relation, parts) => self.relation(*relation, parts),
            Node::Arithmetic(operation, parts) => self.arithmetic(*operation, parts),
            Node::Negate(operand) => {
                let value = self.eval(operand)?;
                self.charge(1)?;
                operate::negate(&value)
            }
            Node::OptionalOr(parts) => self.optional_or(parts, false),
            Node::OptionalOrValue(parts) => self.optional_or(parts, true),
            Node::Call(call) => self.call(call),
            Node::List(list) => self.list(list),
            Node::Map(entries) => self.map(entries),
            Node::Struct(made) => self.made(made),
            Node::Fold(fold) => self.fold(fold),
        }
    }

    fn boolean(&mut self, node: &'p Node) -> Result<bool, EvalError> {
        self.eval(node)?.as_bool().ok_or(EvalError::NoSuchOverload)
    }

    fn name(&self, slot: u16) -> &'p str {
        &self.program.variables[usize::from(slot)]
    }

    fn global(&mut self, slot: u16) -> Outcome<'a> {
        self.charge(1)?;
        let name = self.name(slot);
        self.activation.variable(name).ok_or_else(|| EvalError::NoSuchAttribute(name.into()))
    }

    fn lazy(&mut self, slot: u16, field: &str) -> Outcome<'a> {
        self.charge(2)?;
        let name = self.name(slot);
        match self.activation.member(name, field, self.budget) {
            Some(result) => result,
            None => Err(EvalError::NoSuchKey(field.into())),
        }
    }

    /// `operand.field`, or `operand.?field` where what is not there is an empty optional.
    fn select(&mut self, field: &'p Field, is_optional: bool) -> Outcome<'a> {
        let operand = self.eval(&field.operand)?;
        self.charge(u64::from(field.cost))?;
        match operand {
            Value::Optional(None) => Ok(Value::Optional(None)),
            Value::Optional(Some(inner)) => Ok(optional(find(&inner, &field.field)?)),
            operand if is_optional => Ok(optional(find(&operand, &field.field)?)),
            operand => find(&operand, &field.field)?.ok_or_else(|| EvalError::NoSuchKey(field.field.clone())),
        }
    }

    /// Presence tests cost nothing themselves.
    fn has(&mut self, field: &'p Field) -> Outcome<'a> {
        let found = match self.eval(&field.operand)? {
            Value::Optional(None) => false,
            Value::Optional(Some(inner)) => find(&inner, &field.field)?.is_some(),
            operand => find(&operand, &field.field)?.is_some(),
        };
        Ok(Value::Bool(found))
    }

    /// `operand[index]`, or `operand[?index]` where what is not there is an empty optional.
    fn index(&mut self, parts: &'p [Node; 2], is_optional: bool) -> Outcome<'a> {
        let operand = self.eval(&parts[0])?;
        let index = self.eval(&parts[1])?;
        self.charge(if parts[0].is_attribute() { 1 } else { 2 })?;
        match operand {
            Value::Optional(None) => Ok(Value::Optional(None)),
            Value::Optional(Some(inner)) => Ok(optional(at(&inner, &index)?)),
            operand if is_optional => Ok(optional(at(&operand, &index)?)),
            operand => at(&operand, &index)?.ok_or_else(|| missing(&operand, &index)),
        }
    }

    /// `&&` and `||`: one side that decides hides an error of the other.
    fn logical(&mut self, left: &'p Node, right: &'p Node, deciding: bool) -> Outcome<'a> {
        let first = self.boolean(left);
        self.decide(first, right, deciding)
    }

    fn decide(&mut self, first: Result<bool, EvalError>, right: &'p Node, deciding: bool) -> Outcome<'a> {
        match &first {
            Ok(value) if *value == deciding => return Ok(Value::Bool(deciding)),
            Err(error) if error.is_fatal() => return first.map(Value::Bool),
            _ => {}
        }
        match (first, self.boolean(right)) {
            (_, Ok(value)) if value == deciding => Ok(Value::Bool(deciding)),
            (_, Err(error)) if error.is_fatal() => Err(error),
            (Err(error), _) | (_, Err(error)) => Err(error),
            _ => Ok(Value::Bool(!deciding)),
        }
    }

    fn equality(&mut self, parts: &'p [Node; 2], wanted: bool) -> Outcome<'a> {
        let (left, right) = (self.eval(&parts[0])?, self.eval(&parts[1])?);
        self.charge(traversal(left.size().min(right.size())))?;
        Ok(Value::Bool(equal(&left, &right) == wanted))
    }

    fn contains(&mut self, parts: &'p [Node; 2], free: bool) -> Outcome<'a> {
        let (element, range) = (self.eval(&parts[0])?, self.eval(&parts[1])?);
        match &range {
            Value::List(list) => {
                self.charge(if free { 0 } else { list.len() as u64 })?;
                Ok(Value::Bool(list.iter().any(|item| equal(&item, &element))))
            }
            Value::Map(map) => {
                self.charge(1)?;
                Ok(Value::Bool(map.contains(&element)))
            }
            _ => Err(EvalError::NoSuchOverload),
        }
    }

    fn relation(&mut self, relation: Relation, parts: &'p [Node; 2]) -> Outcome<'a> {
        let (left, right) = (self.eval(&parts[0])?, self.eval(&parts[1])?);
        self.charge(match (&left, &right) {
            (Value::String(_), _) | (Value::Bytes(_), _) => traversal(left.size().min(right.size())),
            _ => 1,
        })?;
        operate::relate(relation, &left, &right).map(Value::Bool)
    }

    fn arithmetic(&mut self, operation: Operation, parts: &'p [Node; 2]) -> Outcome<'a> {
        let (left, right) = (self.eval(&parts[0])?, self.eval(&parts[1])?);
        self.charge(match (&left, &right) {
            (Value::String(_), Value::String(_)) | (Value::Bytes(_), Value::Bytes(_)) => {
                traversal(left.size() + right.size())
            }
            _ => 1,
        })?;
        operate::arithmetic(operation, &left, &right)
    }

    fn optional_or(&mut self, parts: &'p [Node; 2], unwrap: bool) -> Outcome<'a> {
        match self.eval(&parts[0])? {
            Value::Optional(Some(value)) if unwrap => Ok((*value).clone()),
            Value::Optional(Some(value)) => Ok(Value::Optional(Some(value))),
            Value::Optional(None) => self.eval(&parts[1]),
            _ => Err(EvalError::NoSuchOverload),
        }
    }

    fn call(&mut self, call: &'p Call) -> Outcome<'a> {
        match &*call.arguments {
            [one] => {
                let arguments = [self.eval(one)?];
                self.apply(call, &arguments)
            }
            [one, two] => {
                let arguments = [self.eval(one)?, self.eval(two)?];
                self.apply(call, &arguments)
            }
            many => {
                let arguments: Vec<Value<'a>> = many.iter().map(|node| self.eval(node)).collect::<Result<_, _>>()?;
                self.apply(call, &arguments)
            }
        }
    }

    fn apply(&mut self, call: &'p Call, arguments: &[Value<'a>]) -> Outcome<'a> {
        let fits = |overload: &&Overload| {
            overload.unchecked
                || overload.arguments.iter().zip(arguments).all(|(declared, value)| node::accepts(declared, value))
        };
        let mut overloads = call.overloads.iter().map(|place| &call.function.overloads[usize::from(*place)]);
        let overload = overloads.find(fits).ok_or(EvalError::NoSuchOverload)?;
        let mut context = CallContext { memo: call.memo.as_ref() };
        let result = (overload.call)(&mut context, arguments);
        let cost = match (&result, overload.cost) {
            (Ok(result), Some(cost)) => cost(arguments, result),
            _ => 1,
        };
        self.charge(cost)?;
        result
    }

    fn list(&mut self, list: &'p List) -> Outcome<'a> {
        let mut items = Vec::with_capacity(list.items.len());
        for (place, node) in list.items.iter().enumerate() {
            let value = self.eval(node)?;
            if list.optional.binary_search(&(place as u32)).is_err() {
                items.push(value);
            } else if let Some(value) = unwrapped(value)? {
                items.push(value);
            }
        }
        self.charge(LIST_COST)?;
        Ok(items.into())
    }

    fn map(&mut self, nodes: &'p [MapEntry]) -> Outcome<'a> {
        let mut entries: Vec<(Value<'a>, Value<'a>)> = Vec::with_capacity(nodes.len());
        for entry in nodes {
            let key = self.eval(&entry.key)?;
            let value = self.eval(&entry.value)?;
            if !crate::plan::is_key(&key) {
                return Err(EvalError::other(format!("unsupported key type: {}", key.runtime_type().runtime_name())));
            }
            let value = if entry.optional { unwrapped(value)? } else { Some(value) };
            entries.extend(value.map(|value| (key, value)));
        }
        self.charge(MAP_COST)?;
        let map = Map::Owned(Arc::new(crate::value::Entries::distinct(entries)?));
        Ok(Value::Map(map))
    }

    fn made(&mut self, made: &'p Made) -> Outcome<'a> {
        let mut fields = Vec::with_capacity(made.fields.len());
        for (name, node, optional) in &made.fields {
            let value = self.eval(node)?;
            let value = if *optional { unwrapped(value)? } else { Some(value) };
            fields.extend(value.map(|value| (name.clone(), value)));
        }
        self.charge(STRUCT_COST)?;
        Ok(Value::Struct(Arc::new(Struct { object: made.object.clone(), fields })))
    }
}

/// What looking through so many characters costs.
fn traversal(size: u64) -> u64 {
    match size {
        0..=10 => u64::from(size > 0),
        more => scale(more, STRING_TRAVERSAL_FACTOR),
    }
}

fn optional(found: Option<Value<'_>>) -> Value<'_> {
    Value::Optional(found.map(Arc::new))
}

fn unwrapped(value: Value<'_>) -> Result<Option<Value<'_>>, EvalError> {
    match value {
        Value::Optional(inner) => Ok(inner.map(|inner| (*inner).clone())),
        other => {
            let name = other.runtime_type();
            Err(EvalError::other(format!("cannot initialize optional value with non-optional type '{name}'")))
        }
    }
}

/// The field or entry called `name`.
fn find<'a>(operand: &Value<'a>, name: &str) -> Result<Option<Value<'a>>, EvalError> {
    match operand {
        Value::Map(map) => Ok(map.get_text(name)),
        Value::Struct(made) => Ok(made.get(name).cloned()),
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn at<'a>(operand: &Value<'a>, index: &Value<'a>) -> Result<Option<Value<'a>>, EvalError> {
    match operand {
        Value::Map(map) => Ok(map.get(index)),
        Value::List(list) => Ok(usize::try_from(position(index)?).ok().and_then(|place| list.get(place))),
        Value::Struct(made) => match index.as_str() {
            Some(name) => Ok(made.get(name).cloned()),
            None => Err(EvalError::NoSuchOverload),
        },
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn position(index: &Value<'_>) -> Result<i64, EvalError> {
    match index {
        Value::Int(place) => Ok(*place),
        Value::Uint(place) => Ok(i64::try_from(*place).unwrap_or(i64::MAX)),
        Value::Double(place) if place.fract() == 0.0 => Ok(*place as i64),
        other => {
            let name = other.runtime_type();
            Err(EvalError::other(format!("unsupported index type '{}' in list", name.runtime_name())))
        }
    }
}

fn missing(operand: &Value<'_>, index: &Value<'_>) -> EvalError {
    match (operand, position(index)) {
        (Value::List(_), Ok(place)) => EvalError::IndexOutOfBounds(place),
        _ => EvalError::NoSuchKey(operate::shown(index).into()),
    }
}

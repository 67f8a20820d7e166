//! What programs are made of.

use crate::function::Function;
use crate::syntax::Literal;
use crate::types::{ObjectType, Type};
use crate::value::Value;
use std::any::Any;
use std::sync::{Arc, OnceLock};

/// A step of a program: 24 bytes, its parts behind a pointer.
pub(crate) enum Node {
    Literal(Box<Value<'static>>),
    /// A variable of the activation.
    Global(u16),
    /// A variable of a macro, by its place on the stack.
    Local(u16),
    /// A field of a lazy variable.
    Lazy(u16, Box<str>),
    Select(Box<Field>),
    Has(Box<Field>),
    OptionalSelect(Box<Field>),
    Index(Box<[Node; 2]>),
    OptionalIndex(Box<[Node; 2]>),
    And(Box<[Node; 2]>),
    Or(Box<[Node; 2]>),
    Not(Box<Node>),
    NotStrictlyFalse(Box<Node>),
    Conditional(Box<[Node; 3]>),
    Equal(Box<[Node; 2]>),
    NotEqual(Box<[Node; 2]>),
    /// `free` when the list is a literal.
    In {
        parts: Box<[Node; 2]>,
        free: bool,
    },
    Compare(Relation, Box<[Node; 2]>),
    Arithmetic(Operation, Box<[Node; 2]>),
    Negate(Box<Node>),
    OptionalOr(Box<[Node; 2]>),
    OptionalOrValue(Box<[Node; 2]>),
    Call(Box<Call>),
    List(Box<List>),
    Map(Box<[MapEntry]>),
    Struct(Box<Made>),
    Fold(Box<Fold>),
}

pub(crate) struct Field {
    pub operand: Node,
    pub field: Box<str>,
    /// What it costs: more when the operand is computed.
    pub cost: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relation {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

/// A call of one of several overloads of a function.
pub(crate) struct Call {
    pub function: Arc<Function>,
    pub overloads: Box<[u16]>,
    pub arguments: Box<[Node]>,
    /// There when all arguments after the first are literals.
    pub memo: Option<OnceLock<Arc<dyn Any + Send + Sync>>>,
}

pub(crate) struct List {
    pub items: Box<[Node]>,
    pub optional: Box<[u32]>,
}

pub(crate) struct MapEntry {
    pub key: Node,
    pub value: Node,
    pub optional: bool,
}

pub(crate) struct Made {
    pub object: Arc<dyn ObjectType>,
    /// Names, values, and whether they are optional.
    pub fields: Box<[(Box<str>, Node, bool)]>,
}

/// A macro over a range. Its variables are on the stack: the accumulator, the variable, the second variable.
pub(crate) struct Fold {
    pub range: Node,
    pub init: Node,
    pub two: bool,
    pub kind: FoldKind,
    pub result: Node,
}

pub(crate) enum FoldKind {
    /// Any other: the condition and the step.
    General(Node, Node),
    /// The accumulator is the value of a name: nothing is folded.
    Bind,
    /// `all`: the predicate.
    All(Node),
    /// `exists`: the predicate.
    Exists(Node),
    /// `map` and `filter`: which elements, and what of them.
    Collect(Option<Node>, Node),
    /// `transformMap` and `transformMapEntry`: which elements, the key if it is apart, and the value or the entries.
    Insert(Option<Node>, Option<Node>, Node),
}

impl Node {
    pub fn literal(literal: &Literal) -> Node {
        Node::Literal(Box::new(match literal {
            Literal::Null => Value::Null,
            Literal::Bool(value) => Value::Bool(*value),
            Literal::Int(value) => Value::Int(*value),
            Literal::Uint(value) => Value::Uint(*value),
            Literal::Double(value) => Value::Double(*value),
            Literal::String(text) => Value::from(text.to_string()),
            Literal::Bytes(bytes) => Value::Bytes(bytes.to_vec().into()),
        }))
    }

    /// Whether the value is found by names and indexes alone: selecting from it costs less.
    pub fn is_attribute(&self) -> bool {
        match self {
            Node::Global(_) | Node::Local(_) | Node::Lazy(..) | Node::Literal(_) => true,
            Node::Select(field) | Node::OptionalSelect(field) => field.operand.is_attribute() || field.cost > 1,
            Node::Index(parts) | Node::OptionalIndex(parts) => parts[0].is_attribute(),
            Node::Conditional(parts) => parts[1].is_attribute() && parts[2].is_attribute(),
            _ => false,
        }
    }
}

/// Whether `value` may be given for a parameter of type `declared`.
pub(crate) fn accepts(declared: &Type, value: &Value<'_>) -> bool {
    match (declared, value) {
        (Type::Dyn | Type::Param(_) | Type::Error, _) => true,
        (Type::Null, Value::Null)
        | (Type::Bool, Value::Bool(_))
        | (Type::Int, Value::Int(_))
        | (Type::Uint, Value::Uint(_))
        | (Type::Double, Value::Double(_))
        | (Type::String, Value::String(_))
        | (Type::Bytes, Value::Bytes(_))
        | (Type::Timestamp, Value::Timestamp(_))
        | (Type::Duration, Value::Duration(_))
        | (Type::List(_), Value::List(_))
        | (Type::Map(_), Value::Map(_))
        | (Type::Type(_), Value::Type(_))
        | (Type::Optional(_), Value::Optional(_)) => true,
        (Type::Object(_), Value::Map(_) | Value::Struct(_)) => true,
        (Type::Opaque(opaque), Value::Opaque(value)) => value.value_type().runtime_name() == &*opaque.name,
        _ => false,
    }
}

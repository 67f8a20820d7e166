//! The tree of an expression as its text says it, macros expanded.

/// A node. `id` is unique in its tree and counts from 1; `at` is where it is in the text, in characters.
#[derive(Clone, Debug)]
pub struct Expr {
    pub id: u32,
    pub at: u32,
    pub kind: ExprKind,
}

#[derive(Clone, Debug)]
pub enum ExprKind {
    Literal(Literal),
    Ident(Box<str>),
    /// `operand.field`, or `has(operand.field)` when it is a `test`.
    Select {
        operand: Box<Expr>,
        field: Box<str>,
        test: bool,
    },
    /// Operators are functions: `_+_`, `_[_]`, `_?_:_`, `@in`.
    Call {
        function: Box<str>,
        target: Option<Box<Expr>>,
        arguments: Vec<Expr>,
    },
    /// `optional` are the places of items written `?item`.
    List {
        items: Vec<Expr>,
        optional: Vec<u32>,
    },
    Map(Vec<Entry>),
    Struct {
        name: Box<str>,
        fields: Vec<FieldInit>,
    },
    Comprehension(Box<Comprehension>),
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub at: u32,
    pub key: Expr,
    pub value: Expr,
    pub optional: bool,
}

#[derive(Clone, Debug)]
pub struct FieldInit {
    pub at: u32,
    pub name: Box<str>,
    pub value: Expr,
    pub optional: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Box<str>),
    Bytes(Box<[u8]>),
}

/// What macros become: a fold of a range into an accumulator.
#[derive(Clone, Debug)]
pub struct Comprehension {
    pub range: Expr,
    /// The element of lists, the key of maps; with `variable2` the index or key.
    pub variable: Box<str>,
    /// The element or value.
    pub variable2: Option<Box<str>>,
    pub accumulator: Box<str>,
    pub init: Expr,
    /// The fold ends when this is false.
    pub condition: Expr,
    pub step: Expr,
    pub result: Expr,
}

/// What macros call the accumulator; no text can name it.
pub const ACCUMULATOR: &str = "@result";

impl Expr {
    /// `a.b.c` when the node is nothing but names.
    pub fn qualified_name(&self) -> Option<String> {
        match &self.kind {
            ExprKind::Ident(name) => Some(name.to_string()),
            ExprKind::Select { operand, field, test: false } => {
                let mut name = operand.qualified_name()?;
                name.push('.');
                name.push_str(field);
                Some(name)
            }
            _ => None,
        }
    }

    pub fn as_ident(&self) -> Option<&str> {
        match &self.kind {
            ExprKind::Ident(name) => Some(name),
            _ => None,
        }
    }
}

//! Macros: calls that are rewritten while the text is parsed.

use super::ast::{Comprehension, Entry, Expr, ExprKind, Literal};

/// Rewrites a call; the receiver is there for calls that have one.
pub type Expand = fn(&mut Maker<'_>, Option<Expr>, Vec<Expr>) -> Result<Expr, MacroError>;

/// A call that is rewritten while it is parsed.
#[derive(Clone, Copy)]
pub struct Macro {
    pub name: &'static str,
    /// Whether it is called on something (`list.all(…)`).
    pub member: bool,
    /// Only when it is called on this name (`cel.bind(…)`).
    pub namespace: Option<&'static str>,
    /// `None` takes any number.
    pub arguments: Option<usize>,
    pub expand: Expand,
}

/// What is wrong with a macro's arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MacroError {
    /// In characters.
    pub at: u32,
    pub message: String,
}

/// Makes nodes for macros: all at the place of the macro's call, with identities of their own.
pub struct Maker<'m> {
    pub(crate) next_id: &'m mut u32,
    pub(crate) at: u32,
}

impl MacroError {
    pub fn new(at: u32, message: impl Into<String>) -> Self {
        Self { at, message: message.into() }
    }
}

impl Maker<'_> {
    /// Where the call is.
    pub fn at(&self) -> u32 {
        self.at
    }

    pub fn node(&mut self, kind: ExprKind) -> Expr {
        *self.next_id += 1;
        Expr { id: *self.next_id, at: self.at, kind }
    }

    pub fn literal(&mut self, literal: Literal) -> Expr {
        self.node(ExprKind::Literal(literal))
    }

    pub fn ident(&mut self, name: &str) -> Expr {
        self.node(ExprKind::Ident(name.into()))
    }

    pub fn call(&mut self, function: &str, arguments: Vec<Expr>) -> Expr {
        self.node(ExprKind::Call { function: function.into(), target: None, arguments })
    }

    pub fn member(&mut self, target: Expr, function: &str, arguments: Vec<Expr>) -> Expr {
        self.node(ExprKind::Call { function: function.into(), target: Some(Box::new(target)), arguments })
    }

    pub fn list(&mut self, items: Vec<Expr>) -> Expr {
        self.node(ExprKind::List { items, optional: Vec::new() })
    }

    pub fn map(&mut self, entries: Vec<Entry>) -> Expr {
        self.node(ExprKind::Map(entries))
    }

    pub fn comprehension(&mut self, comprehension: Comprehension) -> Expr {
        self.node(ExprKind::Comprehension(Box::new(comprehension)))
    }

    /// `range` with new identities, for macros that need it twice.
    pub fn copy(&mut self, expr: &Expr) -> Expr {
        let mut copy = expr.clone();
        self.renumber(&mut copy);
        copy
    }

    fn renumber(&mut self, expr: &mut Expr) {
        *self.next_id += 1;
        expr.id = *self.next_id;
        match &mut expr.kind {
            ExprKind::Literal(_) | ExprKind::Ident(_) => {}
            ExprKind::Select { operand, .. } => self.renumber(operand),
            ExprKind::Call { target, arguments, .. } => {
                target.iter_mut().for_each(|target| self.renumber(target));
                arguments.iter_mut().for_each(|argument| self.renumber(argument));
            }
            ExprKind::List { items, .. } => items.iter_mut().for_each(|item| self.renumber(item)),
            ExprKind::Map(entries) => {
                for entry in entries {
                    self.renumber(&mut entry.key);
                    self.renumber(&mut entry.value);
                }
            }
            ExprKind::Struct { fields, .. } => fields.iter_mut().for_each(|field| self.renumber(&mut field.value)),
            ExprKind::Comprehension(fold) => {
                for part in [&mut fold.range, &mut fold.init, &mut fold.condition, &mut fold.step, &mut fold.result] {
                    self.renumber(part);
                }
            }
        }
    }
}

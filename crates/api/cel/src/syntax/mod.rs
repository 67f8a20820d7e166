//! From texts to trees: tokens, grammar, macros.

mod ast;
mod expand;

pub use ast::{ACCUMULATOR, Comprehension, Entry, Expr, ExprKind, FieldInit, Literal};
pub use expand::{Expand, Macro, MacroError, Maker};

//! From texts to trees: tokens, grammar, macros.

mod ast;
mod expand;
mod lexer;
mod literal;
mod parser;
pub(crate) mod standard;

pub use ast::{ACCUMULATOR, Comprehension, Entry, Expr, ExprKind, FieldInit, Literal};
pub use expand::{Expand, Macro, MacroError, Maker};
pub(crate) use parser::{RESERVED, parse};

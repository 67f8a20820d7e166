//! Checks types.
use crate::env::Env;
use crate::error::{Issue, Issues};
use crate::types::Type;
pub(crate) struct Tree;
impl Tree {
    pub fn output_type(&self) -> &Type {
        &Type::Dyn
    }
    pub fn paths(&self) -> Vec<Vec<Box<str>>> {
        Vec::new()
    }
}
pub(crate) fn check(_env: &Env, source: &str) -> Result<Tree, Issues> {
    let issue = Issue { line: 1, column: 0, message: "expressions are not supported yet".into() };
    Err(Issues::new(source, vec![issue]))
}

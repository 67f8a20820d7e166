//! Plans.
use crate::check::Tree;
use crate::env::Env;
use crate::error::{Issue, Issues};
use crate::program::Program;
pub(crate) fn plan(_env: &Env, _tree: Tree, source: &str) -> Result<Program, Issues> {
    let issue = Issue { line: 1, column: 0, message: "expressions are not supported yet".into() };
    Err(Issues::new(source, vec![issue]))
}

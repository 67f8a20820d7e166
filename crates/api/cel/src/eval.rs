//! Evaluates.
use crate::cost::Budget;
use crate::error::EvalError;
use crate::program::{Activation, Program};
use crate::value::Value;
pub(crate) struct Node;
pub(crate) fn run<'a>(
    _program: &Program,
    _activation: &dyn Activation<'a>,
    _budget: &mut Budget,
) -> (Result<Value<'a>, EvalError>, u64) {
    (Err(EvalError::other("expressions are not supported yet")), 0)
}

//! Programs: compiled expressions that evaluate over an activation within a budget.

use crate::cost::Budget;
use crate::error::EvalError;
use crate::eval::Node;
use crate::types::Type;
use crate::value::Value;

/// A compiled expression. It can be shared between threads and is small.
pub struct Program {
    pub(crate) root: Node,
    pub(crate) output: Type,
    /// Names of variables, in the order of their slots.
    pub(crate) variables: Box<[Box<str>]>,
}

/// Where a program finds the values of its variables.
pub trait Activation<'a> {
    fn variable(&self, name: &str) -> Option<Value<'a>>;

    /// A field of a lazy variable ([`crate::EnvBuilder::lazy_variable`]). What computing it costs is spent from
    /// `budget` by whoever computes it.
    fn member(&self, variable: &str, field: &str, budget: &mut Budget) -> Option<Result<Value<'a>, EvalError>> {
        let _ = (variable, field, budget);
        None
    }
}

/// A list of variables.
#[derive(Clone, Default)]
pub struct Variables<'a>(Vec<(&'a str, Value<'a>)>);

impl<'a> Variables<'a> {
    pub fn new() -> Self {
        Self(Vec::new())
    }

    pub fn with(mut self, name: &'a str, value: Value<'a>) -> Self {
        self.set(name, value);
        self
    }

    /// Adds or replaces a variable.
    pub fn set(&mut self, name: &'a str, value: Value<'a>) {
        match self.0.iter_mut().find(|variable| variable.0 == name) {
            Some(variable) => variable.1 = value,
            None => self.0.push((name, value)),
        }
    }
}

impl<'a> Activation<'a> for Variables<'a> {
    fn variable(&self, name: &str) -> Option<Value<'a>> {
        self.0.iter().find(|variable| variable.0 == name).map(|variable| variable.1.clone())
    }
}

impl Program {
    /// The type of the result.
    pub fn output_type(&self) -> &Type {
        &self.output
    }

    /// The variables it reads.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.variables.iter().map(|name| &**name)
    }

    /// Whether it reads the variable `name`.
    pub fn reads(&self, name: &str) -> bool {
        self.variables().any(|variable| variable == name)
    }

    /// The result. Its cost is spent from `budget`, also when there is an error.
    pub fn eval<'a>(&self, activation: &dyn Activation<'a>, budget: &mut Budget) -> Result<Value<'a>, EvalError> {
        crate::eval::run(self, activation, budget).0
    }

    /// [`Program::eval`], and what it did cost.
    pub fn eval_cost<'a>(
        &self,
        activation: &dyn Activation<'a>,
        budget: &mut Budget,
    ) -> (Result<Value<'a>, EvalError>, u64) {
        crate::eval::run(self, activation, budget)
    }
}

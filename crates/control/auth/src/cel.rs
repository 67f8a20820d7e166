//! Expressions in configuration files: compiled when the file is read, evaluated over one JSON variable.

use pintle_cel::rules::kubernetes_env;
use pintle_cel::{Budget, Program, Type, Value as Cel, Variables};
use serde_json::Value;

/// Upstream's bound for the cost of one expression of an authentication or authorization file.
const MAX_COST: u64 = 1_000_000;

/// An expression over variables that it finds by name.
pub struct Expression {
    pub text: String,
    program: Program,
}

impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Expression({:?})", self.text)
    }
}

impl Expression {
    /// Compiles a text that uses `variable`, an object of any shape.
    pub fn compile(text: &str, variable: &str) -> Result<Self, String> {
        let env = kubernetes_env().extend().variable(variable, Type::Dyn).build();
        let program = env.compile(text).map_err(|issues| format!("compilation failed: {issues}"))?;
        Ok(Self { text: text.to_owned(), program })
    }

    fn eval<T>(&self, variable: &str, value: &Value, read: impl FnOnce(&Cel<'_>) -> T) -> Result<T, String> {
        let variables = Variables::new().with(variable, Cel::of_json(value, &Type::Dyn));
        let mut budget = Budget::new(MAX_COST, MAX_COST);
        let result = self.program.eval(&variables, &mut budget).map_err(|e| e.to_string())?;
        Ok(read(&result))
    }

    /// The answer of a condition.
    pub fn holds(&self, variable: &str, value: &Value) -> Result<bool, String> {
        let answer = self.eval(variable, value, |result| result.as_bool())?;
        answer.ok_or_else(|| "must evaluate to bool".to_owned())
    }

    /// A text.
    pub fn text(&self, variable: &str, value: &Value) -> Result<String, String> {
        let answer = self.eval(variable, value, |result| result.as_str().map(str::to_owned))?;
        answer.ok_or_else(|| "must evaluate to a string".to_owned())
    }

    /// A text or a list of texts; null is an empty list.
    pub fn texts(&self, variable: &str, value: &Value) -> Result<Vec<String>, String> {
        let answer = self.eval(variable, value, |result| match result {
            Cel::Null => Some(Vec::new()),
            Cel::List(list) => list.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
            other => other.as_str().map(|text| if text.is_empty() { Vec::new() } else { vec![text.to_owned()] }),
        })?;
        answer.ok_or_else(|| "must evaluate to a string or a list of strings".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn expressions_have_the_libraries_of_kubernetes() {
        let split = Expression::compile("claims.teams.split(',')", "claims").unwrap();
        assert_eq!(split.texts("claims", &json!({"teams": "a,b"})).unwrap(), ["a", "b"]);
        assert!(
            split.texts("claims", &json!({"teams": 1})).is_err()
                && split.holds("claims", &json!({"teams": "a"})).is_err()
        );
        assert!(Expression::compile("user.name", "claims").is_err());
    }
}

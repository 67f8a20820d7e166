//! The regular expressions (`pattern`) of a schema, compiled once.

use pintle_types::field::{ErrorList, FieldError, Path};
use regex::{Regex, RegexBuilder};
use serde_json::Value;
use std::collections::HashMap;

/// A pattern that compiles to more than this many bytes is refused: definitions come from outside.
const MAX_COMPILED_BYTES: usize = 1 << 20;

/// The patterns of a schema by their text. Those that can't be compiled match everything.
#[derive(Default)]
pub(super) struct Patterns(HashMap<String, Regex>);

impl Patterns {
    pub fn of(schema: &Value) -> Self {
        let mut patterns = Self::default();
        patterns.collect(schema);
        patterns
    }

    fn collect(&mut self, schema: &Value) {
        if let Some(text) = schema["pattern"].as_str()
            && let Ok(regex) = RegexBuilder::new(text).size_limit(MAX_COMPILED_BYTES).build()
        {
            self.0.insert(text.to_owned(), regex);
        }
        match schema {
            Value::Object(fields) => {
                let inner = fields.iter().filter(|(key, _)| !matches!(key.as_str(), "default" | "enum" | "example"));
                inner.for_each(|(_, value)| self.collect(value));
            }
            Value::Array(items) => items.iter().for_each(|item| self.collect(item)),
            _ => {}
        }
    }

    /// The texts of an object that don't match.
    pub fn check(&self, schema: &Value, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        if !self.0.is_empty() {
            self.visit(schema, object, &Path::default(), &mut errors);
        }
        errors
    }

    fn visit(&self, schema: &Value, value: &Value, path: &Path, errors: &mut ErrorList) {
        match value {
            Value::String(text) => {
                let pattern = schema["pattern"].as_str().unwrap_or_default();
                if self.0.get(pattern).is_some_and(|regex| !regex.is_match(text)) {
                    let detail = format!("{path} in body should match '{pattern}'");
                    errors.push(FieldError::invalid(path, text.as_str(), &detail));
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.visit(&schema["items"], item, &path.index(index), errors);
                }
            }
            Value::Object(fields) => {
                for (name, inner) in fields {
                    let property = schema["properties"].get(name).unwrap_or(&schema["additionalProperties"]);
                    self.visit(property, inner, &path.child(name), errors);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn texts_must_match_their_patterns() {
        let schema = json!({"properties": {"spec": {"properties": {
            "codes": {"items": {"pattern": "^[a-z]+$"}}, "odd": {"pattern": "("},
        }}}});
        let patterns = Patterns::of(&schema);
        let errors = patterns.check(&schema, &json!({"spec": {"codes": ["ab", "A1"], "odd": "x"}}));
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["spec.codes[1]: Invalid value: \"A1\": spec.codes[1] in body should match '^[a-z]+$'"]
        );
    }
}

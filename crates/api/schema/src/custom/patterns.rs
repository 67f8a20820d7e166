//! The regular expressions (`pattern`) of a schema, compiled when they are first needed.

use parking_lot::Mutex;
use pintle_types::field::{ErrorList, FieldError, Path};
use regex::{Regex, RegexBuilder};
use serde_json::Value;
use std::collections::HashMap;

/// A pattern that compiles to more than this many bytes matches everything: definitions come from outside.
const MAX_COMPILED_BYTES: usize = 1 << 20;

/// Patterns by their text. Those that can't be compiled match everything.
#[derive(Default)]
pub struct Patterns(Mutex<HashMap<Box<str>, Option<Regex>>>);

/// Compiles a pattern within bounds.
pub(super) fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern).size_limit(MAX_COMPILED_BYTES).build()
}

impl Patterns {
    pub(super) fn check(&self, schema: &Value, text: &str, path: &Path, errors: &mut ErrorList) {
        let Some(pattern) = schema["pattern"].as_str().filter(|p| !p.is_empty()) else { return };
        let regex = {
            let mut known = self.0.lock();
            match known.get(pattern) {
                Some(regex) => regex.clone(),
                None => known.entry(pattern.into()).or_insert_with(|| compile(pattern).ok()).clone(),
            }
        };
        if regex.is_some_and(|regex| !regex.is_match(text)) {
            let detail = format!("{path} in body should match '{pattern}'", path = path.as_str());
            errors.push(FieldError::invalid(path, text, &detail));
        }
    }
}

/// Whether a pattern can be used at all, and if not, why.
pub fn problem(pattern: &str) -> Option<String> {
    compile(pattern).err().map(|e| e.to_string())
}

//! Checks that many kinds share, each with the words in which upstream reports a failure.

pub(crate) mod condition;
pub(crate) mod name;
pub(crate) mod net;
pub(crate) mod number;
pub(crate) mod pem;
pub(crate) mod resource;
pub(crate) mod schedule;
pub(crate) mod selector;

use pintle_types::field::{ErrorKind, ErrorList, FieldError, Path};
use serde_json::Value;
use std::collections::HashSet;

pub(crate) const IMMUTABLE: &str = "field is immutable";

/// The errors of one object while they are collected.
#[derive(Default)]
pub(crate) struct Errors(pub(crate) ErrorList);

impl Errors {
    /// The errors that `check` finds.
    pub(crate) fn of(check: impl FnOnce(&mut Self)) -> ErrorList {
        let mut errors = Self::default();
        check(&mut errors);
        errors.0
    }
    pub(crate) fn required(&mut self, path: &Path, detail: &str) {
        self.0.push(FieldError::required(path, detail));
    }
    pub(crate) fn invalid(&mut self, path: &Path, value: impl Into<Value>, detail: &str) {
        self.0.push(FieldError::invalid(path, value, detail));
    }
    /// For values that messages show in a form of their own, such as Go's structs.
    pub(crate) fn invalid_shown(&mut self, path: &Path, shown: &str, detail: &str) {
        let detail = if detail.is_empty() { String::new() } else { format!(": {detail}") };
        self.0.push(FieldError::new(ErrorKind::Invalid, path, format!("Invalid value: {shown}{detail}")));
    }
    /// For values that upstream leaves out of the message.
    pub(crate) fn invalid_untold(&mut self, path: &Path, detail: &str) {
        self.0.push(FieldError::new(ErrorKind::Invalid, path, format!("Invalid value: {detail}")));
    }
    pub(crate) fn unsupported_shown(&mut self, path: &Path, shown: &str, supported: &[&str]) {
        let list = supported.iter().map(|one| format!("{one:?}")).collect::<Vec<_>>().join(", ");
        let body = format!("Unsupported value: {shown}: supported values: {list}");
        self.0.push(FieldError::new(ErrorKind::NotSupported, path, body));
    }
    /// An error for each of the reasons that a check gave.
    pub(crate) fn invalid_for(&mut self, path: &Path, value: &str, reasons: Vec<String>) {
        for reason in reasons {
            self.invalid(path, value, &reason);
        }
    }
    pub(crate) fn unsupported(&mut self, path: &Path, value: impl Into<Value>, supported: &[&str]) {
        self.0.push(FieldError::not_supported(path, value, supported));
    }
    pub(crate) fn forbidden(&mut self, path: &Path, detail: &str) {
        self.0.push(FieldError::forbidden(path, detail));
    }
    pub(crate) fn duplicate(&mut self, path: &Path, value: impl Into<Value>) {
        self.0.push(FieldError::duplicate(path, value));
    }
    pub(crate) fn not_found(&mut self, path: &Path, value: impl Into<Value>) {
        self.0.push(FieldError::not_found(path, value));
    }
    pub(crate) fn duplicate_shown(&mut self, path: &Path, shown: &str) {
        self.0.push(FieldError::new(ErrorKind::Duplicate, path, format!("Duplicate value: {shown}")));
    }
    pub(crate) fn too_long(&mut self, path: &Path, max_bytes: usize) {
        self.0.push(FieldError::too_long(path, max_bytes));
    }
    pub(crate) fn too_many(&mut self, path: &Path, actual: usize, max: usize) {
        self.0.push(FieldError::too_many(path, actual, max));
    }

    /// A text field that must not be empty; answers whether it isn't.
    pub(crate) fn needs(&mut self, path: &Path, text: &str, detail: &str) -> bool {
        if text.is_empty() {
            self.required(path, detail);
        }
        !text.is_empty()
    }
    /// A text that must be one of a few; `supported` is listed as given.
    pub(crate) fn one_of(&mut self, path: &Path, text: &str, supported: &[&str]) {
        if !supported.contains(&text) {
            self.unsupported(path, text, supported);
        }
    }
    /// The same where an empty text is "required".
    pub(crate) fn needs_one_of(&mut self, path: &Path, text: &str, supported: &[&str]) {
        match text.is_empty() {
            true => self.required(path, ""),
            false => self.one_of(path, text, supported),
        }
    }
    /// A field that an update must not change.
    pub(crate) fn immutable(&mut self, path: &Path, new: &Value, old: &Value) {
        if new != old {
            self.invalid(path, new.clone(), IMMUTABLE);
        }
    }
}

/// Finds values that came before.
#[derive(Default)]
pub(crate) struct Seen(HashSet<String>);

impl Seen {
    /// Whether this is the first time; remembers it.
    pub(crate) fn first(&mut self, value: impl Into<String>) -> bool {
        self.0.insert(value.into())
    }
}

//! Reads the fields of an object one by one, and says of each that is wrong where it is.

use super::ConfigurationError;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Errors that are told; the rest is only counted.
const MAX_PROBLEMS: usize = 50;
/// Items of a list that are read.
const MAX_ITEMS: usize = 1000;

/// What is wrong so far.
#[derive(Default)]
pub(super) struct Problems {
    unknown: Vec<String>,
    invalid: Vec<String>,
}

impl Problems {
    fn add(&mut self, text: String) {
        if self.invalid.len() < MAX_PROBLEMS {
            self.invalid.push(text);
        }
    }

    /// Unknown fields come first: what else is wrong may be because of them.
    pub(super) fn check(self) -> Result<(), ConfigurationError> {
        if !self.unknown.is_empty() {
            return Err(ConfigurationError::Strict(self.unknown));
        }
        if self.invalid.is_empty() { Ok(()) } else { Err(ConfigurationError::Invalid(self.invalid)) }
    }
}

/// An object that is read, and where it is.
pub(super) struct Fields<'v, 'p> {
    value: &'v Value,
    object: Option<&'v Map<String, Value>>,
    path: String,
    seen: BTreeSet<&'static str>,
    problems: &'p mut Problems,
}

impl<'v, 'p> Fields<'v, 'p> {
    pub(super) fn new(value: &'v Value, path: &str, problems: &'p mut Problems) -> Self {
        let object = value.as_object();
        if object.is_none() && !value.is_null() {
            problems.add(format!("{path}: Invalid value: {value}: must be an object"));
        }
        Self { value, object, path: path.to_owned(), seen: BTreeSet::new(), problems }
    }

    fn child(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    fn get(&mut self, name: &'static str) -> Option<&'v Value> {
        self.seen.insert(name);
        self.object?.get(name).filter(|value| !value.is_null())
    }

    /// A field that may be there and means nothing here.
    pub(super) fn skip(&mut self, name: &'static str) {
        self.seen.insert(name);
    }

    /// The value at a JSON pointer, without its being read.
    pub(super) fn peek(&self, pointer: &str) -> Value {
        self.value.pointer(pointer).cloned().unwrap_or_default()
    }

    fn wrong(&mut self, name: &str, wanted: &str) {
        self.invalid(name, &format!("must be {wanted}"));
    }

    pub(super) fn text(&mut self, name: &'static str) -> Option<&'v str> {
        let value = self.get(name)?;
        if value.as_str().is_none() {
            self.wrong(name, "a string");
        }
        value.as_str()
    }

    pub(super) fn integer(&mut self, name: &'static str) -> Option<i64> {
        let value = self.get(name)?;
        let number = value.as_i64().filter(|n| i64::from(i32::MIN) <= *n && *n <= i64::from(i32::MAX));
        if number.is_none() {
            self.wrong(name, "an integer of 32 bits");
        }
        number
    }

    pub(super) fn flag(&mut self, name: &'static str) -> bool {
        let Some(value) = self.get(name) else { return false };
        if value.as_bool().is_none() {
            self.wrong(name, "true or false");
        }
        value.as_bool().unwrap_or_default()
    }

    /// A field as it is, for others to read.
    pub(super) fn raw(&mut self, name: &'static str) -> Option<&'v Value> {
        self.get(name)
    }

    pub(super) fn texts(&mut self, name: &'static str) -> Vec<&'v str> {
        let items = self.items(name);
        if !items.iter().all(|item| item.is_string()) {
            self.wrong(name, "a list of strings");
        }
        items.iter().filter_map(|item| item.as_str()).collect()
    }

    /// How many items a list has, when it is there.
    pub(super) fn count(&mut self, name: &'static str) -> Option<usize> {
        self.get(name)?.as_array().map(Vec::len)
    }

    fn items(&mut self, name: &'static str) -> &'v [Value] {
        let Some(value) = self.get(name) else { return &[] };
        match value.as_array() {
            Some(list) if list.len() > MAX_ITEMS => {
                let path = self.child(name);
                self.problems.add(format!("{path}: Too many: {}: must have at most {MAX_ITEMS} items", list.len()));
                &[]
            }
            Some(list) => list,
            None => {
                self.wrong(name, "a list");
                &[]
            }
        }
    }

    /// Reads each object of a list; whoever reads says when all its fields were asked for by returning.
    pub(super) fn each(&mut self, name: &'static str, mut read: impl FnMut(usize, &mut Fields<'_, '_>)) {
        for (i, item) in self.items(name).iter().enumerate() {
            let path = format!("{}[{i}]", self.child(name));
            let mut fields = Fields::new(item, &path, self.problems);
            read(i, &mut fields);
            fields.finish();
        }
    }

    /// Reads an object if it is there; returns whether it is.
    pub(super) fn object(&mut self, name: &'static str, read: impl FnOnce(&mut Fields<'_, '_>)) -> bool {
        let Some(value) = self.get(name) else { return false };
        let path = self.child(name);
        let mut fields = Fields::new(value, &path, self.problems);
        read(&mut fields);
        fields.finish();
        true
    }

    /// For errors about what is in a field.
    pub(super) fn at(&mut self, name: &str) -> Fields<'v, '_> {
        let value = self.object.and_then(|object| object.get(name)).unwrap_or(&Value::Null);
        let path = self.child(name);
        Fields { value, object: value.as_object(), path, seen: BTreeSet::new(), problems: self.problems }
    }

    pub(super) fn invalid(&mut self, name: &str, why: &str) {
        let value = self.object.and_then(|object| object.get(name)).cloned().unwrap_or_default();
        let path = self.child(name);
        self.problems.add(format!("{path}: Invalid value: {value}: {why}"));
    }

    /// An error of the object itself.
    pub(super) fn invalid_here(&mut self, value: &str, why: &str) {
        let path = self.path.clone();
        self.problems.add(format!("{path}: Invalid value: {value:?}: {why}"));
    }

    pub(super) fn unsupported(&mut self, name: &str, value: &str, supported: &[&str]) {
        let (path, all) = (self.child(name), supported.iter().map(|s| format!("{s:?}")).collect::<Vec<_>>().join(", "));
        self.problems.add(format!("{path}: Unsupported value: {value:?}: supported values: {all}"));
    }

    pub(super) fn required(&mut self, name: &str, why: &str) {
        let path = self.child(name);
        let why = if why.is_empty() { String::new() } else { format!(": {why}") };
        self.problems.add(format!("{path}: Required value{why}"));
    }

    pub(super) fn forbidden(&mut self, name: &str, why: &str) {
        let path = self.child(name);
        self.problems.add(format!("{path}: Forbidden: {why}"));
    }

    pub(super) fn duplicate(&mut self, name: &str, value: &str) {
        let path = if name.is_empty() { self.path.clone() } else { self.child(name) };
        self.problems.add(format!("{path}: Duplicate value: {value:?}"));
    }

    /// All that was not asked for is unknown.
    pub(super) fn finish(&mut self) {
        let unknown = self.object.into_iter().flatten().map(|(name, _)| name);
        let unknown: Vec<String> =
            unknown.filter(|name| !self.seen.contains(name.as_str())).map(|name| self.child(name)).collect();
        for path in unknown {
            if self.problems.unknown.len() < MAX_PROBLEMS {
                self.problems.unknown.push(format!("unknown field {path:?}"));
            }
        }
    }
}

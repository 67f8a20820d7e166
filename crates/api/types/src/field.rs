//! Field paths and the errors that name them, worded as upstream's `field` package words them.

use serde_json::Value;
use std::fmt;

/// A path into an object, such as `spec.containers[0].image`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(String);

impl Path {
    /// A path of one field; an empty name is the object itself.
    pub fn new(name: &str) -> Self {
        Self(name.to_owned())
    }
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { Self::new(name) } else { Self(format!("{}.{name}", self.0)) }
    }
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }
    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    NotFound,
    Required,
    Duplicate,
    Invalid,
    NotSupported,
    Forbidden,
    TooLong,
    TooMany,
    TypeInvalid,
    Internal,
}

impl ErrorKind {
    /// The `reason` of a status cause.
    pub fn cause(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::Internal => "InternalError",
        }
    }
}

/// One error of one field. Displays as `spec.replicas: Invalid value: -1: must be …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    pub kind: ErrorKind,
    pub field: String,
    /// The message without the field's name.
    pub body: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body)
    }
}

/// All errors of one object, in the order in which they were found.
pub type ErrorList = Vec<FieldError>;

fn with_detail(head: String, detail: &str) -> String {
    if detail.is_empty() { head } else { format!("{head}: {detail}") }
}

/// A value as messages show it: strings quoted, all else as compact JSON.
pub fn shown(value: &Value) -> String {
    value.to_string()
}

impl FieldError {
    pub fn new(kind: ErrorKind, path: &Path, body: String) -> Self {
        Self { kind, field: path.as_str().to_owned(), body }
    }
    pub fn required(path: &Path, detail: &str) -> Self {
        Self::new(ErrorKind::Required, path, with_detail("Required value".into(), detail))
    }
    pub fn invalid(path: &Path, value: impl Into<Value>, detail: &str) -> Self {
        Self::new(ErrorKind::Invalid, path, with_detail(format!("Invalid value: {}", shown(&value.into())), detail))
    }
    pub fn type_invalid(path: &Path, value: impl Into<Value>, detail: &str) -> Self {
        Self::new(ErrorKind::TypeInvalid, path, with_detail(format!("Invalid value: {}", shown(&value.into())), detail))
    }
    pub fn duplicate(path: &Path, value: impl Into<Value>) -> Self {
        Self::new(ErrorKind::Duplicate, path, format!("Duplicate value: {}", shown(&value.into())))
    }
    pub fn not_found(path: &Path, value: impl Into<Value>) -> Self {
        Self::new(ErrorKind::NotFound, path, format!("Not found: {}", shown(&value.into())))
    }
    pub fn forbidden(path: &Path, detail: &str) -> Self {
        Self::new(ErrorKind::Forbidden, path, with_detail("Forbidden".into(), detail))
    }
    /// `supported` is listed in the order given.
    pub fn not_supported(path: &Path, value: impl Into<Value>, supported: &[&str]) -> Self {
        let list = supported.iter().map(|s| format!("{s:?}")).collect::<Vec<_>>().join(", ");
        let head = format!("Unsupported value: {}", shown(&value.into()));
        Self::new(ErrorKind::NotSupported, path, format!("{head}: supported values: {list}"))
    }
    pub fn too_long(path: &Path, max_bytes: usize) -> Self {
        Self::new(ErrorKind::TooLong, path, format!("Too long: may not be more than {max_bytes} bytes"))
    }
    pub fn too_many(path: &Path, actual: usize, max: usize) -> Self {
        let noun = if max == 1 { "item" } else { "items" };
        Self::new(ErrorKind::TooMany, path, format!("Too many: {actual}: must have at most {max} {noun}"))
    }
    pub fn internal(path: &Path, detail: &str) -> Self {
        Self::new(ErrorKind::Internal, path, with_detail("Internal error".into(), detail))
    }
}

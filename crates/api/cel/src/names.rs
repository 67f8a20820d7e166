//! Names of fields in Kubernetes' schemas as identifiers, and back.

use crate::syntax::RESERVED;
use std::borrow::Cow;

/// Words of the language that fields may be called, beside the reserved ones; all become `__word__`.
const WORDS: [&str; 4] = ["true", "false", "null", "in"];
/// Characters that identifiers lack, and what stands for them.
const ESCAPES: [(&str, &str); 4] = [(".", "__dot__"), ("-", "__dash__"), ("/", "__slash__"), ("__", "__underscores__")];

fn is_word(name: &str) -> bool {
    WORDS.contains(&name) || RESERVED.contains(&name)
}

/// The identifier for a field called `name`; `name` itself when that already is one, or none can be made of it.
pub fn escape(name: &str) -> Cow<'_, str> {
    if is_word(name) {
        return Cow::Owned(format!("__{name}__"));
    }
    if !name.contains("__") && !name.contains(['.', '-', '/']) {
        return Cow::Borrowed(name);
    }
    let mut escaped = String::with_capacity(name.len() + 8);
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        match ESCAPES.iter().find(|escape| rest.starts_with(escape.0)) {
            Some((plain, escape)) => {
                escaped.push_str(escape);
                rest = &rest[plain.len()..];
            }
            None => {
                escaped.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    Cow::Owned(escaped)
}

/// Whether [`escape`] makes an identifier of `name`.
pub fn can_escape(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/'))
}

/// The name of the field that the identifier `name` stands for.
pub fn unescape(name: &str) -> Cow<'_, str> {
    if !name.contains("__") {
        return Cow::Borrowed(name);
    }
    let inner = name.strip_prefix("__").and_then(|name| name.strip_suffix("__"));
    if let Some(word) = inner.filter(|inner| is_word(inner)) {
        return Cow::Owned(word.to_owned());
    }
    let mut plain = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        match ESCAPES.iter().find(|escape| rest.starts_with(escape.1)) {
            Some((text, escape)) => {
                plain.push_str(text);
                rest = &rest[escape.len()..];
            }
            None => {
                plain.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    Cow::Owned(plain)
}

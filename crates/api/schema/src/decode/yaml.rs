//! YAML documents as upstream reads them: YAML 1.1 scalars, converted to JSON.

use super::{DecodeError, Decoded, Limits};
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::cell::{Cell, RefCell};
use std::fmt;

/// What one document may use up, aliases expanded.
struct Budget<'a> {
    text: &'a str,
    nodes: Cell<usize>,
    too_deep: Cell<bool>,
    duplicates: RefCell<Vec<String>>,
}

/// Only the first document of a stream is read, as upstream does.
pub(super) fn document(bytes: &[u8], limits: Limits) -> Result<Decoded, DecodeError> {
    let text = std::str::from_utf8(bytes).map_err(|_| DecodeError::Yaml("yaml: invalid leading UTF-8 octet".into()))?;
    let budget = Budget {
        text,
        nodes: Cell::new(limits.max_bytes.saturating_mul(16) / 8),
        too_deep: Cell::new(false),
        duplicates: RefCell::default(),
    };
    let Some(document) = serde_yaml_ng::Deserializer::from_str(text).next() else {
        return Ok(Decoded { value: Value::Null, duplicates: Vec::new() });
    };
    let node = Node { budget: &budget, depth: limits.max_depth, path: "" };
    match node.deserialize(document) {
        Ok(value) => Ok(Decoded { value, duplicates: budget.duplicates.into_inner() }),
        Err(_) if budget.too_deep.get() => Err(DecodeError::Depth),
        Err(error) => Err(DecodeError::Yaml(go_words(&error))),
    }
}

/// The problems of libyaml's ports are worded alike; the line is counted as Go's port does: from zero, that of what
/// was being read if it is not the first, and one more when the scanner found it.
fn go_words(error: &serde_yaml_ng::Error) -> String {
    let text = error.to_string();
    let (problem, rest) = text.split_once(" at line ").unwrap_or((&text, ""));
    let (place, context) = rest.split_once(", ").unwrap_or((rest, ""));
    let number = |text: &str| text.split(' ').next().and_then(|digits| digits.parse::<usize>().ok()).unwrap_or(1) - 1;
    let context_line = context.split_once(" at line ").map_or(0, |(_, place)| number(place));
    let line = if context_line > 0 { context_line } else { number(place) };
    let scanned = context.starts_with("while scanning") || problem.ends_with("not allowed in this context");
    let line = if line > 0 && scanned { line + 1 } else { line };
    if line == 0 { format!("yaml: {problem}") } else { format!("yaml: line {line}: {problem}") }
}

#[derive(Clone, Copy)]
struct Node<'a> {
    budget: &'a Budget<'a>,
    depth: usize,
    path: &'a str,
}

impl Node<'_> {
    fn spend<E: de::Error>(&self) -> Result<(), E> {
        let left = self.budget.nodes.get();
        self.budget.nodes.set(left.saturating_sub(1));
        if left == 0 { Err(E::custom("document contains excessive aliasing")) } else { Ok(()) }
    }

    fn deeper<E: de::Error>(&self) -> Result<usize, E> {
        self.depth.checked_sub(1).ok_or_else(|| {
            self.budget.too_deep.set(true);
            E::custom("exceeded max depth")
        })
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.spend()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }
    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("json: unsupported value"))
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }
    /// Texts without escapes are borrowed from the document: the byte before tells whether they were quoted.
    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Value, E> {
        let before = (value.as_ptr() as usize).wrapping_sub(self.budget.text.as_ptr() as usize).wrapping_sub(1);
        let quoted = matches!(self.budget.text.as_bytes().get(before), Some(b'"' | b'\''));
        let plain = if quoted { None } else { yaml11(value) };
        Ok(plain.unwrap_or_else(|| Value::String(value.to_owned())))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let depth = self.deeper()?;
        let mut list = Vec::new();
        loop {
            let path = format!("{}[{}]", self.path, list.len());
            let Some(value) = items.next_element_seed(Node { depth, path: &path, ..self })? else { break };
            list.push(value);
        }
        Ok(Value::Array(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let depth = self.deeper()?;
        let mut map = Map::new();
        while let Some(key) = entries.next_key_seed(Node { depth, path: "", ..self })? {
            let key = key_text(key).map_err(de::Error::custom)?;
            let path = if self.path.is_empty() { key.clone() } else { format!("{}.{key}", self.path) };
            let value = entries.next_value_seed(Node { depth, path: &path, ..self })?;
            if map.insert(key, value).is_some() {
                self.budget.duplicates.borrow_mut().push(path);
            }
        }
        Ok(Value::Object(map))
    }
}

/// Keys of JSON are texts.
fn key_text(key: Value) -> Result<String, String> {
    match key {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(value) => Ok(value.to_string()),
        other => Err(format!("unsupported map key of type: {other}")),
    }
}

/// The plain words that YAML 1.1 reads as something else than 1.2 does.
fn yaml11(text: &str) -> Option<Value> {
    match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(Value::Bool(true)),
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(Value::Bool(false)),
        _ => {
            let digits = text.strip_prefix('0')?;
            let octal = !digits.is_empty() && digits.bytes().all(|b| (b'0'..=b'7').contains(&b));
            if octal { i64::from_str_radix(digits, 8).ok().map(Value::from) } else { None }
        }
    }
}

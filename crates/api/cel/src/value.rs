//! Values: what expressions read, compute and give. JSON is wrapped where it is, not converted; only what an expression
//! looks at becomes a value.

use crate::types::{ListKind, ListType, MapType, ObjectType, Type};
use crate::unescape;
use serde_json::Value as Json;
use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// A value that may borrow from data of lifetime `'a`. Cloning copies references or reference counts.
#[derive(Clone)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Text<'a>),
    Bytes(Arc<[u8]>),
    /// Within the years 1 … 9999.
    Timestamp(jiff::Timestamp),
    Duration(Span),
    List(List<'a>),
    Map(Map<'a>),
    /// A message that the expression made: `Object.spec{replicas: 1}`.
    Struct(Arc<Struct<'a>>),
    Opaque(Arc<dyn OpaqueValue>),
    Type(Type),
    Optional(Option<Arc<Value<'a>>>),
}

/// A text that is borrowed or counted.
#[derive(Clone)]
pub enum Text<'a> {
    Borrowed(&'a str),
    Owned(Arc<str>),
}

/// A length of time in nanoseconds, as Go's `time.Duration`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub i64);

/// A list: computed, or an array of JSON with what is known of its type.
#[derive(Clone)]
pub enum List<'a> {
    Owned(Arc<[Value<'a>]>),
    Json(&'a [Json], Option<Arc<ListType>>),
}

/// A map: computed, or an object of JSON with what is known of its type.
#[derive(Clone)]
pub enum Map<'a> {
    Owned(Arc<Entries<'a>>),
    Json(&'a serde_json::Map<String, Json>, Option<Arc<MapType>>),
    /// An object whose fields have types of their own.
    Object(&'a serde_json::Map<String, Json>, Arc<dyn ObjectType>),
}

/// A computed map: entries in the order they were made, found by key.
pub struct Entries<'a> {
    entries: Vec<(Value<'a>, Value<'a>)>,
    index: std::collections::HashMap<Key, u32>,
    /// What is found at keys that are not there, though `in` says that they aren't.
    otherwise: Option<Value<'a>>,
}

/// What keys are looked up as: numbers of different types that are equal are the same key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    Bool(bool),
    Number(i128),
    String(Box<str>),
}

/// A message that the expression made.
pub struct Struct<'a> {
    pub object: Arc<dyn ObjectType>,
    /// Names as the expression wrote them (escaped).
    pub fields: Vec<(Box<str>, Value<'a>)>,
}

/// A value of a library's type.
pub trait OpaqueValue: Any + Send + Sync {
    fn value_type(&self) -> Type;

    /// Whether `other`, which has the same type, is the same value.
    fn equals(&self, other: &dyn OpaqueValue) -> bool;

    /// For functions of the library to get at what they made.
    fn as_any(&self) -> &dyn Any;

    /// Whether this is what `optional.ofNonZeroValue` takes for nothing.
    fn is_zero(&self) -> bool {
        false
    }

    /// The elements, for types that macros and `in` go through as lists.
    fn size(&self) -> Option<u64> {
        None
    }
}

impl<'a> Text<'a> {
    pub fn as_str(&self) -> &str {
        match self {
            Text::Borrowed(text) => text,
            Text::Owned(text) => text,
        }
    }
}

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Value::String(Text::Borrowed(text))
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Value::String(Text::Owned(text.into()))
    }
}

impl From<bool> for Value<'_> {
    fn from(value: bool) -> Self {
        Value::Bool(value)
    }
}

impl From<i64> for Value<'_> {
    fn from(value: i64) -> Self {
        Value::Int(value)
    }
}

impl<'a> From<Vec<Value<'a>>> for Value<'a> {
    fn from(items: Vec<Value<'a>>) -> Self {
        Value::List(List::Owned(items.into()))
    }
}

impl<'a> Value<'a> {
    /// A value of a library's type.
    pub fn opaque(value: impl OpaqueValue) -> Self {
        Value::Opaque(Arc::new(value))
    }

    /// The library's value of type `T` that this is.
    pub fn downcast<T: OpaqueValue>(&self) -> Option<&T> {
        match self {
            Value::Opaque(value) => value.as_any().downcast_ref(),
            _ => None,
        }
    }

    pub fn some(value: Value<'a>) -> Self {
        Value::Optional(Some(Arc::new(value)))
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    pub fn as_int(&self) -> Option<i64> {
        match self {
            Value::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// A map of these entries; the keys are texts, bools and numbers, and occur once.
    pub fn map(entries: Vec<(Value<'a>, Value<'a>)>) -> Self {
        Value::Map(Map::Owned(Arc::new(Entries::new(entries))))
    }

    /// As [`map`](Self::map), and what is not there is found to be `otherwise`.
    pub(crate) fn map_or(entries: Vec<(Value<'a>, Value<'a>)>, otherwise: Value<'a>) -> Self {
        let mut entries = Entries::new(entries);
        entries.otherwise = Some(otherwise);
        Value::Map(Map::Owned(Arc::new(entries)))
    }

    /// `json` seen as a `declared`: numbers, times and bytes become what is declared. What does not fit becomes what
    /// it looks like.
    pub fn of_json(json: &'a Json, declared: &Type) -> Value<'a> {
        match json {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => of_number(number, declared),
            Json::String(text) => of_text(text, declared),
            Json::Array(items) => Value::List(List::Json(
                items,
                match declared {
                    Type::List(list) => Some(list.clone()),
                    _ => None,
                },
            )),
            Json::Object(fields) => Value::Map(match declared {
                Type::Object(object) => Map::Object(fields, object.clone()),
                Type::Map(map) => Map::Json(fields, Some(map.clone())),
                _ => Map::Json(fields, None),
            }),
        }
    }

    /// The type at run time: what `type(x)` gives; parameters are unknown.
    pub fn runtime_type(&self) -> Type {
        match self {
            Value::Null => Type::Null,
            Value::Bool(_) => Type::Bool,
            Value::Int(_) => Type::Int,
            Value::Uint(_) => Type::Uint,
            Value::Double(_) => Type::Double,
            Value::String(_) => Type::String,
            Value::Bytes(_) => Type::Bytes,
            Value::Timestamp(_) => Type::Timestamp,
            Value::Duration(_) => Type::Duration,
            Value::List(_) => Type::list(Type::Dyn),
            Value::Map(Map::Object(_, object)) => Type::Object(object.clone()),
            Value::Map(_) => Type::map(Type::Dyn, Type::Dyn),
            Value::Struct(made) => Type::Object(made.object.clone()),
            Value::Opaque(value) => value.value_type(),
            Value::Type(_) => Type::type_of(Type::Dyn),
            Value::Optional(_) => Type::optional(Type::Dyn),
        }
    }

    /// Characters of texts, bytes, elements of lists and maps: what costs count.
    pub fn size(&self) -> u64 {
        match self {
            Value::String(text) if text.len() < 2 => text.len() as u64,
            Value::String(text) => text.chars().count() as u64,
            Value::Bytes(bytes) => bytes.len() as u64,
            Value::List(list) => list.len() as u64,
            Value::Map(map) => map.len() as u64,
            Value::Opaque(value) => value.size().unwrap_or(1),
            Value::Optional(Some(inner)) => inner.size(),
            _ => 1,
        }
    }
}

/// Whether JSON's number is what was declared.
fn of_number<'a>(number: &serde_json::Number, declared: &Type) -> Value<'a> {
    match declared {
        Type::Double => Value::Double(number.as_f64().unwrap_or(f64::NAN)),
        Type::Uint if number.is_u64() => Value::Uint(number.as_u64().unwrap_or_default()),
        Type::Int if number.is_f64() => {
            let float = number.as_f64().unwrap_or(f64::NAN);
            if float.fract() == 0.0 { Value::Int(float as i64) } else { Value::Double(float) }
        }
        _ => match number.as_i64() {
            Some(integer) => Value::Int(integer),
            None => Value::Double(number.as_f64().unwrap_or(f64::NAN)),
        },
    }
}

/// Texts that are declared as times and bytes are those.
fn of_text<'a>(text: &'a str, declared: &Type) -> Value<'a> {
    use base64::Engine;
    let parsed = match declared {
        Type::Timestamp => {
            crate::time::parse_timestamp(text).or_else(|| crate::time::parse_date(text)).map(Value::Timestamp)
        }
        Type::Duration => crate::time::parse_duration(text).map(Value::Duration),
        Type::Bytes => {
            base64::engine::general_purpose::STANDARD.decode(text).ok().map(|bytes| Value::Bytes(bytes.into()))
        }
        _ => None,
    };
    parsed.unwrap_or(Value::String(Text::Borrowed(text)))
}

impl<'a> List<'a> {
    pub fn len(&self) -> usize {
        match self {
            List::Owned(items) => items.len(),
            List::Json(items, _) => items.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn get(&self, at: usize) -> Option<Value<'a>> {
        match self {
            List::Owned(items) => items.get(at).cloned(),
            List::Json(items, list) => items.get(at).map(|json| Value::of_json(json, element_type(list))),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + '_ {
        (0..self.len()).filter_map(|at| self.get(at))
    }

    /// How it compares and joins.
    pub fn kind(&self) -> &ListKind {
        match self {
            List::Json(_, Some(list)) => &list.kind,
            _ => &ListKind::Atomic,
        }
    }
}

fn element_type(list: &Option<Arc<ListType>>) -> &Type {
    list.as_ref().map_or(&Type::Dyn, |list| &list.element)
}

impl<'a> Map<'a> {
    pub fn len(&self) -> usize {
        match self {
            Map::Owned(entries) => entries.entries.len(),
            Map::Json(fields, _) | Map::Object(fields, _) => fields.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value at `key`; numbers find equal numbers of other types.
    pub fn get(&self, key: &Value<'_>) -> Option<Value<'a>> {
        match (self, key) {
            (Map::Owned(entries), key) => entries.get(key).or(entries.otherwise.as_ref()).cloned(),
            (_, Value::String(name)) => self.get_text(name),
            _ => None,
        }
    }

    /// Whether `key` is there.
    pub fn contains(&self, key: &Value<'_>) -> bool {
        match self {
            Map::Owned(entries) => entries.get(key).is_some(),
            _ => self.get(key).is_some(),
        }
    }

    /// The value at the key or field `name`.
    pub fn get_text(&self, name: &str) -> Option<Value<'a>> {
        match self {
            Map::Owned(entries) => entries.get_text(name).or(entries.otherwise.as_ref()).cloned(),
            Map::Json(fields, map) => fields.get(name).map(|json| Value::of_json(json, value_type(map))),
            Map::Object(fields, object) => {
                // A field that is null is one that is absent, as upstream has it.
                let json = fields.get(&*unescape(name)).filter(|json| !json.is_null())?;
                Some(Value::of_json(json, &object.field(name).unwrap_or(Type::Dyn)))
            }
        }
    }

    /// Keys in the order they are stored.
    pub fn keys(&self) -> Box<dyn Iterator<Item = Value<'a>> + '_> {
        match self {
            Map::Owned(entries) => Box::new(entries.entries.iter().map(|entry| entry.0.clone())),
            Map::Json(fields, _) | Map::Object(fields, _) => {
                Box::new(fields.keys().map(|key| Value::String(Text::Borrowed(key.as_str()))))
            }
        }
    }

    /// Keys and values in the order they are stored.
    pub fn iter(&self) -> Box<dyn Iterator<Item = (Value<'a>, Value<'a>)> + '_> {
        match self {
            Map::Owned(entries) => Box::new(entries.entries.iter().cloned()),
            Map::Json(fields, map) => {
                Box::new(fields.iter().map(|(key, json)| (key.as_str().into(), Value::of_json(json, value_type(map)))))
            }
            Map::Object(fields, object) => Box::new(fields.iter().map(|(key, json)| {
                let declared = object.field(&crate::escape(key)).unwrap_or(Type::Dyn);
                (key.as_str().into(), Value::of_json(json, &declared))
            })),
        }
    }
}

fn value_type(map: &Option<Arc<MapType>>) -> &Type {
    map.as_ref().map_or(&Type::Dyn, |map| &map.value)
}

/// Maps of fewer entries are searched from end to end.
const INDEXED_FROM: usize = 9;

impl<'a> Entries<'a> {
    fn new(entries: Vec<(Value<'a>, Value<'a>)>) -> Self {
        let mut index = std::collections::HashMap::new();
        if entries.len() >= INDEXED_FROM {
            for (at, (key, _)) in entries.iter().enumerate() {
                if let Some(key) = Key::of(key) {
                    index.insert(key, at as u32);
                }
            }
        }
        Self { entries, index, otherwise: None }
    }

    /// Of entries with the same key the last one stays.
    pub(crate) fn distinct(entries: Vec<(Value<'a>, Value<'a>)>) -> Result<Self, crate::EvalError> {
        let mut places = std::collections::HashMap::with_capacity(entries.len());
        let mut kept: Vec<(Value<'a>, Value<'a>)> = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let known = Key::of(&key).ok_or(crate::EvalError::NoSuchOverload)?;
            match places.entry(known) {
                std::collections::hash_map::Entry::Occupied(place) => {
                    let place: &usize = place.get();
                    kept[*place].1 = value;
                }
                std::collections::hash_map::Entry::Vacant(place) => {
                    place.insert(kept.len());
                    kept.push((key, value));
                }
            }
        }
        Ok(Self::new(kept))
    }

    fn get(&self, key: &Value<'_>) -> Option<&Value<'a>> {
        if let (Value::String(text), true) = (key, self.index.is_empty()) {
            return self.get_text(text);
        }
        let key = Key::of(key)?;
        if !self.index.is_empty() {
            return self.index.get(&key).map(|at| &self.entries[*at as usize].1);
        }
        self.entries.iter().find(|entry| Key::of(&entry.0).as_ref() == Some(&key)).map(|entry| &entry.1)
    }

    fn get_text(&self, name: &str) -> Option<&Value<'a>> {
        if !self.index.is_empty() {
            return self.index.get(&Key::String(name.into())).map(|at| &self.entries[*at as usize].1);
        }
        self.entries.iter().find(|entry| entry.0.as_str() == Some(name)).map(|entry| &entry.1)
    }
}

impl Key {
    pub(crate) fn of(value: &Value<'_>) -> Option<Key> {
        match value {
            Value::Bool(value) => Some(Key::Bool(*value)),
            Value::Int(value) => Some(Key::Number((*value).into())),
            Value::Uint(value) => Some(Key::Number((*value).into())),
            Value::Double(value) if value.fract() == 0.0 && value.abs() < 1e20 => Some(Key::Number(*value as i128)),
            Value::String(text) => Some(Key::String(text.as_str().into())),
            _ => None,
        }
    }
}

impl<'a> Struct<'a> {
    pub fn get(&self, name: &str) -> Option<&Value<'a>> {
        self.fields.iter().find(|field| *field.0 == *name).map(|field| &field.1)
    }
}

/// For messages and tests; texts as they are.
impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("null"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Int(value) => write!(f, "{value}"),
            Value::Uint(value) => write!(f, "{value}u"),
            Value::Double(value) => write!(f, "{value:?}"),
            Value::String(text) => write!(f, "{:?}", text.as_str()),
            Value::Bytes(bytes) => write!(f, "b{:?}", String::from_utf8_lossy(bytes)),
            Value::Timestamp(time) => write!(f, "timestamp({time})"),
            Value::Duration(span) => write!(f, "duration({})", crate::time::format_duration(*span)),
            Value::List(list) => f.debug_list().entries(list.iter()).finish(),
            Value::Map(map) => f.debug_map().entries(map.iter()).finish(),
            Value::Struct(made) => {
                write!(f, "{}", made.object.name())?;
                f.debug_map().entries(made.fields.iter().map(|(name, value)| (name, value))).finish()
            }
            Value::Opaque(value) => write!(f, "{}(…)", value.value_type()),
            Value::Type(value) => f.write_str(value.runtime_name()),
            Value::Optional(None) => f.write_str("optional.none()"),
            Value::Optional(Some(value)) => write!(f, "optional.of({value:?})"),
        }
    }
}

impl<'a> From<Cow<'a, str>> for Value<'a> {
    fn from(text: Cow<'a, str>) -> Self {
        match text {
            Cow::Borrowed(text) => text.into(),
            Cow::Owned(text) => text.into(),
        }
    }
}

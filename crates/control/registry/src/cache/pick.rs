//! Reads a few fields out of an object's bytes without building the rest of it.

use pintle_kinds::SelectableField;
use pintle_kinds::def::Extract;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;

/// Which parts of an object are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Whole,
    /// Of an object, the named fields; anything else is read whole.
    Fields(BTreeMap<String, Wanted>),
}

impl Wanted {
    /// What selectors ask for: the labels, and the kind's selectable fields.
    pub(super) fn of(selectable: &[SelectableField]) -> Self {
        let mut wanted = Self::Fields(BTreeMap::new());
        wanted.add("metadata.labels");
        for field in selectable {
            match field.extract {
                Extract::Text | Extract::Flag => wanted.add(&field.path),
                Extract::At(path) | Extract::Number(path) => wanted.add(path),
                // Only the function knows what it looks at.
                Extract::Custom(_) => return Self::Whole,
            }
        }
        wanted
    }

    fn add(&mut self, path: &str) {
        let Self::Fields(fields) = self else { return };
        match path.split_once('.') {
            None => drop(fields.insert(path.to_owned(), Self::Whole)),
            Some((first, rest)) => {
                fields.entry(first.to_owned()).or_insert_with(|| Self::Fields(BTreeMap::new())).add(rest);
            }
        }
    }

    /// The wanted parts of a JSON document.
    pub(super) fn read(&self, json: &[u8]) -> serde_json::Result<Value> {
        let mut reader = serde_json::Deserializer::from_slice(json);
        let value = self.deserialize(&mut reader)?;
        reader.end()?;
        Ok(value)
    }
}

impl<'de> DeserializeSeed<'de> for &Wanted {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self {
            Wanted::Whole => serde::Deserialize::deserialize(deserializer),
            Wanted::Fields(fields) => deserializer.deserialize_any(Picker(fields)),
        }
    }
}

struct Picker<'a>(&'a BTreeMap<String, Wanted>);

impl<'de> Visitor<'de> for Picker<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut found = Map::new();
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            match self.0.get(&*key) {
                Some(wanted) => drop(found.insert(key.into_owned(), map.next_value_seed(wanted)?)),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Value::Object(found))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn field(path: &str, extract: Extract) -> SelectableField {
        SelectableField { path: path.into(), extract }
    }

    #[test]
    fn only_what_is_wanted_is_read() {
        let fields = [
            field("spec.nodeName", Extract::Text),
            field("status.successful", Extract::Number("status.succeeded")),
            field("spec.absent", Extract::Flag),
        ];
        let wanted = Wanted::of(&fields);
        let json =
            br#"{"metadata":{"name":"a","labels":{"a\u0041":"b"}},"spec":{"nodeName":"n","containers":[{"x":1}]},
                        "status":{"succeeded":3},"data":null,"n":1.5}"#;
        let read = wanted.read(json).unwrap();
        let expected =
            json!({"metadata": {"labels": {"aA": "b"}}, "spec": {"nodeName": "n"}, "status": {"succeeded": 3}});
        assert_eq!(read, expected);
        let whole: Value = serde_json::from_slice(json).unwrap();
        for field in &fields {
            assert_eq!(field.text(&read), field.text(&whole), "{}", field.path);
        }
    }

    #[test]
    fn unexpected_shapes_and_bad_json_do_no_harm() {
        let wanted = Wanted::of(&[field("spec.nodeName", Extract::Text)]);
        assert_eq!(wanted.read(br#"{"spec":[1,2],"metadata":"x"}"#).unwrap(), json!({"spec": null, "metadata": "x"}));
        for bad in ["", "{", "{}x", "{\"spec\":}"] {
            assert!(wanted.read(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_function_gets_the_whole_object() {
        let custom = field("x", Extract::Custom(|object| object["data"].to_string()));
        assert_eq!(Wanted::of(&[custom]), Wanted::Whole);
    }
}

//! What a value was before an update: only what can be found again counts, as in upstream's correlated objects.

use serde_json::Value as Json;

/// A value, what it was, and its schema.
#[derive(Clone, Copy)]
pub(super) struct Correlation<'a> {
    pub new: &'a Json,
    pub old: &'a Json,
    pub schema: &'a Json,
}

impl<'a> Correlation<'a> {
    /// The part in a field, when both have it.
    pub fn key(&self, name: &str) -> Option<Self> {
        let (new, old) = (self.new.as_object()?.get(name)?, self.old.as_object()?.get(name)?);
        let property = self.schema["properties"].get(name);
        let schema = property.or_else(|| Some(&self.schema["additionalProperties"]).filter(|part| part.is_object()))?;
        Some(Self { new, old, schema })
    }

    /// The element of a list that is a map: found by its keys.
    pub fn index(&self, at: usize) -> Option<Self> {
        let new = self.new.as_array()?.get(at)?;
        let old = old_item(self.schema, self.old.as_array()?, new)?;
        Some(Self { new, old, schema: &self.schema["items"] })
    }

    /// Whether nothing changed.
    pub fn is_unchanged(&self) -> bool {
        match (self.new, self.old) {
            (Json::Null, Json::Null) => true,
            (Json::Null, _) | (_, Json::Null) => false,
            (Json::Array(new), Json::Array(old)) => {
                new.len() == old.len() && if is_map(self.schema) { self.items_unchanged(new.len()) } else { new == old }
            }
            (Json::Object(new), Json::Object(old)) => {
                new.len() == old.len() && new.keys().all(|name| self.key(name).is_some_and(|part| part.is_unchanged()))
            }
            (new, old) => new == old,
        }
    }

    fn items_unchanged(&self, count: usize) -> bool {
        (0..count).all(|at| self.index(at).is_some_and(|part| part.is_unchanged()))
    }
}

fn is_map(schema: &Json) -> bool {
    schema["x-kubernetes-list-type"] == "map"
}

/// The item of the old list that has the same keys; nothing for lists that are no maps.
pub(super) fn old_item<'a>(schema: &Json, old: &'a [Json], item: &Json) -> Option<&'a Json> {
    let keys = schema["x-kubernetes-list-map-keys"].as_array().filter(|keys| is_map(schema) && !keys.is_empty())?;
    let scalar = |value: &&Json| !matches!(value, Json::Null | Json::Array(_) | Json::Object(_));
    let wanted: Vec<(&str, &Json)> =
        keys.iter().map(|key| Some((key.as_str()?, item.get(key.as_str()?).filter(scalar)?))).collect::<Option<_>>()?;
    old.iter().find(|other| wanted.iter().all(|(key, value)| other.get(key) == Some(value)))
}

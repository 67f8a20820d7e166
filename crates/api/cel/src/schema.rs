//! Schemas as types of expressions: those of custom resources, with sizes for estimates, and those of built-in kinds.
//!
//! Source: apiserver's `pkg/cel/common/schemas.go` says how schemas become types and how large values may be.

use crate::names::can_escape;
use crate::{ListKind, ObjectType, SizeEstimate, SizeEstimator, Type, escape};
use pintle_schema::{Shape, TypeRef};
use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The largest request there may be; what is not limited otherwise is limited by it.
pub const MAX_REQUEST_BYTES: i64 = 3 * 1024 * 1024;
/// Deeper schemas are taken for anything.
const MAX_DEPTH: usize = 128;
const NAME_MAX: i64 = 253;
/// Durations and times in JSON, with quotation marks: shortest duration, shortest time, longest of both, a date.
const DURATION_MIN: i64 = 3;
const TIME_MIN: i64 = 21;
const TIME_MAX: i64 = 32;
const DATE: i64 = 12;

/// A part of a custom resource's schema: its type, and how large its values are.
#[derive(Debug)]
pub struct Decl {
    pub value: Type,
    /// Bytes of the smallest value in JSON.
    pub min_bytes: i64,
    /// The most elements, characters or bytes.
    pub max_elements: i64,
    inner: Inner,
}

#[derive(Debug)]
enum Inner {
    None,
    List(Arc<Decl>),
    Map(Arc<Decl>),
    Object(Arc<Properties>),
}

/// An object's fields by their identifiers.
struct Properties {
    name: Box<str>,
    fields: BTreeMap<Box<str>, Arc<Decl>>,
}

impl std::fmt::Debug for Properties {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.fields.keys()).finish()
    }
}

impl ObjectType for Properties {
    fn name(&self) -> &str {
        &self.name
    }

    fn field(&self, name: &str) -> Option<Type> {
        self.fields.get(name).map(|field| field.value.clone())
    }
}

impl Decl {
    /// What a part of a structural schema (`openAPIV3Schema`) declares; nothing where the type is unknown, as with
    /// `x-kubernetes-preserve-unknown-fields` alone: such fields don't exist for expressions.
    ///
    /// `resource`: it is a whole object, which has `apiVersion`, `kind` and a name. `name` begins the names of the
    /// types of objects, which must differ in an environment.
    pub fn of_schema(schema: &Json, resource: bool, name: &str) -> Option<Arc<Decl>> {
        declare(schema, resource, name, 0).map(Arc::new)
    }

    /// The declaration of a property, called by its name in the schema.
    pub fn property(&self, name: &str) -> Option<&Arc<Decl>> {
        match &self.inner {
            Inner::Object(object) if can_escape(name) => object.fields.get(&*escape(name)),
            _ => None,
        }
    }

    /// The declaration of elements of lists, and of values of maps.
    pub fn element(&self) -> Option<&Arc<Decl>> {
        match &self.inner {
            Inner::List(element) | Inner::Map(element) => Some(element),
            _ => None,
        }
    }

    /// How many such values a request can have at most.
    pub fn max_cardinality(&self) -> u64 {
        (MAX_REQUEST_BYTES / (self.min_bytes + 1)).unsigned_abs()
    }

    fn at(&self, path: &[&str]) -> Option<i64> {
        let Some((first, rest)) = path.split_first() else { return Some(self.max_elements) };
        match (&self.inner, *first) {
            (Inner::List(inner) | Inner::Map(inner), "@items" | "@values") => inner.at(rest),
            // Upstream counts keys as if they were empty.
            (Inner::Map(_), "@keys") => rest.is_empty().then_some(0),
            (Inner::Object(object), name) => object.fields.get(name)?.at(rest),
            _ => None,
        }
    }

    fn simple(value: Type, min_bytes: i64, max_elements: i64) -> Self {
        Self { value, min_bytes, max_elements, inner: Inner::None }
    }
}

/// The sizes of what is below the variables `self` and `oldSelf`.
impl SizeEstimator for Decl {
    fn size(&self, path: &[&str], _value: &Type) -> Option<SizeEstimate> {
        let (_variable, rest) = path.split_first()?;
        self.at(rest).map(|max| SizeEstimate { min: 0, max: max.unsigned_abs() })
    }
}

fn limit(schema: &Json, field: &str) -> Option<i64> {
    schema[field].as_i64().map(|limit| limit.max(0))
}

fn flag(schema: &Json, field: &str) -> bool {
    schema[field] == true
}

fn declare(schema: &Json, resource: bool, name: &str, depth: usize) -> Option<Decl> {
    if depth > MAX_DEPTH {
        return None;
    }
    if flag(schema, "x-kubernetes-int-or-string") {
        let max = limit(schema, "maxLength").map_or(MAX_REQUEST_BYTES - 2, |max| max * 4);
        return Some(Decl::simple(Type::Dyn, 1, max));
    }
    match schema["type"].as_str() {
        Some("array") => list(schema, name, depth),
        Some("object") => object_or_map(schema, resource, name, depth),
        // An embedded resource needs no type of its own.
        None if resource => object_or_map(schema, resource, name, depth),
        Some("string") => Some(text(schema)),
        Some("boolean") => Some(Decl::simple(Type::Bool, 4, 0)),
        Some("number") => Some(Decl::simple(Type::Double, 1, 0)),
        Some("integer") => Some(Decl::simple(Type::Int, 1, 0)),
        _ => None,
    }
}

fn embedded(schema: &Json) -> bool {
    flag(schema, "x-kubernetes-embedded-resource")
}

/// `x-kubernetes-list-type` and its keys.
fn list_kind(schema: &Json) -> ListKind {
    match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => ListKind::Set,
        Some("map") => {
            let keys = schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
            ListKind::Map(keys.filter_map(Json::as_str).map(Into::into).collect())
        }
        _ => ListKind::Atomic,
    }
}

fn list(schema: &Json, name: &str, depth: usize) -> Option<Decl> {
    let items = &schema["items"];
    let item = Arc::new(declare(items, embedded(items), &format!("{name}.@idx"), depth + 1)?);
    let max = limit(schema, "maxItems").unwrap_or((MAX_REQUEST_BYTES - 2) / (item.min_bytes + 1));
    let value = Type::list_of(item.value.clone(), list_kind(schema));
    Some(Decl { value, min_bytes: 2, max_elements: max, inner: Inner::List(item) })
}

fn object_or_map(schema: &Json, resource: bool, name: &str, depth: usize) -> Option<Decl> {
    let values = &schema["additionalProperties"];
    if values.is_object() {
        let value = Arc::new(declare(values, embedded(values), &format!("{name}.@elem"), depth + 1)?);
        // A key, quotation marks, a colon and a comma.
        let max = limit(schema, "maxProperties").unwrap_or((MAX_REQUEST_BYTES - 2) / (value.min_bytes + 6));
        let map = Type::map(Type::String, value.value.clone());
        return Some(Decl { value: map, min_bytes: 2, max_elements: max, inner: Inner::Map(value) });
    }
    Some(object(schema, resource, name, depth))
}

fn object(schema: &Json, resource: bool, name: &str, depth: usize) -> Decl {
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
    let mut fields = BTreeMap::new();
    let mut min_bytes = 2;
    let meta = resource.then(|| meta_properties(schema));
    let empty = Map::new();
    let given = schema["properties"].as_object().unwrap_or(&empty);
    let implied = meta.iter().flatten().map(|(field, property)| (*field, property));
    let own = given.iter().map(|(field, property)| (field.as_str(), property));
    let own = own.filter(|(field, _)| !(resource && ["apiVersion", "kind", "metadata"].contains(field)));
    for (field, property) in own.chain(implied) {
        let Some(decl) = declare(property, embedded(property), &format!("{name}.{field}"), depth + 1) else { continue };
        if required.contains(&field) && property.get("default").is_none_or(Json::is_null) {
            min_bytes += field.len() as i64 + decl.min_bytes + 4;
        }
        if can_escape(field) {
            fields.insert(escape(field).into(), Arc::new(decl));
        }
    }
    let properties = Arc::new(Properties { name: name.into(), fields });
    Decl { value: Type::Object(properties.clone()), min_bytes, max_elements: 0, inner: Inner::Object(properties) }
}

/// What expressions see of a whole object's metadata: its names.
fn meta_properties(schema: &Json) -> [(&'static str, Json); 3] {
    let text = serde_json::json!({"type": "string"});
    let given = &schema["properties"]["metadata"]["properties"];
    let name = |field: &str, max: i64| {
        let max = given[field]["maxLength"].as_i64().map_or(max, |given| given.min(max));
        serde_json::json!({"type": "string", "maxLength": max})
    };
    let names = serde_json::json!({
        "type": "object",
        "properties": {"name": name("name", NAME_MAX), "generateName": name("generateName", NAME_MAX - 1)},
    });
    [("apiVersion", text.clone()), ("kind", text), ("metadata", names)]
}

fn text(schema: &Json) -> Decl {
    match schema["format"].as_str() {
        Some("byte") => Decl::simple(Type::Bytes, 2, limit(schema, "maxLength").unwrap_or(MAX_REQUEST_BYTES - 2)),
        Some("duration") => Decl::simple(Type::Duration, DURATION_MIN, TIME_MAX),
        Some("date") => Decl::simple(Type::Timestamp, DATE, DATE),
        Some("date-time") => Decl::simple(Type::Timestamp, TIME_MIN, TIME_MAX),
        _ => {
            let longest = schema["enum"].as_array().filter(|values| !values.is_empty());
            let longest =
                longest.map(|values| values.iter().filter_map(Json::as_str).map(str::len).max().unwrap_or(0) as i64);
            // A character takes up to four bytes.
            let max = limit(schema, "maxLength").map(|max| max.saturating_mul(4)).or(longest);
            Decl::simple(Type::String, 2, max.unwrap_or(MAX_REQUEST_BYTES - 2))
        }
    }
}

/// An object of a built-in kind. Its fields become types when they are asked for.
struct BuiltIn(TypeRef<'static>);

impl ObjectType for BuiltIn {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn field(&self, name: &str) -> Option<Type> {
        self.0.field(&crate::unescape(name)).map(|field| of_built_in(field.ty()))
    }
}

/// The type of a built-in kind, or of a part of one, for checking: what is only known at run time is `dyn`.
pub fn of_built_in(ty: TypeRef<'static>) -> Type {
    match ty.shape() {
        Shape::Object { .. } => Type::object(BuiltIn(ty)),
        Shape::Map { value, .. } => Type::map(Type::String, of_built_in(value)),
        Shape::List { item, .. } => Type::list(of_built_in(item)),
        Shape::String | Shape::Quantity => Type::String,
        Shape::Int32 | Shape::Int64 => Type::Int,
        Shape::Number => Type::Double,
        Shape::Bool => Type::Bool,
        Shape::Time | Shape::MicroTime => Type::Timestamp,
        Shape::Bytes => Type::Bytes,
        Shape::IntOrString | Shape::Any => Type::Dyn,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn decl(schema: Json) -> Arc<Decl> {
        Decl::of_schema(&schema, false, "self").unwrap()
    }

    #[test]
    fn sizes_come_from_limits_or_from_the_largest_request() {
        for (schema, min, max) in [
            (json!({"type": "string", "maxLength": 5}), 2, 20),
            (json!({"type": "string", "enum": ["a", "abc"]}), 2, 3),
            (json!({"type": "string"}), 2, 3_145_726),
            (json!({"type": "string", "format": "date-time"}), 21, 32),
            (json!({"type": "array", "items": {"type": "integer"}}), 2, 1_572_863),
            (json!({"type": "array", "maxItems": 7, "items": {"type": "integer"}}), 2, 7),
            (json!({"type": "object", "additionalProperties": {"type": "string"}}), 2, 393_215),
            (json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "boolean"}}}), 11, 0),
        ] {
            let decl = decl(schema.clone());
            assert_eq!((decl.min_bytes, decl.max_elements), (min, max), "{schema}");
        }
    }

    #[test]
    fn fields_have_identifiers() {
        let schema = json!({"type": "object", "properties": {
            "namespace": {"type": "string"}, "x-y": {"type": "integer"}, "a b": {"type": "string"},
            "any": {"x-kubernetes-preserve-unknown-fields": true},
            "both": {"x-kubernetes-int-or-string": true},
        }});
        let decl = decl(schema);
        let Type::Object(object) = &decl.value else { panic!("an object is one") };
        assert_eq!(object.field("__namespace__"), Some(Type::String));
        assert_eq!(object.field("x__dash__y"), Some(Type::Int));
        assert_eq!(object.field("both"), Some(Type::Dyn));
        assert_eq!((object.field("any"), object.field("a b")), (None, None));
    }

    #[test]
    fn whole_objects_have_names() {
        let decl = Decl::of_schema(&json!({"type": "object"}), true, "self").unwrap();
        assert_eq!(decl.size(&["self", "metadata", "name"], &Type::String), Some(SizeEstimate { min: 0, max: 1012 }));
        assert_eq!(decl.size(&["self", "metadata", "labels"], &Type::String), None);
    }

    #[test]
    fn built_in_kinds_are_types() {
        let pod = pintle_schema::Schema::builtin().kind("", "v1", "Pod").unwrap();
        let Type::Object(pod) = of_built_in(pod) else { panic!("a pod is an object") };
        let Some(Type::Object(spec)) = pod.field("spec") else { panic!("a spec is an object") };
        assert!(matches!(spec.field("containers"), Some(Type::List(_))));
        assert_eq!(spec.field("replicas"), None);
    }
}

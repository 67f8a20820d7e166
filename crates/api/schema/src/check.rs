//! Do the fields of a tree exist, and have they the right types?

use crate::{FieldRef, Schema, Shape, TypeRef};
use serde_json::{Map, Value};

mod scalar;

pub(crate) use scalar::json_kind;

const SCHEMA_PROPS: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";

/// Removes the fields that the type lacks and names them in upstream's words: `unknown field "spec.foo"`.
pub fn unknown_fields(ty: TypeRef<'_>, value: &mut Value) -> Vec<String> {
    let mut found = Vec::new();
    prune(ty, value, &mut String::new(), &mut found);
    found
}

/// The first value of a wrong type, in upstream's words, such as
/// `json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32`.
///
/// Of custom resources only the metadata is checked: their own fields are a matter of validation.
pub fn types(ty: TypeRef<'_>, value: &Value) -> Result<(), String> {
    let mut walk = TypeWalk { path: String::new(), owner: "" };
    walk.value(ty, GoType { field: None, depth: 0 }, value)
}

fn prune(ty: TypeRef<'_>, value: &mut Value, path: &mut String, found: &mut Vec<String>) {
    let length = path.len();
    match (ty.shape(), value) {
        (Shape::Object { open, .. }, Value::Object(map)) => prune_object(ty, open, map, path, found),
        (Shape::Map { value: inner, .. }, Value::Object(map)) => {
            for (key, value) in map {
                step(path, key);
                prune(inner, value, path, found);
                path.truncate(length);
            }
        }
        (Shape::List { item, .. }, Value::Array(items)) => {
            for (index, value) in items.iter_mut().enumerate() {
                path.push_str(&format!("[{index}]"));
                prune(item, value, path, found);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

fn prune_object(ty: TypeRef<'_>, open: bool, map: &mut Map<String, Value>, path: &mut String, found: &mut Vec<String>) {
    let length = path.len();
    map.retain(|key, value| {
        step(path, key);
        let keep = match ty.field(key) {
            Some(field) => {
                if matches!(field.ty().shape(), Shape::Any) {
                    prune_schema(field, value);
                } else {
                    prune(field.ty(), value, path, found);
                }
                true
            }
            None => {
                if !open {
                    found.push(format!("unknown field \"{path}\""));
                }
                open
            }
        };
        path.truncate(length);
        keep
    });
}

/// Upstream decodes what may be a schema of a custom resource by itself, and loses its unknown fields without a word.
fn prune_schema(field: FieldRef<'_>, value: &mut Value) {
    if GoType::of(field).is_schema_or()
        && let Some(schema) = Schema::builtin().definition(SCHEMA_PROPS)
    {
        prune(schema, value, &mut String::new(), &mut Vec::new());
    }
}

fn step(path: &mut String, key: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(key);
}

/// Walks as Go's decoder does: messages name the innermost struct and the path of fields, without indices and keys.
struct TypeWalk<'a> {
    path: String,
    owner: &'a str,
}

/// Where the name of a value's Go type comes from: a field, and how many lists and maps inside it the value is.
/// Only errors need the name.
#[derive(Clone, Copy)]
struct GoType<'a> {
    field: Option<FieldRef<'a>>,
    depth: usize,
}

impl<'a> GoType<'a> {
    fn of(field: FieldRef<'a>) -> Self {
        Self { field: Some(field), depth: 0 }
    }

    fn inner(self) -> Self {
        Self { depth: self.depth + 1, ..self }
    }

    fn name(self, ty: TypeRef<'_>) -> String {
        let Some(field) = self.field else { return ty.go_type() };
        let outer = field.go_type();
        let strip = |name: &'_ str| -> Option<String> {
            let item =
                name.strip_prefix("[]").or_else(|| name.strip_prefix("map[")?.split_once(']').map(|(_, value)| value));
            item.map(str::to_owned)
        };
        (0..self.depth).try_fold(outer.into_owned(), |name, _| strip(&name)).unwrap_or_else(|| ty.go_type())
    }

    /// Whether it is a schema of a custom resource, or something else that may stand in its place.
    fn is_schema_or(self) -> bool {
        let name = self.field.filter(|_| self.depth == 0).map(|field| field.go_type());
        matches!(name.as_deref(), Some("v1.JSONSchemaPropsOrArray" | "v1.JSONSchemaPropsOrBool"))
    }
}

impl<'a> TypeWalk<'a> {
    fn value(&mut self, ty: TypeRef<'a>, go: GoType<'a>, value: &Value) -> Result<(), String> {
        if value.is_null() {
            return Ok(());
        }
        match (ty.shape(), value) {
            (Shape::Object { .. }, Value::Object(map)) => self.object(ty, map),
            (Shape::Map { value: inner, .. }, Value::Object(map)) => {
                map.values().try_for_each(|value| self.value(inner, go.inner(), value))
            }
            (Shape::List { item, .. }, Value::Array(items)) => {
                items.iter().try_for_each(|value| self.value(item, go.inner(), value))
            }
            (Shape::Any, Value::Object(map)) if go.is_schema_or() => {
                Schema::builtin().definition(SCHEMA_PROPS).map_or(Ok(()), |ty| self.object(ty, map))
            }
            (Shape::Object { .. } | Shape::Map { .. } | Shape::List { .. }, other) => {
                Err(self.mismatch(scalar::json_kind(other), &go.name(ty)))
            }
            (shape, value) => scalar::check(shape, value).map_err(|problem| match problem {
                scalar::Problem::Mismatch(what, Some(inner)) => self.mismatch(&what, inner),
                scalar::Problem::Mismatch(what, None) => self.mismatch(&what, &go.name(ty)),
                scalar::Problem::Message(message) => message,
            }),
        }
    }

    fn object(&mut self, ty: TypeRef<'a>, map: &Map<String, Value>) -> Result<(), String> {
        let owner = self.owner;
        let length = self.path.len();
        let name = ty.name();
        for (key, value) in map {
            let Some(field) = ty.field(key) else { continue };
            if ty.is_custom() && !is_meta(&field) {
                continue;
            }
            if let Some(embedded) = field.via() {
                step(&mut self.path, embedded);
            }
            step(&mut self.path, key);
            self.owner = name.rsplit('.').next().unwrap_or(name);
            self.value(field.ty(), GoType::of(field), value)?;
            self.path.truncate(length);
        }
        self.owner = owner;
        Ok(())
    }

    fn mismatch(&self, what: &str, go: &str) -> String {
        if self.path.is_empty() {
            return format!("json: cannot unmarshal {what} into Go value of type {go}");
        }
        format!("json: cannot unmarshal {what} into Go struct field {}.{} of type {go}", self.owner, self.path)
    }
}

fn is_meta(field: &FieldRef<'_>) -> bool {
    matches!(field.name(), "apiVersion" | "kind" | "metadata")
}

#[cfg(test)]
mod tests;

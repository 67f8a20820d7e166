//! Do the fields of a tree exist, and have they the right types?

use crate::{FieldRef, Schema, Shape, TypeRef};
use serde_json::{Map, Value};
use std::borrow::Cow;

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
    let go = ty.go_type();
    let mut walk = TypeWalk { path: String::new(), owner: "" };
    walk.value(ty, Cow::Owned(go), value)
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
                prune(field.ty(), value, path, found);
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

impl<'a> TypeWalk<'a> {
    fn value(&mut self, ty: TypeRef<'a>, go: Cow<'a, str>, value: &Value) -> Result<(), String> {
        if value.is_null() {
            return Ok(());
        }
        match (ty.shape(), value) {
            (Shape::Object { .. }, Value::Object(map)) => self.object(ty, map),
            (Shape::Any, Value::Object(map))
                if matches!(&*go, "v1.JSONSchemaPropsOrArray" | "v1.JSONSchemaPropsOrBool") =>
            {
                Schema::builtin().definition(SCHEMA_PROPS).map_or(Ok(()), |ty| self.object(ty, map))
            }
            (Shape::Map { value: inner, .. }, Value::Object(map)) => {
                let go = value_type(&go);
                map.values().try_for_each(|value| self.value(inner, element(&go, inner), value))
            }
            (Shape::List { item, .. }, Value::Array(items)) => {
                let go = go.strip_prefix("[]").map(str::to_owned);
                items.iter().try_for_each(|value| self.value(item, element(&go, item), value))
            }
            (Shape::Object { .. } | Shape::Map { .. } | Shape::List { .. }, other) => {
                Err(self.mismatch(scalar::json_kind(other), &go))
            }
            (shape, value) => scalar::check(shape, value).map_err(|problem| match problem {
                scalar::Problem::Mismatch(what, inner) => self.mismatch(&what, inner.unwrap_or(&go)),
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
            self.value(field.ty(), field.go_type(), value)?;
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

/// The value part of `map[key]value`.
fn value_type(go: &str) -> Option<String> {
    go.strip_prefix("map[")?.split_once(']').map(|(_, value)| value.to_owned())
}

fn element<'a>(go: &Option<String>, ty: TypeRef<'_>) -> Cow<'a, str> {
    Cow::Owned(go.clone().unwrap_or_else(|| ty.go_type()))
}

#[cfg(test)]
mod tests;

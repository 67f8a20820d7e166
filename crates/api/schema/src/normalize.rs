//! Brings a tree into the form in which upstream prints it after decoding.
//!
//! Upstream's objects go through Go structs: what comes out is decided by the tags of the fields (see [`Print`]).
//! Custom resources don't: only their metadata is brought into that form.

use crate::{Print, Shape, TypeRef};
use pintle_types::quantity::Quantity;
use serde_json::{Map, Value};

/// Drops nulls and the empty values that are never printed, adds the empty structs that always are, and writes
/// quantities and times canonically. Call it after `check::types` has passed; before or after defaults.
pub fn object(ty: TypeRef<'_>, value: &mut Value) {
    if !ty.is_custom() {
        return any(ty, value);
    }
    if let (Some(field), Some(metadata)) = (ty.field("metadata"), value.get_mut("metadata")) {
        any(field.ty(), metadata);
    }
}

/// Brings a built-in object into the form in which upstream reads it back from its store: emptied lists and maps are
/// not told from absent ones there, so those that always print are null. Custom resources stay as they are.
pub fn stored(ty: TypeRef<'_>, value: &mut Value) {
    if ty.is_custom() {
        return;
    }
    match (ty.shape(), value) {
        (Shape::Object { .. }, Value::Object(map)) => {
            for (key, value) in map.iter_mut() {
                let Some(field) = ty.field(key) else { continue };
                let printed = matches!(field.print(), Print::Null | Print::Always);
                if printed && matches!(field.ty().shape(), Shape::List { .. } | Shape::Map { .. }) && is_empty(value) {
                    *value = Value::Null;
                } else {
                    stored(field.ty(), value);
                }
            }
        }
        (Shape::Map { value: inner, .. }, Value::Object(map)) => map.values_mut().for_each(|it| stored(inner, it)),
        (Shape::List { item, .. }, Value::Array(items)) => items.iter_mut().for_each(|it| stored(item, it)),
        _ => {}
    }
}

/// The object as it prints when nothing is set, such as `{"metadata":{},"spec":{},"status":{}}`.
pub fn zero(ty: TypeRef<'_>) -> Value {
    let mut value = Value::Object(Map::new());
    object(ty, &mut value);
    value
}

fn any(ty: TypeRef<'_>, value: &mut Value) {
    match (ty.shape(), &mut *value) {
        (Shape::Object { .. }, Value::Object(map)) => structure(ty, map),
        (Shape::Map { value: inner, .. }, Value::Object(map)) => {
            for value in map.values_mut() {
                null_to_zero(inner, value);
                any(inner, value);
            }
        }
        (Shape::List { item, .. }, Value::Array(items)) => {
            for value in items {
                null_to_zero(item, value);
                any(item, value);
            }
        }
        (Shape::Quantity, _) => quantity(value),
        (shape @ (Shape::Time | Shape::MicroTime), Value::String(text)) => {
            if let Some(canonical) = crate::time::canonical(text, matches!(shape, Shape::MicroTime)) {
                *text = canonical;
            }
        }
        _ => {}
    }
}

fn quantity(value: &mut Value) {
    let text = match value {
        Value::String(text) => text.as_str(),
        Value::Number(number) => &number.to_string(),
        _ => return,
    };
    if let Ok(quantity) = text.parse::<Quantity>() {
        let canonical = quantity.to_string();
        if value.as_str() != Some(&canonical) {
            *value = Value::String(canonical);
        }
    }
}

/// In lists and maps a null is the zero value.
fn null_to_zero(ty: TypeRef<'_>, value: &mut Value) {
    if value.is_null()
        && let Some(zero) = zero_value(ty)
    {
        *value = zero;
    }
}

fn structure(ty: TypeRef<'_>, map: &mut Map<String, Value>) {
    map.retain(|key, value| {
        let Some(field) = ty.field(key) else { return true };
        if value.is_null() {
            return false;
        }
        any(field.ty(), value);
        match field.print() {
            Print::Always | Print::Given | Print::Null => true,
            Print::NotZero => !is_empty(value),
            Print::NotEmpty => !is_empty(value) || is_kept(field.ty(), value),
        }
    });
    for field in ty.always_printed() {
        let missing = match field.print() {
            Print::Always => zero_value(field.ty()).unwrap_or(Value::Null),
            Print::Null => Value::Null,
            Print::NotEmpty | Print::Given | Print::NotZero => continue,
        };
        if !map.contains_key(field.name()) {
            map.insert(field.name().to_owned(), missing);
        }
    }
}

/// Structs of Go that have an own text form are never empty to its encoder.
pub(crate) fn is_kept(ty: TypeRef<'_>, value: &Value) -> bool {
    match ty.shape() {
        Shape::Object { .. } | Shape::Quantity | Shape::IntOrString => true,
        Shape::Any => !value.is_null(),
        _ => false,
    }
}

pub(crate) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(set) => !set,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// What Go prints for a value that was never set; none where that is null.
fn zero_value(ty: TypeRef<'_>) -> Option<Value> {
    Some(match ty.shape() {
        Shape::Object { .. } => {
            let mut map = Map::new();
            structure(ty, &mut map);
            Value::Object(map)
        }
        Shape::String => Value::String(String::new()),
        Shape::Int32 | Shape::Int64 | Shape::Number | Shape::IntOrString => Value::from(0),
        Shape::Bool => Value::Bool(false),
        Shape::Quantity => Value::String("0".into()),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Schema;
    use serde_json::json;

    fn normal(group: &str, kind: &str, mut value: Value) -> Value {
        let ty = Schema::builtin().kind(group, "v1", kind).unwrap();
        object(ty, &mut value);
        let once = value.clone();
        object(ty, &mut value);
        assert_eq!(once, value, "what is normal stays so");
        value
    }

    #[test]
    fn what_was_emptied_is_read_back_as_absent() {
        let ty = Schema::builtin().kind("rbac.authorization.k8s.io", "v1", "Role").unwrap();
        let mut role = json!({"metadata": {}, "rules": []});
        stored(ty, &mut role);
        assert_eq!(role, json!({"metadata": {}, "rules": null}));
        let mut role = json!({"metadata": {}, "rules": [{"verbs": ["get"]}]});
        let before = role.clone();
        stored(ty, &mut role);
        assert_eq!(role, before);
    }

    #[test]
    fn prints_as_upstream_does() {
        for (group, kind, given, printed) in [
            ("", "ConfigMap", json!({"data": {}, "metadata": {"labels": null}}), json!({"metadata": {}})),
            ("", "Namespace", json!({}), json!({"metadata": {}, "spec": {}, "status": {}})),
            (
                "",
                "Service",
                json!({"spec": {"ports": []}}),
                json!({"metadata": {}, "spec": {}, "status": {"loadBalancer": {}}}),
            ),
            ("rbac.authorization.k8s.io", "Role", json!({}), json!({"metadata": {}, "rules": null})),
            (
                "",
                "ResourceQuota",
                json!({"metadata": {"creationTimestamp": null}, "spec": {"hard": {"cpu": "1000m", "memory": 1024, "pods": "0.5"}}}),
                json!({"metadata": {}, "spec": {"hard": {"cpu": "1", "memory": "1024", "pods": "500m"}}, "status": {}}),
            ),
            (
                "coordination.k8s.io",
                "Lease",
                json!({"spec": {"renewTime": "2026-01-01T01:00:00.5+01:00", "leaseTransitions": 0}}),
                json!({"metadata": {}, "spec": {"renewTime": "2026-01-01T00:00:00.500000Z", "leaseTransitions": 0}}),
            ),
            (
                "",
                "Pod",
                json!({"spec": {"hostNetwork": false, "securityContext": {}, "containers": [{"name": "c", "env": [], "tty": false}]}}),
                json!({"metadata": {}, "spec": {"securityContext": {}, "containers": [{"name": "c", "resources": {}}]}, "status": {}}),
            ),
        ] {
            assert_eq!(normal(group, kind, given.clone()), printed, "{given}");
        }
    }
}

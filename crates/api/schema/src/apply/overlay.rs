//! Merging a configuration into an object without an owner: what mutating admission policies do.

use super::typed;
use super::validate;
use crate::{Shape, TypeRef};
use serde_json::Value;

/// The object with the configuration merged in, as a server-side apply would, but owned by nobody. Atomic lists, maps
/// and structs can't be in it: setting a part of them would remove the rest. The errors are upstream's.
pub fn overlay(ty: TypeRef<'_>, live: &Value, config: &Value) -> Result<Value, String> {
    validate::check(ty, config).map_err(|error| format!("failed to convert patch object to typed object: {error}"))?;
    let mut atomic = Vec::new();
    find_atomic(ty, config, &mut Vec::new(), &mut atomic);
    if !atomic.is_empty() {
        let paths = atomic.join(", ");
        return Err(format!("invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {paths}"));
    }
    Ok(typed::merge(Some(ty), Some(live), Some(config)).unwrap_or_default())
}

/// The paths of all parts that are owned as a whole.
fn find_atomic(ty: TypeRef<'_>, value: &Value, path: &mut Vec<String>, found: &mut Vec<String>) {
    let is_atomic = match (ty.shape(), value) {
        (Shape::Object { atomic, .. } | Shape::Map { atomic, .. }, Value::Object(_)) => atomic,
        (Shape::List { list_type, .. }, Value::Array(_)) => list_type == crate::ListType::Atomic,
        _ => return,
    };
    if is_atomic {
        found.push(path.concat());
    }
    match (ty.shape(), value) {
        (Shape::Object { .. }, Value::Object(fields)) => {
            for (name, value) in fields {
                let Some(field) = ty.field(name) else { continue };
                path.push(format!(".{name}"));
                find_atomic(field.ty(), value, path, found);
                path.pop();
            }
        }
        (Shape::List { item, .. }, Value::Array(items)) => {
            for (i, value) in items.iter().enumerate() {
                path.push(format!("[{i}]"));
                find_atomic(item, value, path, found);
                path.pop();
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Schema;
    use serde_json::json;

    #[test]
    fn configurations_are_merged() {
        let ty = Schema::builtin().kind("apps", "v1", "Deployment").unwrap();
        let live = json!({"metadata": {"labels": {"a": "1"}}, "spec": {"replicas": 1, "template": {"spec":
            {"containers": [{"name": "x", "image": "i"}]}}}});
        let config = json!({"metadata": {"labels": {"b": "2"}}, "spec": {"template": {"spec":
            {"containers": [{"name": "y", "image": "j"}]}}}});
        let merged = overlay(ty, &live, &config).unwrap();
        assert_eq!(merged["metadata"]["labels"], json!({"a": "1", "b": "2"}));
        let names: Vec<_> =
            merged["spec"]["template"]["spec"]["containers"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
        assert_eq!(names, ["x", "y"]);
        assert_eq!(merged["spec"]["replicas"], 1);
    }

    #[test]
    fn atomic_parts_are_refused() {
        let ty = Schema::builtin().kind("apps", "v1", "Deployment").unwrap();
        let config = json!({"spec": {"selector": {"matchLabels": {"a": "b"}}}});
        let error = overlay(ty, &json!({}), &config).unwrap_err();
        let words = "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: .spec.selector";
        assert_eq!(error, words);
    }
}

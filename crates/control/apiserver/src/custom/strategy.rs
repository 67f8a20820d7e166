//! What is particular to a custom resource: what its schema says.

use super::columns::Columns;
use super::validation;
use jiff::Timestamp;
use pintle_kinds::{Column, Strategy};
use pintle_types::field::ErrorList;
use serde_json::Value;

/// The strategy of one version of a custom resource.
pub(super) struct CustomStrategy {
    schema: Value,
    has_status: bool,
    columns: Columns,
}

impl CustomStrategy {
    pub fn new(schema: &Value, has_status: bool, columns: Columns) -> Self {
        Self { schema: schema.clone(), has_status, columns }
    }
}

impl Strategy for CustomStrategy {
    fn default(&self, _api_version: &str, object: &mut Value) {
        fill(&self.schema, object);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        validation::check(&self.schema, object)
    }

    fn validate_subresource_update(&self, _subresource: &str, new: &Value, _old: &Value) -> ErrorList {
        validation::check(&self.schema, new)
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn reset_fields(&self, subresource: &str) -> &'static [&'static str] {
        match subresource {
            "status" => &["spec"],
            "" if self.has_status => &["status"],
            _ => &[],
        }
    }

    fn generation_fields(&self) -> &'static [&'static str] {
        // Upstream counts every change outside metadata and status; `spec` is where all but a few kinds have theirs.
        &["spec"]
    }

    fn separates_status(&self) -> bool {
        self.has_status
    }

    fn columns(&self) -> &[Column] {
        &self.columns.shown
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        self.columns.cells(object, now)
    }
}

/// Fills in the defaults of a schema, wherever the object that holds the field is there.
fn fill(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                let missing = fields.get(name).is_none_or(|v| v.is_null() && property["nullable"] != true);
                if missing && let Some(default) = property.get("default") {
                    fields.insert(name.clone(), default.clone());
                }
                if let Some(inner) = fields.get_mut(name) {
                    fill(property, inner);
                }
            }
            if schema["additionalProperties"].is_object() {
                let declared = schema["properties"].as_object();
                for (_, inner) in fields.iter_mut().filter(|(k, _)| declared.is_none_or(|d| !d.contains_key(*k))) {
                    fill(&schema["additionalProperties"], inner);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| fill(&schema["items"], item)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn defaults_are_filled_in_where_their_parent_is() {
        let schema = json!({"properties": {"spec": {"properties": {
            "color": {"default": "blue"},
            "parts": {"items": {"properties": {"n": {"default": 3}}}},
        }}}});
        let mut object = json!({"spec": {"parts": [{"name": "p"}]}});
        fill(&schema, &mut object);
        assert_eq!(object, json!({"spec": {"color": "blue", "parts": [{"name": "p", "n": 3}]}}));
        let mut empty = json!({});
        fill(&schema, &mut empty);
        assert_eq!(empty, json!({}));
    }
}

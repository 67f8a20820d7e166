//! What is particular to a custom resource: what its schema says.

use super::columns::Columns;
use super::patterns::Patterns;
use jiff::Timestamp;
use pintle_kinds::{Column, Strategy};
use pintle_types::field::ErrorList;
use serde_json::Value;

/// The strategy of one version of a custom resource.
pub(super) struct CustomStrategy {
    schema: Value,
    patterns: Patterns,
    has_status: bool,
    columns: Columns,
}

impl CustomStrategy {
    pub fn new(schema: &Value, has_status: bool, columns: Columns) -> Self {
        Self { patterns: Patterns::of(schema), schema: schema.clone(), has_status, columns }
    }

    fn check(&self, object: &Value) -> ErrorList {
        let mut errors = pintle_schema::custom::validate(&self.schema, object);
        errors.extend(self.patterns.check(&self.schema, object));
        errors
    }
}

impl Strategy for CustomStrategy {
    fn default(&self, _api_version: &str, object: &mut Value) {
        pintle_schema::custom::set_defaults(&self.schema, object);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        self.check(object)
    }

    fn validate_subresource_update(&self, _subresource: &str, new: &Value, _old: &Value) -> ErrorList {
        self.check(new)
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

//! What is particular to a custom resource: what its schema says.

use super::columns::Columns;
use super::conversion::Webhook;
use super::scale;
use jiff::Timestamp;
use pintle_cel::rules::Rules;
use pintle_kinds::{Column, Converter, ScalePaths, Strategy};
use pintle_schema::TypeHandle;
use pintle_schema::custom::{Patterns, Validator, set_defaults, unchecked_rules};
use pintle_types::field::ErrorList;
use serde_json::Value;
use std::sync::{Arc, OnceLock};

/// What all versions of a definition share.
pub(super) struct Family {
    /// The `apiVersion` of what is stored.
    pub stored: String,
    /// The schema of each version by its `apiVersion`, those that are not served too.
    pub schemas: Vec<(String, TypeHandle)>,
    /// Who converts between versions; nothing: only their names differ.
    pub webhook: Option<Webhook>,
}

impl Family {
    fn schema(&self, api_version: &str) -> Option<&TypeHandle> {
        self.schemas.iter().find(|(name, _)| name == api_version).map(|(_, handle)| handle)
    }

    /// Takes away what a version does not know, and sets its defaults.
    pub fn fit(&self, api_version: &str, object: &mut Value) {
        let Some(handle) = self.schema(api_version) else { return };
        pintle_schema::check::unknown_fields(handle.get(), object);
        if let Some(schema) = handle.source() {
            set_defaults(schema, object);
        }
    }
}

/// The strategy of one version of a custom resource.
pub(super) struct CustomStrategy {
    pub handle: TypeHandle,
    pub family: Arc<Family>,
    pub patterns: Patterns,
    pub rules: OnceLock<Option<Rules>>,
    pub has_status: bool,
    pub scale: Option<ScalePaths>,
    pub columns: Columns,
    /// What every request is told, when the version is on its way out.
    pub deprecation: Option<String>,
}

impl CustomStrategy {
    fn check(&self, object: &Value, old: Option<&Value>) -> ErrorList {
        let Some(schema) = self.handle.source() else { return ErrorList::new() };
        let mut errors = Validator::new(schema, &self.patterns).validate(object, old);
        if let Some(paths) = &self.scale {
            errors.extend(scale::check(paths, object));
        }
        match unchecked_rules(schema, &errors) {
            Some(unchecked) => errors.push(unchecked),
            None => errors.extend(self.check_rules(schema, object, old)),
        }
        errors
    }

    /// What the rules in CEL say. They are compiled when the first object comes.
    fn check_rules(&self, schema: &Value, object: &Value, old: Option<&Value>) -> ErrorList {
        let rules = self.rules.get_or_init(|| Rules::compile(schema));
        rules.as_ref().map(|rules| rules.validate(schema, object, old).errors).unwrap_or_default()
    }
}

impl Strategy for CustomStrategy {
    fn default(&self, _api_version: &str, object: &mut Value) {
        if let Some(schema) = self.handle.source() {
            set_defaults(schema, object);
        }
    }

    fn from_storage(&self, api_version: &str, object: &mut Value) {
        self.family.fit(api_version, object);
    }

    fn converter(&self) -> Option<&dyn Converter> {
        self.family.webhook.as_ref().map(|_| self as &dyn Converter)
    }

    fn refreshes(&self) -> bool {
        true
    }

    fn refresh(&self, stored: &mut Value) -> bool {
        let version = stored["apiVersion"].as_str().unwrap_or_default();
        let own = version == self.family.stored;
        if !own && self.family.webhook.is_some() {
            return false;
        }
        let before = stored.clone();
        stored["apiVersion"] = self.family.stored.as_str().into();
        self.family.fit(&self.family.stored, stored);
        *stored != before
    }

    fn validate(&self, object: &Value) -> ErrorList {
        self.check(object, None)
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        self.check(new, Some(old))
    }

    fn validate_subresource_update(&self, _subresource: &str, new: &Value, old: &Value) -> ErrorList {
        self.check(new, Some(old))
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn deprecation(&self) -> Option<&str> {
        self.deprecation.as_deref()
    }

    fn reset_fields(&self, subresource: &str) -> &'static [&'static str] {
        match subresource {
            "status" => &["spec"],
            "" if self.has_status => &["status"],
            _ => &[],
        }
    }

    fn generation_fields(&self) -> &'static [&'static str] {
        &["*"]
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

#[async_trait::async_trait]
impl Converter for CustomStrategy {
    async fn convert(&self, objects: Vec<Value>, api_version: &str) -> Result<Vec<Value>, pintle_types::Status> {
        let Some(webhook) = &self.family.webhook else { return Ok(objects) };
        let mut converted = webhook.convert(objects, api_version).await?;
        converted.iter_mut().for_each(|object| self.family.fit(api_version, object));
        Ok(converted)
    }
}

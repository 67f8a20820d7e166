//! API services: groups and versions that other servers may serve.

use super::workload;
use crate::{
    check::{Errors, number},
    column::{self, Column},
    strategy::{NameRule, Strategy},
    tree,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use pintle_types::{
    field::{ErrorList, Path},
    names,
};
use serde_json::Value;

pub struct APIService;

static COLUMNS: &[Column] = &[
    column::NAME,
    Column::new("Service", "string", "", 0, "The reference to the service that hosts this API endpoint."),
    Column::new("Available", "string", "", 0, "Whether this service is available."),
    column::AGE,
];

impl Strategy for APIService {
    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn default(&self, _api_version: &str, object: &mut Value) {
        if let Some(spec) = tree::existing(object, "spec")
            && let Some(service) = tree::existing(spec, "service")
        {
            tree::default_to(service, "port", 443);
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| {
            let spec = &object["spec"];
            let (name, group, version) =
                (tree::text(&object["metadata"], "name"), tree::text(spec, "group"), tree::text(spec, "version"));
            let required = format!("{version}.{group}");
            if name != required && !name.is_empty() {
                let words = format!("must be `spec.version+\".\"+spec.group`: {required:?}");
                errors.invalid(&Path::new("metadata.name"), name, &words);
            }
            validate_spec(errors, &Path::new("spec"), spec);
        })
    }

    fn validate_subresource_update(&self, _subresource: &str, new: &Value, _old: &Value) -> ErrorList {
        Errors::of(|errors| {
            let path = Path::new("status.conditions");
            for (i, condition) in tree::list(&new["status"], "conditions").iter().enumerate() {
                let status = tree::text(condition, "status");
                errors.one_of(&path.index(i).child("status"), status, &["True", "False", "Unknown"]);
            }
        })
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let service = &object["spec"]["service"];
        let text = match service.is_null() {
            true => "Local".to_owned(),
            false => format!("{}/{}", tree::text(service, "namespace"), tree::text(service, "name")),
        };
        let conditions = tree::list(&object["status"], "conditions");
        let available = match conditions.iter().find(|it| tree::text(it, "type") == "Available") {
            None => "Unknown".to_owned(),
            Some(it) if tree::text(it, "status") == "True" => "True".to_owned(),
            Some(it) => format!("{} ({})", tree::text(it, "status"), tree::text(it, "reason")),
        };
        vec![workload::name(object), text.into(), available.into(), column::age(object, now)]
    }
}

fn validate_spec(errors: &mut Errors, path: &Path, spec: &Value) {
    let (group, version) = (tree::text(spec, "group"), tree::text(spec, "version"));
    if !group.is_empty() {
        errors.invalid_for(&path.child("group"), group, names::dns1123_subdomain_errors(group));
    } else if version != "v1" {
        errors.required(&path.child("group"), "only v1 may have an empty group and it better be legacy kube");
    }
    errors.invalid_for(&path.child("version"), version, names::dns1035_label_errors(version));
    for (field, limit) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
        let number = tree::int(spec, field);
        if number <= 0 || number > limit {
            errors.invalid(&path.child(field), number, &format!("must be positive and less than {limit}"));
        }
    }
    let insecure = path.child("insecureSkipTLSVerify");
    if !tree::has(spec, "service") {
        if tree::has(spec, "caBundle") {
            let bytes = STANDARD.decode(tree::text(spec, "caBundle")).map_or(0, |bundle| bundle.len());
            let words = "local APIServices may not have a caBundle";
            errors.invalid(&path.child("caBundle"), format!("{bytes} bytes"), words);
        }
        if tree::flag(spec, "insecureSkipTLSVerify") {
            errors.invalid(&insecure, true, "local APIServices may not have insecureSkipTLSVerify");
        }
        return;
    }
    let (at, service) = (path.child("service"), &spec["service"]);
    for field in ["namespace", "name"] {
        errors.needs(&at.child(field), tree::text(service, field), "");
    }
    let port = tree::int(service, "port");
    if !number::is_port(port) {
        errors.invalid(&at.child("port"), port, "port is not valid: must be between 1 and 65535, inclusive");
    }
    if tree::flag(spec, "insecureSkipTLSVerify") && tree::has(spec, "caBundle") {
        errors.invalid(&insecure, true, "may not be true if caBundle is present");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_follow_version_and_group() {
        let object = json!({"metadata": {"name": "v1.a.example.com"}, "spec": {
            "group": "b.example.com", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1,
        }});
        assert_eq!(
            APIService.validate(&object)[0].to_string(),
            "metadata.name: Invalid value: \"v1.a.example.com\": must be `spec.version+\".\"+spec.group`: \"v1.b.example.com\""
        );
    }
}

//! Definitions of custom resources.

mod approval;
mod schema;
mod structural;
mod version;

pub use approval::{Approval, approval_of};

use super::{policy, webhook};
use crate::{
    check::{Errors, Seen, condition},
    strategy::Strategy,
    tree,
};
use pintle_types::{
    field::{ErrorList, Path},
    names,
};
use serde_json::{Value, json};

pub struct CustomResourceDefinition;

impl Strategy for CustomResourceDefinition {
    fn default(&self, _api_version: &str, object: &mut Value) {
        let Some(spec) = tree::child(object, "spec") else { return };
        if let Some(names) = tree::child(spec, "names") {
            let kind = tree::text(names, "kind").to_owned();
            if !kind.is_empty() {
                tree::default_empty(names, "singular", kind.to_lowercase());
                tree::default_empty(names, "listKind", format!("{kind}List"));
            }
        }
        let Some(conversion) = tree::child(spec, "conversion") else { return };
        tree::default_empty(conversion, "strategy", "None");
        if let Some(hook) = tree::existing(conversion, "webhook")
            && let Some(config) = tree::existing(hook, "clientConfig")
            && let Some(service) = tree::existing(config, "service")
        {
            tree::default_to(service, "port", 443);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        let stored: Vec<Value> = storage_versions(&object["spec"]).map(Value::from).collect();
        let mut status = json!({"conditions": null, "acceptedNames": {"kind": "", "plural": ""}});
        if let Some(first) = stored.into_iter().next() {
            tree::set(&mut status, "storedVersions", json!([first]));
        }
        tree::set(object, "status", status);
    }

    /// A version that becomes the stored one is remembered: objects may be kept in its form.
    fn prepare_update(&self, new: &mut Value, _old: &Value) {
        let stored: Vec<String> = storage_versions(&new["spec"]).map(str::to_owned).collect();
        let Some(status) = tree::child(new, "status") else { return };
        let mut known = tree::list(status, "storedVersions").to_vec();
        for version in stored {
            if !known.iter().any(|one| *one == version) {
                known.push(version.into());
            }
        }
        tree::set(status, "storedVersions", known);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        validate(object, None)
    }

    fn validate_request(&self, _api_version: &str, object: &Value) -> ErrorList {
        Errors::of(|errors| {
            approval::validate(errors, object, None);
            pruned(errors, &object["spec"]);
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut found = validate(new, Some(old));
        found.extend(Errors::of(|errors| {
            approval::validate(errors, new, Some(old));
            if !tree::flag(&old["spec"], "preserveUnknownFields") {
                pruned(errors, &new["spec"]);
            }
            unchanged(errors, &Path::new("spec"), new, old);
        }));
        found
    }

    fn validate_subresource_update(&self, _subresource: &str, new: &Value, _old: &Value) -> ErrorList {
        Errors::of(|errors| forms_of_names(errors, &Path::new("status.acceptedNames"), &new["status"]["acceptedNames"]))
    }

    fn generation_fields(&self) -> &'static [&'static str] {
        &["spec"]
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }
}

/// What is wrong with a definition. Rules of schemas that did not change since `old` are not compiled again.
fn validate(object: &Value, old: Option<&Value>) -> ErrorList {
    Errors::of(|errors| {
        let spec = &object["spec"];
        let name = tree::text(&object["metadata"], "name");
        let required = format!("{}.{}", tree::text(&spec["names"], "plural"), tree::text(spec, "group"));
        if !name.is_empty() && name != required {
            errors.invalid(&Path::new("metadata.name"), name, "must be spec.names.plural+\".\"+spec.group");
        }
        validate_spec(errors, &Path::new("spec"), spec, old.map(|old| &old["spec"]));
        stored_versions(errors, object);
    })
}

fn storage_versions(spec: &Value) -> impl Iterator<Item = &str> {
    tree::list(spec, "versions")
        .iter()
        .filter(|version| tree::flag(version, "storage"))
        .map(|it| tree::text(it, "name"))
}

fn stored_versions(errors: &mut Errors, object: &Value) {
    let path = Path::new("status.storedVersions");
    let stored = tree::list(&object["status"], "storedVersions");
    if stored.is_empty() {
        errors.invalid(&path, Value::Null, "must have at least one stored version");
    }
    let mut unknown: Vec<(usize, &str)> = stored.iter().filter_map(Value::as_str).enumerate().collect();
    for version in tree::list(&object["spec"], "versions") {
        let name = tree::text(version, "name");
        let before = unknown.len();
        unknown.retain(|(_, stored)| *stored != name);
        // A second version of the same name is not found any more, as upstream has it.
        if tree::flag(version, "storage") && unknown.len() == before {
            errors.invalid(&path, stored.to_vec(), &format!("must have the storage version {name}"));
        }
    }
    for (i, version) in unknown {
        let words = format!(
            "missing from spec.versions; {version} was previously a storage version, and must remain in spec.versions until \
             a storage migration ensures no data remains persisted in {version} and removes {version} from \
             status.storedVersions"
        );
        errors.invalid(&path.index(i), version, &words);
    }
}

fn validate_spec(errors: &mut Errors, path: &Path, spec: &Value, old: Option<&Value>) {
    let group = tree::text(spec, "group");
    let at = path.child("group");
    if errors.needs(&at, group, "") {
        errors.invalid_for(&at, group, names::dns1123_subdomain_errors(group));
        if names::check_dns1123_subdomain(group).is_ok() && !group.contains('.') {
            errors.invalid(&at, group, "should be a domain with at least one dot");
        }
    }
    errors.needs_one_of(&path.child("scope"), tree::text(spec, "scope"), &["Cluster", "Namespaced"]);
    version::validate_all(errors, path, spec, old);
    validate_names(errors, &path.child("names"), &spec["names"]);
    conversion(errors, &path.child("conversion"), &spec["conversion"]);
}

/// What only older versions of definitions may say.
fn pruned(errors: &mut Errors, spec: &Value) {
    if tree::flag(spec, "preserveUnknownFields") {
        let words =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.invalid(&Path::new("spec.preserveUnknownFields"), true, words);
    }
}

/// Where objects are kept stays, and once there are some, so does what they are.
fn unchanged(errors: &mut Errors, path: &Path, new: &Value, old: &Value) {
    let established = condition::is_true(&old["status"], "Established");
    let (new, old) = (&new["spec"], &old["spec"]);
    let mut stays = |way: &str| {
        let at = way.split('.').fold(path.clone(), |at, part| at.child(part));
        errors.immutable(&at, tree::at(new, way), tree::at(old, way));
    };
    if established {
        ["scope", "names.kind"].into_iter().for_each(&mut stays);
    }
    ["group", "names.plural"].into_iter().for_each(&mut stays);
}

/// The forms of names that there are.
fn forms_of_names(errors: &mut Errors, path: &Path, own: &Value) {
    for field in ["plural", "singular"].into_iter().filter(|field| !tree::text(own, field).is_empty()) {
        one_label(errors, &path.child(field), tree::text(own, field));
    }
    for field in ["kind", "listKind"].into_iter().filter(|field| !tree::text(own, field).is_empty()) {
        policy::mixed_case(errors, &path.child(field), tree::text(own, field));
    }
    for field in ["shortNames", "categories"] {
        for (i, text) in tree::list(own, field).iter().enumerate() {
            one_label(errors, &path.child(field).index(i), text.as_str().unwrap_or(""));
        }
    }
}

fn one_label(errors: &mut Errors, at: &Path, text: &str) {
    let wrong = names::dns1035_label_errors(text);
    if !wrong.is_empty() {
        errors.invalid(at, text, &wrong.join(","));
    }
}

fn validate_names(errors: &mut Errors, path: &Path, own: &Value) {
    for field in ["plural", "singular", "kind", "listKind"] {
        errors.needs(&path.child(field), tree::text(own, field), "");
    }
    forms_of_names(errors, path, own);
    let kind = tree::text(own, "kind");
    if !kind.is_empty() && kind == tree::text(own, "listKind") {
        errors.invalid(&path.child("listKind"), kind, "kind and listKind may not be the same");
    }
    let mut seen = Seen::default();
    for (i, name) in tree::list(own, "shortNames").iter().enumerate().filter(|(_, name)| !seen.first(name.to_string()))
    {
        errors.duplicate(&path.child("shortNames").index(i), name.clone());
    }
}

fn conversion(errors: &mut Errors, path: &Path, conversion: &Value) {
    let kind = tree::text(conversion, "strategy");
    errors.needs_one_of(&path.child("strategy"), kind, &["None", "Webhook"]);
    let config = &conversion["webhook"]["clientConfig"];
    let at = path.child("webhookClientConfig");
    match (kind, config.is_null()) {
        ("None", false) => {
            errors.forbidden(&at, "should not be set when strategy is not set to Webhook");
        }
        ("Webhook", true) => errors.required(&at, "required when strategy is set to Webhook"),
        ("Webhook", false) => match (config.get("url").and_then(Value::as_str), tree::has(config, "service")) {
            (Some(url), false) => crate::check::net::webhook_url(errors, &at.child("url"), url),
            (None, true) => webhook::service(errors, &at.child("service"), &config["service"]),
            _ => errors.required(&at, "exactly one of url or service is required"),
        },
        _ => {}
    }
    let (versions, at) =
        (tree::list(&conversion["webhook"], "conversionReviewVersions"), path.child("conversionReviewVersions"));
    match (kind, versions.is_empty()) {
        ("Webhook", true) => errors.required(&at, ""),
        ("Webhook", false) => webhook::review_versions(errors, &at, versions),
        (_, false) => errors.forbidden(&at, "should not be set when strategy is not set to Webhook"),
        (_, true) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(schema: Value) -> Value {
        let mut object = json!({"metadata": {"name": "widgets.a.example.com"}, "spec": {
            "group": "a.example.com", "scope": "Namespaced", "names": {"kind": "Widget", "plural": "widgets"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        }});
        CustomResourceDefinition.default("apiextensions.k8s.io/v1", &mut object);
        CustomResourceDefinition.prepare_create(&mut object);
        object
    }

    #[test]
    fn defaults() {
        let object = definition(json!({"type": "object"}));
        assert_eq!(object["spec"]["names"]["singular"], "widget");
        assert_eq!(object["spec"]["names"]["listKind"], "WidgetList");
        assert_eq!(object["spec"]["conversion"], json!({"strategy": "None"}));
        assert_eq!(object["status"]["storedVersions"], json!(["v1"]));
        assert!(CustomResourceDefinition.validate(&object).is_empty());
    }

    #[test]
    fn schemas_are_structural() {
        let cases = [
            (json!({}), "spec.validation.openAPIV3Schema.type: Required value: must not be empty at the root"),
            (
                json!({"type": "object", "properties": {"a": {}}}),
                "spec.validation.openAPIV3Schema.properties[a].type: Required value: must not be empty for specified object \
                 fields",
            ),
            (
                json!({"type": "object", "properties": {"a": {"type": "array"}}}),
                "spec.validation.openAPIV3Schema.properties[a].items: Required value: must be specified",
            ),
            (
                json!({"type": "object", "properties": {"a": {"type": "string", "default": 5}}}),
                "spec.validation.openAPIV3Schema.properties[a].default: Invalid value: \"integer\":  in body must be of type \
                 string: \"integer\"",
            ),
        ];
        for (schema, expected) in cases {
            let found: Vec<_> =
                CustomResourceDefinition.validate(&definition(schema)).iter().map(ToString::to_string).collect();
            assert_eq!(found, [expected]);
        }
    }

    #[test]
    fn rules_are_told_beside_what_is_wrong_elsewhere() {
        let rule = json!([{"rule": "self.colour == 'red'"}]);
        let mut object = definition(json!({"type": "object", "properties": {"spec": {
            "type": "object", "properties": {"size": {"type": "integer"}}, "x-kubernetes-validations": rule,
        }}}));
        object["spec"]["versions"][0]["selectableFields"] = json!([{"jsonPath": ".spec.colour"}]);
        let fields = |object: &Value, old: Option<&Value>| -> Vec<String> {
            validate(object, old).iter().map(|error| error.field.to_string()).collect()
        };
        let schema = "spec.validation.openAPIV3Schema.properties[spec]";
        let rule = format!("{schema}.x-kubernetes-validations[0].rule");
        assert_eq!(fields(&object, None), [&*rule, "spec.selectableFields[0].jsonPath"]);
        // What was accepted once stays accepted, and a schema that is wrong otherwise is not compiled.
        assert_eq!(fields(&object, Some(&object)), ["spec.selectableFields[0].jsonPath"]);
        let properties = &mut object["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
        properties["spec"]["properties"]["size"] = json!({});
        let kind = format!("{schema}.properties[size].type");
        assert_eq!(fields(&object, None), [&*kind, "spec.selectableFields[0].jsonPath"]);
    }

    #[test]
    fn keys_of_lists_are_properties_of_their_items() {
        let list = |items: Value| {
            let list = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": items});
            let object = definition(json!({"type": "object", "properties": {"a": list}}));
            let found = validate(&object, None);
            found.iter().map(|error| format!("{}: {}", error.field, error.body)).collect::<Vec<_>>()
        };
        let at = "spec.validation.openAPIV3Schema.properties[a]";
        let missing = list(json!({"type": "object", "properties": {}}));
        let words = "Invalid value: [\"name\"]: entries must all be names of item properties";
        assert_eq!(missing, [format!("{at}.x-kubernetes-list-map-keys: {words}")]);
        let null = list(json!({"type": "object", "required": ["name"], "properties": {"name": null}}));
        let words = "Required value: must not be empty for specified object fields";
        assert_eq!(null, [format!("{at}.items.properties[name].type: {words}")]);
        let several = list(json!([]));
        let words = "Invalid value: {\"Schema\":null,\"JSONSchemas\":[]}: must only have a single schema if \
                     x-kubernetes-list-type is map";
        assert_eq!(several, [format!("{at}.items: Required value: must be specified"), format!("{at}.items: {words}")]);
    }

    #[test]
    fn one_version_is_stored() {
        let mut object = definition(json!({"type": "object"}));
        object["spec"]["versions"][0]["storage"] = json!(false);
        let found = CustomResourceDefinition.validate(&object);
        assert_eq!(found[0].field, "spec.versions");
        assert!(found[0].body.ends_with("must have exactly one version marked as storage version"));
    }
}

//! The versions of a definition, with their schemas, columns and subresources.
//!
//! Upstream keeps what all versions share at the top of the spec, and its messages name it there.

use super::schema;
use crate::{
    check::{Errors, Seen},
    tree,
};
use pintle_types::{field::Path, names};
use serde_json::Value;

/// Where the parts of one version are found in messages.
struct Places {
    schema: Path,
    columns: Path,
    subresources: Path,
    selectable: Path,
}

/// All versions.
pub(super) fn validate_all(errors: &mut Errors, path: &Path, spec: &Value, old: Option<&Value>) {
    let versions = tree::list(spec, "versions");
    let at = path.child("versions");
    let mut seen = Seen::default();
    let mut unique = true;
    for (i, version) in versions.iter().enumerate() {
        let name = tree::text(version, "name");
        unique &= seen.first(name);
        if version["schema"]["openAPIV3Schema"].is_null() {
            errors.required(&at.index(i).child("schema").child("openAPIV3Schema"), "");
        }
        errors.invalid_for(&at.index(i).child("name"), name, names::dns1035_label_errors(name));
        if let Some(warning) = version.get("deprecationWarning").and_then(Value::as_str) {
            let at = at.index(i).child("deprecationWarning");
            deprecation(errors, &at, warning, tree::flag(version, "deprecated"));
        }
    }
    let shared = |field: &str| versions.windows(2).all(|pair| pair[0].get(field) == pair[1].get(field));
    storage_and_names(errors, &at, spec, unique, &shared);
    if let Some(first) = versions.first().map(|version| tree::text(version, "name")).filter(|name| !name.is_empty()) {
        errors.invalid_for(&path.child("version"), first, names::dns1035_label_errors(first));
    }
    let all_shared = ["schema", "additionalPrinterColumns", "subresources", "selectableFields"].map(shared);
    for (i, version) in versions.iter().enumerate() {
        let own = at.index(i);
        let place = |shared: bool, name: &str, top: &str| if shared { path.child(top) } else { own.child(name) };
        let places = Places {
            schema: place(all_shared[0], "schema", "validation").child("openAPIV3Schema"),
            columns: place(all_shared[1], "additionalPrinterColumns", "additionalPrinterColumns"),
            subresources: place(all_shared[2], "subresources", "subresources"),
            selectable: place(all_shared[3], "selectableFields", "selectableFields"),
        };
        // What is shared is checked once.
        let fresh = |shared: bool| i == 0 || !shared;
        validate_one(errors, &places, version, all_shared.map(fresh), old);
    }
}

fn deprecation(errors: &mut Errors, at: &Path, warning: &str, deprecated: bool) {
    const LONGEST: usize = 256;
    if !deprecated {
        return errors.invalid(at, warning, "can only be set for deprecated versions");
    }
    if warning.len() > LONGEST {
        errors.invalid(at, warning, &format!("must be <= {LONGEST} characters long"));
    }
    if warning.is_empty() {
        errors.invalid(at, warning, "must not be an empty string");
    }
    if let Some((index, _)) = warning.char_indices().find(|(_, letter)| letter.is_control()) {
        let words =
            format!("must only contain printable UTF-8 characters; non-printable character found at index {index}");
        errors.invalid(at, warning, &words);
    }
}

fn storage_and_names(errors: &mut Errors, at: &Path, spec: &Value, unique: bool, shared: &dyn Fn(&str) -> bool) {
    let versions = tree::list(spec, "versions");
    let shown = || match spec.get("versions") {
        None | Some(Value::Null) => "null".to_owned(),
        Some(_) => {
            let list: Vec<String> = versions.iter().map(|version| version_shown(version, shared)).collect();
            format!("[{}]", list.join(","))
        }
    };
    if !unique {
        errors.invalid_shown(at, &shown(), "must contain unique version names");
    }
    if super::storage_versions(spec).count() != 1 {
        errors.invalid_shown(at, &shown(), "must have exactly one version marked as storage version");
    }
}

/// A version as Go prints it, without what is kept at the top.
fn version_shown(version: &Value, shared: &dyn Fn(&str) -> bool) -> String {
    let own = |field: &str| match shared(field) || version.get(field).is_none() {
        true => "null".to_owned(),
        false => version[field].to_string(),
    };
    let warning = version.get("deprecationWarning").map_or("null".to_owned(), Value::to_string);
    format!(
        "{{\"Name\":{},\"Served\":{},\"Storage\":{},\"Deprecated\":{},\"DeprecationWarning\":{warning},\"Schema\":{},\
         \"Subresources\":{},\"AdditionalPrinterColumns\":{},\"SelectableFields\":{}}}",
        Value::from(tree::text(version, "name")),
        tree::flag(version, "served"),
        tree::flag(version, "storage"),
        tree::flag(version, "deprecated"),
        own("schema"),
        own("subresources"),
        own("additionalPrinterColumns"),
        own("selectableFields"),
    )
}

fn validate_one(errors: &mut Errors, places: &Places, version: &Value, fresh: [bool; 4], old: Option<&Value>) {
    let root = &version["schema"]["openAPIV3Schema"];
    if fresh[0] && root.is_object() {
        let before = errors.0.len();
        schema::validate(errors, &places.schema, root);
        if errors.0.len() == before {
            rules(errors, &places.schema, version, old);
        }
    }
    if fresh[2] {
        subresources(errors, &places.subresources, &version["subresources"]);
    }
    if fresh[1] {
        for (i, column) in tree::list(version, "additionalPrinterColumns").iter().enumerate() {
            validate_column(errors, &places.columns.index(i), column);
        }
    }
    if fresh[3] {
        selectable(errors, &places.selectable, tree::list(version, "selectableFields"), root);
    }
}

/// The rules of a schema in which nothing else is wrong, unless it is as it was: then they were accepted before.
fn rules(errors: &mut Errors, at: &Path, version: &Value, old: Option<&Value>) {
    let before = old.into_iter().flat_map(|old| tree::list(old, "versions")).find(|v| v["name"] == version["name"]);
    if before.is_none_or(|before| before["schema"] != version["schema"]) {
        let schema = &version["schema"]["openAPIV3Schema"];
        errors.0.extend(pintle_cel::rules::check_definition(schema, at, Default::default()));
    }
}

fn is_simple_path(text: &str) -> bool {
    text.starts_with('.')
}

fn subresources(errors: &mut Errors, path: &Path, subresources: &Value) {
    let scale = &subresources["scale"];
    if scale.is_null() {
        return;
    }
    let at = path.child("scale");
    for (field, under) in [("specReplicasPath", ".spec"), ("statusReplicasPath", ".status")] {
        let text = tree::text(scale, field);
        if !errors.needs(&at.child(field), text, "") {
            continue;
        }
        if !is_simple_path(text) {
            errors.invalid(&at.child(field), text, "must be a simple json path starting with .");
        } else if !text.starts_with(&format!("{under}.")) {
            errors.invalid(&at.child(field), text, &format!("should be a json path under {under}"));
        }
    }
    if let Some(text) = scale.get("labelSelectorPath").and_then(Value::as_str).filter(|text| !text.is_empty()) {
        if !is_simple_path(text) {
            errors.invalid(&at.child("labelSelectorPath"), text, "must be a simple json path starting with .");
        } else if !text.starts_with(".spec.") && !text.starts_with(".status.") {
            errors.invalid(&at.child("labelSelectorPath"), text, "should be a json path under either .spec or .status");
        }
    }
}

fn validate_column(errors: &mut Errors, at: &Path, column: &Value) {
    const TYPES: &[&str] = &["boolean", "date", "integer", "number", "string"];
    const FORMATS: &[&str] = &["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
    let text = |key| tree::text(column, key);
    errors.needs(&at.child("name"), text("name"), "");
    if errors.needs(&at.child("type"), text("type"), &format!("must be one of {}", TYPES.join(",")))
        && !TYPES.contains(&text("type"))
    {
        errors.invalid(&at.child("type"), text("type"), &format!("must be one of {}", TYPES.join(",")));
    }
    let format = text("format");
    if !format.is_empty() && !FORMATS.contains(&format) {
        errors.invalid(&at.child("format"), format, &format!("must be one of {}", FORMATS.join(",")));
    }
    let path = text("jsonPath");
    if errors.needs(&at.child("JSONPath"), path, "") && !is_simple_path(path) {
        errors.invalid(&at.child("JSONPath"), path, "must be a simple json path starting with .");
    }
}

fn selectable(errors: &mut Errors, path: &Path, fields: &[Value], root: &Value) {
    const MAX: usize = 8;
    if fields.is_empty() {
        return;
    }
    if root.is_null() {
        return errors.invalid(path, "", "may only be set when validations.schema is included");
    }
    if fields.len() > MAX {
        errors.too_many(path, fields.len(), MAX);
    }
    let mut seen = Seen::default();
    for (i, field) in fields.iter().enumerate() {
        let at = path.index(i).child("jsonPath");
        let text = tree::text(field, "jsonPath");
        if !errors.needs(&at, text, "") {
            continue;
        }
        if !text.starts_with('.') {
            errors.invalid(&at, text, &format!("is an invalid path: expected [ or . but got: {text}"));
        } else {
            selectable_target(errors, &at, text, root);
        }
        if !seen.first(text) {
            errors.duplicate(&at, text);
        }
    }
}

fn selectable_target(errors: &mut Errors, at: &Path, text: &str, root: &Value) {
    let mut node = root;
    for part in text.trim_start_matches('.').split('.') {
        node = &node["properties"][part];
        if node.is_null() {
            return errors.invalid(at, text, "is an invalid path: does not refer to a valid field");
        }
    }
    if text == ".metadata" || text.starts_with(".metadata.") {
        return errors.invalid(at, text, "must not point to fields in metadata");
    }
    if !["string", "boolean", "integer"].contains(&tree::text(node, "type")) {
        let words = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats \
                     are allowed.";
        errors.invalid(at, text, words);
    }
}

//! The schemas of a document: those of its resources and all that they refer to.

use super::descriptions::{Described, Descriptions};
use super::json::Json;
use super::{Dialect, Resource, swagger};
use crate::{FieldRef, ListType, Print, Schema, Shape, TypeRef};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const RAW: &str = "io.k8s.apimachinery.pkg.runtime.RawExtension";
const JSON_VALUE: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON";

/// What every document has, beside the kinds of its resources.
const ALWAYS: [&str; 6] = ["APIResourceList", "DeleteOptions", "ListMeta", "Patch", "Status", "WatchEvent"];

/// The name of a kind's definition.
pub(super) fn name_of(resource: &Resource) -> String {
    match resource.ty.name() {
        "" => format!("{}.{}.{}", resource.group, resource.version, resource.kind),
        name => name.to_owned(),
    }
}

pub(super) fn write(json: &mut Json, dialect: Dialect, resources: &[Resource], descriptions: &Descriptions<'_>) {
    let schema = Schema::builtin();
    let mut names: BTreeSet<String> = BTreeSet::new();
    let mut todo: Vec<String> = ALWAYS.iter().map(|name| format!("{META}.{name}")).collect();
    let mut custom: BTreeMap<String, &Resource> = BTreeMap::new();
    for resource in resources {
        let name = name_of(resource);
        if resource.ty.digest().is_some() {
            custom.insert(name, resource);
            todo.push(format!("{META}.ObjectMeta"));
        } else {
            todo.extend([format!("{name}List"), name]);
        }
        let of_subresource = |group: &str, version: &str, kind: &str| schema.kind(group, version, kind);
        let others = resource.subresources.iter().filter_map(|sub| of_subresource(&sub.group, &sub.version, &sub.kind));
        todo.extend(others.map(|ty| ty.name().to_owned()));
    }
    while let Some(name) = todo.pop() {
        if !names.contains(&name) && (is_scalar(&name) || schema.definition(&name).is_some()) {
            if let Some(ty) = schema.definition(&name) {
                ty.fields().for_each(|field| references(&field, field.ty(), &mut todo));
            }
            names.insert(name);
        }
    }
    for name in &names {
        json.key(name).object(|json| definition(json, dialect, name, descriptions.get(name)));
    }
    for (name, resource) in custom {
        custom_definition(json, dialect, &name, resource);
    }
}

/// Definitions that are no structs.
fn is_scalar(name: &str) -> bool {
    matches!(name, QUANTITY | INT_OR_STRING | RAW | JSON_VALUE)
        || name.strip_prefix(META).is_some_and(|name| matches!(name, ".Time" | ".MicroTime" | ".FieldsV1"))
}

/// The definitions that a type names.
fn references(field: &FieldRef<'_>, ty: TypeRef<'_>, found: &mut Vec<String>) {
    match ty.shape() {
        Shape::Map { value, .. } => references(field, value, found),
        Shape::List { item, .. } => references(field, item, found),
        _ => found.extend(reference(field, ty)),
    }
}

/// The definition that stands for a type; none for plain scalars.
fn reference(field: &FieldRef<'_>, ty: TypeRef<'_>) -> Option<String> {
    let name = match ty.shape() {
        Shape::Object { .. } => return Some(ty.name().to_owned()),
        Shape::Quantity => QUANTITY.to_owned(),
        Shape::IntOrString => INT_OR_STRING.to_owned(),
        Shape::Time => format!("{META}.Time"),
        Shape::MicroTime => format!("{META}.MicroTime"),
        Shape::Any if field.name() == "fieldsV1" => format!("{META}.FieldsV1"),
        Shape::Any if field.go_type().ends_with("RawExtension") => RAW.to_owned(),
        Shape::Any if field.go_type().ends_with(".JSON") => JSON_VALUE.to_owned(),
        _ => return None,
    };
    Some(name)
}

fn definition(json: &mut Json, dialect: Dialect, name: &str, described: Described<'_>) {
    if let Some(text) = described.own() {
        json.key("description").raw(text);
    }
    if is_scalar(name) {
        return scalar_definition(json, dialect, name);
    }
    let Some(ty) = Schema::builtin().definition(name) else { return };
    if ty.fields().next().is_some() {
        json.key("properties").object(|json| {
            for field in ty.fields() {
                json.key(field.name()).object(|json| property(json, dialect, &field, described.field(field.name())));
            }
        });
    }
    if ty.fields().any(|field| field.required()) {
        let required = ty.fields().filter(|field| field.required());
        json.key("required").strings(required.map(|field| field.name()));
    }
    json.key("type").string("object");
    let Some(declared) = ty.declared() else { return };
    if declared.atomic {
        json.key("x-kubernetes-map-type").string("atomic");
    }
    if !declared.kinds.is_empty() {
        json.key("x-kubernetes-group-version-kind").array(|json| {
            for kind in &declared.kinds {
                match kind.rsplitn(3, '/').collect::<Vec<_>>()[..] {
                    [kind, version, group] => group_version_kind(json, group, version, kind),
                    // Meta kinds are known in every group; clients only need to see that they are kinds.
                    _ => group_version_kind(json, "", "v1", name.rsplit('.').next().unwrap_or_default()),
                }
            }
        });
    }
    if let Some(unions) = &declared.unions {
        json.key("x-kubernetes-unions").raw(unions);
    }
}

pub(super) fn group_version_kind(json: &mut Json, group: &str, version: &str, kind: &str) {
    json.object(|json| {
        json.key("group").string(group);
        json.key("kind").string(kind);
        json.key("version").string(version);
    });
}

fn scalar_definition(json: &mut Json, dialect: Dialect, name: &str) {
    let one_of = |json: &mut Json, types: [&str; 2]| match dialect {
        Dialect::V3 => json.key("oneOf").array(|json| {
            types.iter().for_each(|name| json.object(|json| json.key("type").string(name)));
        }),
        Dialect::V2 => json.key("type").string("string"),
    };
    match name {
        QUANTITY => one_of(json, ["string", "number"]),
        INT_OR_STRING => {
            json.key("format").string("int-or-string");
            one_of(json, ["integer", "string"]);
        }
        JSON_VALUE => {}
        _ if name.ends_with("Time") => {
            json.key("format").string("date-time");
            json.key("type").string("string");
        }
        _ => json.key("type").string("object"),
    }
}

fn property(json: &mut Json, dialect: Dialect, field: &FieldRef<'_>, description: Option<&str>) {
    let always = field.print() == Print::Always;
    match (dialect, reference(field, field.ty())) {
        (Dialect::V3, Some(name)) => {
            json.key("allOf").array(|json| refer(json, dialect, &name));
            if let Some(default) = field.default() {
                json.key("default").raw(&default.to_string());
            } else if always && matches!(field.ty().shape(), Shape::Object { .. }) {
                json.key("default").raw("{}");
            }
        }
        (Dialect::V2, Some(name)) => json.key("$ref").string(&dialect.reference(&name)),
        (_, None) => plain(json, dialect, field, field.ty(), always),
    }
    if let Some(text) = description {
        json.key("description").raw(text);
    }
    if !field.enum_values().is_empty() {
        json.key("enum").raw(&Value::from(field.enum_values().to_vec()).to_string());
    }
    extensions(json, field);
}

fn refer(json: &mut Json, dialect: Dialect, name: &str) {
    json.object(|json| json.key("$ref").string(&dialect.reference(name)));
}

/// The keywords of a type that is no definition.
fn plain(json: &mut Json, dialect: Dialect, field: &FieldRef<'_>, ty: TypeRef<'_>, always: bool) {
    let zero = match ty.shape() {
        Shape::String => "\"\"",
        Shape::Int32 | Shape::Int64 | Shape::Number => "0",
        Shape::Bool => "false",
        _ => "",
    };
    match field.default() {
        Some(default) if !matches!(ty.shape(), Shape::List { .. } | Shape::Map { .. }) => {
            json.key("default").raw(&default.to_string());
        }
        _ if always && !zero.is_empty() && dialect == Dialect::V3 => json.key("default").raw(zero),
        _ => {}
    }
    let mut typed = |name: &str, format: &str| {
        if !format.is_empty() {
            json.key("format").string(format);
        }
        json.key("type").string(name);
    };
    match ty.shape() {
        Shape::String => typed("string", ""),
        Shape::Int32 => typed("integer", "int32"),
        Shape::Int64 => typed("integer", "int64"),
        Shape::Number => typed("number", "double"),
        Shape::Bool => typed("boolean", ""),
        Shape::Bytes => typed("string", "byte"),
        Shape::Map { value, .. } => {
            typed("object", "");
            json.key("additionalProperties").object(|json| inner(json, dialect, field, value));
        }
        Shape::List { item, .. } => {
            typed("array", "");
            json.key("items").object(|json| inner(json, dialect, field, item));
        }
        _ => {}
    }
}

/// The type of list items and map values.
fn inner(json: &mut Json, dialect: Dialect, field: &FieldRef<'_>, ty: TypeRef<'_>) {
    match (dialect, reference(field, ty)) {
        (Dialect::V3, Some(name)) => {
            json.key("allOf").array(|json| refer(json, dialect, &name));
            if matches!(ty.shape(), Shape::Object { .. }) {
                json.key("default").raw("{}");
            }
        }
        (Dialect::V2, Some(name)) => json.key("$ref").string(&dialect.reference(&name)),
        (_, None) => plain(json, dialect, field, ty, true),
    }
}

fn extensions(json: &mut Json, field: &FieldRef<'_>) {
    if field.get().stated {
        match field.ty().shape() {
            Shape::List { list_type, keys, .. } => {
                if !keys.is_empty() {
                    json.key("x-kubernetes-list-map-keys").strings(keys.iter().map(|key| &**key));
                }
                let name = match list_type {
                    ListType::Atomic => "atomic",
                    ListType::Set => "set",
                    ListType::Map => "map",
                };
                json.key("x-kubernetes-list-type").string(name);
            }
            _ => json.key("x-kubernetes-map-type").string("atomic"),
        }
    }
    if let Some(key) = field.patch_merge_key() {
        json.key("x-kubernetes-patch-merge-key").string(key);
    }
    let strategy = field.patch_strategy();
    let name = match (strategy.merge, strategy.retain_keys) {
        (true, true) => "merge,retainKeys",
        (true, false) => "merge",
        (false, true) => "retainKeys",
        (false, false) => return,
    };
    json.key("x-kubernetes-patch-strategy").string(name);
}

/// A custom resource's schema as it was given, with what every object has.
fn custom_definition(json: &mut Json, dialect: Dialect, name: &str, resource: &Resource) {
    let mut schema = resource.ty.source_once().map(Cow::into_owned).unwrap_or_default();
    if dialect == Dialect::V2 {
        swagger::simplify(&mut schema, 0);
    }
    if !schema.is_object() {
        schema = serde_json::json!({"type": "object"});
    }
    let text = |description: &str| serde_json::json!({"type": "string", "description": description});
    let api_version = text("The version of the schema of this object, with its group.");
    let kind = text("The kind of this object.");
    let reference = dialect.reference(&format!("{META}.ObjectMeta"));
    let metadata = match dialect {
        Dialect::V3 => {
            serde_json::json!({"allOf": [{"$ref": reference}], "description": "Standard object's metadata."})
        }
        Dialect::V2 => serde_json::json!({"$ref": reference, "description": "Standard object's metadata."}),
    };
    schema["properties"]["apiVersion"] = api_version.clone();
    schema["properties"]["kind"] = kind.clone();
    schema["properties"]["metadata"] = metadata;
    let Resource { group, version, kind: kind_name, .. } = resource;
    schema["x-kubernetes-group-version-kind"] =
        serde_json::json!([{"group": group, "kind": kind_name, "version": version}]);
    json.key(name).raw(&schema.to_string());
    let list = serde_json::json!({
        "description": format!("{kind_name}List is a list of {kind_name}"),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": api_version,
            "kind": kind,
            "metadata": {"$ref": dialect.reference(&format!("{META}.ListMeta"))},
            "items": {"type": "array", "items": {"$ref": dialect.reference(name)}},
        },
        "x-kubernetes-group-version-kind": [{"group": group, "kind": format!("{kind_name}List"), "version": version}],
    });
    json.key(&format!("{name}List")).raw(&list.to_string());
}

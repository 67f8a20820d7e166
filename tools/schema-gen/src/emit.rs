//! Merges the tables into the two texts. The form of the structure is described in crates/api/schema/src/load.rs.

use crate::golang::{GoField, GoFields};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt::Write;

/// What is known of every definition, by its full name.
pub struct Tables {
    pub schemas: Map<String, Value>,
    pub extensions: Value,
    pub defaults: Value,
    pub go_fields: GoFields,
}

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

impl Tables {
    /// The structure and the descriptions.
    pub fn emit(mut self) -> (String, String) {
        self.add_lists();
        self.add_structs();
        let (mut structure, mut descriptions) = (String::new(), String::new());
        for (name, schema) in &self.schemas {
            self.definition(name, schema, &mut structure);
            describe(name, schema, &mut descriptions);
        }
        (structure, descriptions)
    }

    /// Lists of kinds: k8s-openapi has one generic type for all of them.
    fn add_lists(&mut self) {
        let lists: Vec<String> = self.extensions.as_object().into_iter().flat_map(|m| m.keys()).cloned().collect();
        for name in lists {
            let Some(item) = name.strip_suffix("List") else { continue };
            if self.schemas.contains_key(&name) || !self.schemas.contains_key(item) {
                continue;
            }
            let kind = item.rsplit('.').next().unwrap_or(item);
            self.schemas.insert(name.clone(), list_schema(item, kind));
        }
    }

    /// Structs that k8s-openapi lacks, from their Go fields, without descriptions.
    fn add_structs(&mut self) {
        let names: Vec<String> = self.extensions.as_object().into_iter().flat_map(|m| m.keys()).cloned().collect();
        for name in names {
            if self.schemas.contains_key(&name) {
                continue;
            }
            let Some(fields) = self.go_fields.get(&name) else {
                println!("no source for {name}");
                continue;
            };
            let properties: Map<String, Value> =
                fields.iter().map(|(field, go)| (field.clone(), go_schema(&go.ty))).collect();
            println!("from Go fields: {name}");
            self.schemas.insert(name, serde_json::json!({"type": "object", "properties": properties}));
        }
    }

    fn definition(&self, name: &str, schema: &Value, out: &mut String) {
        let extension = &self.extensions[name];
        let mut line = name.to_owned();
        if extension["map-type"] == "atomic" {
            line.push_str(" atomic");
        }
        let kinds: Vec<&str> = strings(&extension["gvk"]).collect();
        match kinds[..] {
            // DeleteOptions and WatchEvent are known in every group.
            [_, _, _, ..] => line.push_str(" gvk=*"),
            _ => kinds.iter().for_each(|gvk| line.extend([" gvk=", gvk])),
        }
        if schema["properties"].is_null() {
            write!(line, " is={}", scalar_definition(name, schema)).ok();
        }
        if let Some(unions) = extension.get("unions") {
            write!(line, " unions={}", compact(unions)).ok();
        }
        writeln!(out, "{line}").ok();
        let fields: BTreeMap<&String, &Value> = schema["properties"].as_object().into_iter().flatten().collect();
        for (field, property) in fields {
            self.field(name, field, property, out);
        }
    }

    fn field(&self, definition: &str, field: &str, property: &Value, out: &mut String) {
        let extension = &self.extensions[definition]["fields"][field];
        let default = &self.defaults[definition][field];
        let mut line = format!(" {field} {}", type_of(property));
        if strings(&self.extensions[definition]["required"]).any(|name| name == field) {
            line.push_str(" req");
        }
        if extension["map-type"] == "atomic" {
            line.push_str(" atomic");
        }
        match extension["list-type"].as_str() {
            Some("set") => line.push_str(" set"),
            Some("map") => {
                let keys: Vec<&str> = strings(&extension["list-map-keys"]).collect();
                write!(line, " map={}", keys.join(",")).ok();
            }
            Some("atomic") => line.push_str(" list"),
            _ => {}
        }
        if let Some(strategy) = extension["patch-strategy"].as_str() {
            write!(line, " patch={strategy}").ok();
        }
        if let Some(key) = extension["patch-merge-key"].as_str() {
            write!(line, " key={key}").ok();
        }
        if let Some(value) = default.get("default") {
            write!(line, " default={}", compact(value)).ok();
        }
        if let Some(value) = default.get("enum") {
            write!(line, " enum={}", compact(value)).ok();
        }
        self.go_facts(definition, field, property, &mut line);
        writeln!(out, "{line}").ok();
    }

    /// How the field prints, and the name of its Go type where the type alone does not say it.
    fn go_facts(&self, definition: &str, field: &str, property: &Value, line: &mut String) {
        let Some(go) = self.go_fields.get(definition).and_then(|fields| fields.get(field)) else { return };
        let GoField { ty: name, is_struct, pointer, omit_empty, omit_zero, via } = go;
        let print = match (pointer, omit_empty) {
            _ if *omit_zero => " zero",
            (true, true) => " ptr",
            (true, false) => " nil",
            (false, true) if !is_struct => "",
            (false, _) => " always",
        };
        line.push_str(print);
        if !via.is_empty() && via != "TypeMeta" {
            write!(line, " via={via}").ok();
        }
        // Of these, which may be a schema or something else, only the name says what they are.
        let either = name.contains("JSONSchemaPropsOr");
        if (either || *name != go_name(&type_of(property))) && !name.is_empty() {
            write!(line, " go={name}").ok();
        }
    }
}

/// The Go name that follows from a type.
fn go_name(ty: &str) -> String {
    if let Some(item) = ty.strip_prefix("[]") {
        return format!("[]{}", go_name(item));
    }
    if let Some(value) = ty.strip_prefix("{}") {
        return format!("map[string]{}", go_name(value));
    }
    match ty {
        "number" => "float64".into(),
        "bytes" => "[]uint8".into(),
        "quantity" => "resource.Quantity".into(),
        "intorstring" => "intstr.IntOrString".into(),
        "time" => "v1.Time".into(),
        "microtime" => "v1.MicroTime".into(),
        "fields" => "v1.FieldsV1".into(),
        _ => match ty.rsplit('.').take(2).collect::<Vec<_>>()[..] {
            [name, package] => format!("{package}.{name}"),
            _ => ty.into(),
        },
    }
}

/// The type of a property in the words of the structure file.
fn type_of(property: &Value) -> String {
    if let Some(reference) = reference(property) {
        return match reference {
            "io.k8s.apimachinery.pkg.api.resource.Quantity" => "quantity".into(),
            "io.k8s.apimachinery.pkg.util.intstr.IntOrString" => "intorstring".into(),
            "io.k8s.apimachinery.pkg.apis.meta.v1.Time" => "time".into(),
            "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime" => "microtime".into(),
            "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1" => "fields".into(),
            "io.k8s.apimachinery.pkg.runtime.RawExtension" => "any".into(),
            "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON" => "any".into(),
            _ => reference.to_owned(),
        };
    }
    match (property["type"].as_str(), property["format"].as_str()) {
        (Some("array"), _) => format!("[]{}", type_of(&property["items"])),
        (Some("object"), _) if property["additionalProperties"].is_object() => {
            format!("{{}}{}", type_of(&property["additionalProperties"]))
        }
        (Some("string"), Some("byte")) => "bytes".into(),
        (Some("string"), Some("date-time")) => "time".into(),
        (Some("string"), _) => "string".into(),
        (Some("integer"), Some("int64")) => "int64".into(),
        (Some("integer"), _) => "int32".into(),
        (Some("number"), _) => "number".into(),
        (Some("boolean"), _) => "bool".into(),
        _ => "any".into(),
    }
}

/// What a definition without properties stands for.
fn scalar_definition(name: &str, schema: &Value) -> String {
    match type_of(&serde_json::json!({"$ref": format!("#/components/schemas/{name}")})) {
        ty if ty != name => ty,
        _ if schema["type"] == "object" && schema["additionalProperties"].is_null() => "struct".into(),
        _ => type_of(schema),
    }
}

fn reference(property: &Value) -> Option<&str> {
    let nested = property["allOf"].get(0).or_else(|| property["anyOf"].get(0));
    let text = property["$ref"].as_str().or_else(|| nested?["$ref"].as_str())?;
    text.rsplit('/').next()
}

fn list_schema(item: &str, kind: &str) -> Value {
    let text = |description: &str| serde_json::json!({"type": "string", "description": description});
    serde_json::json!({
        "type": "object",
        "description": format!("{kind}List is a list of {kind} objects."),
        "properties": {
            "apiVersion": text("APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources"),
            "kind": text("Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds"),
            "metadata": {"$ref": format!("#/components/schemas/{META}ListMeta"), "description": "Standard list metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds"},
            "items": {"type": "array", "description": "The objects of the list.", "items": {"$ref": format!("#/components/schemas/{item}")}},
        },
    })
}

/// A schema from a Go type, for the few structs that have no other source.
fn go_schema(name: &str) -> Value {
    if let Some(item) = name.strip_prefix("[]") {
        return serde_json::json!({"type": "array", "items": go_schema(item)});
    }
    if let Some((_, value)) = name.strip_prefix("map[").and_then(|rest| rest.split_once(']')) {
        return serde_json::json!({"type": "object", "additionalProperties": go_schema(value)});
    }
    let scalar = |ty: &str, format: &str| serde_json::json!({"type": ty, "format": format});
    match name {
        "int32" => scalar("integer", "int32"),
        "int64" => scalar("integer", "int64"),
        "bool" => serde_json::json!({"type": "boolean"}),
        "runtime.RawExtension" => serde_json::json!({}),
        "v1.Time" => scalar("string", "date-time"),
        "v1.ListMeta" | "v1.ObjectMeta" | "v1.LabelSelector" | "v1.Condition" => {
            serde_json::json!({"$ref": format!("#/components/schemas/{META}{}", &name[3..])})
        }
        _ => serde_json::json!({"type": "string"}),
    }
}

/// Descriptions: `name`, then for every field ` field`, each with a tab and its text as a JSON string.
fn describe(name: &str, schema: &Value, out: &mut String) {
    let text = |value: &Value| Value::String(value["description"].as_str().unwrap_or_default().into()).to_string();
    writeln!(out, "{name}\t{}", text(schema)).ok();
    let fields: BTreeMap<&String, &Value> = schema["properties"].as_object().into_iter().flatten().collect();
    for (field, property) in fields {
        writeln!(out, " {field}\t{}", text(property)).ok();
    }
}

fn strings(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// JSON without a space, so that a line splits at spaces.
fn compact(value: &Value) -> String {
    value.to_string().replace(' ', "\\u0020")
}

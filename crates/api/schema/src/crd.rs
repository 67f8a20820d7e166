//! Schemas of custom resources: the structure from an `openAPIV3Schema`.

use crate::model::{Definition, Extra, Field, ListType, Node, Scalar, Schema, SchemaError, Text};
use serde_json::{Map, Value};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
/// Deeper schemas are refused: they come from outside.
const MAX_DEPTH: usize = 128;

/// The schema of one version of a custom resource. The last node is the kind.
pub(crate) fn build(group: &str, version: &str, kind: &str, source: &Value) -> Result<Schema, SchemaError> {
    let mut schema = Schema { nodes: Scalar::ALL.map(Node::Scalar).to_vec(), ..Schema::default() };
    let name = definition_name(group, version, kind);
    let mut builder = Builder { schema: &mut schema, path: String::new(), depth: 0 };
    let node = builder.object(source, true, &name)?;
    schema.nodes.push(schema.nodes[node as usize].clone());
    let root = schema.nodes.len() as u32 - 1;
    schema.kinds.insert(Text::Owned(format!("{group}/{version}/{kind}")), root);
    schema.by_name.insert(Text::Owned(name), root);
    schema.custom = true;
    Ok(schema)
}

/// `com.example.v1.Widget` for `Widget` of `example.com/v1`.
pub(crate) fn definition_name(group: &str, version: &str, kind: &str) -> String {
    let reversed: Vec<&str> = group.rsplit('.').collect();
    format!("{}.{version}.{kind}", reversed.join("."))
}

struct Builder<'a> {
    schema: &'a mut Schema,
    path: String,
    depth: usize,
}

impl Builder<'_> {
    fn error(&self, message: &str) -> SchemaError {
        SchemaError { path: self.path.clone(), message: message.to_owned() }
    }

    /// Goes one step deeper, with the step's name in the path of errors.
    fn below(&mut self, step: &str, source: &Value) -> Result<u32, SchemaError> {
        let length = self.path.len();
        if length > 0 {
            self.path.push('.');
        }
        self.path.push_str(step);
        self.depth += 1;
        let node =
            if self.depth > MAX_DEPTH { Err(self.error("the schema is nested too deeply")) } else { self.node(source) };
        self.depth -= 1;
        self.path.truncate(length);
        node
    }

    fn node(&mut self, source: &Value) -> Result<u32, SchemaError> {
        let flag = |name: &str| source[name] == true;
        if flag("x-kubernetes-int-or-string") {
            return Ok(Scalar::IntOrString.node());
        }
        match source["type"].as_str() {
            Some("object") => self.object(source, flag("x-kubernetes-embedded-resource"), ""),
            Some("array") => self.list(source),
            Some("string") => Ok(Scalar::String.node()),
            Some("integer") => Ok(Scalar::Int64.node()),
            Some("number") => Ok(Scalar::Number.node()),
            Some("boolean") => Ok(Scalar::Bool.node()),
            None if flag("x-kubernetes-embedded-resource") => self.object(source, true, ""),
            None => Ok(Scalar::Any.node()),
            Some(other) => Err(self.error(&format!("the type {other:?} is unknown"))),
        }
    }

    fn push(&mut self, node: Node) -> u32 {
        self.schema.nodes.push(node);
        self.schema.nodes.len() as u32 - 1
    }

    fn list(&mut self, source: &Value) -> Result<u32, SchemaError> {
        let item = self.below("items", &source["items"])?;
        let list_type = match source["x-kubernetes-list-type"].as_str() {
            Some("set") => ListType::Set,
            Some("map") => ListType::Map,
            _ => ListType::Atomic,
        };
        let keys = source["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
        let keys = keys.filter_map(Value::as_str).map(Into::into).collect();
        Ok(self.push(Node::List { item, list_type, keys }))
    }

    fn object(&mut self, source: &Value, resource: bool, name: &str) -> Result<u32, SchemaError> {
        let atomic = source["x-kubernetes-map-type"] == "atomic";
        let properties = source["properties"].as_object();
        let additional = &source["additionalProperties"];
        if properties.is_none_or(Map::is_empty) && (additional.is_object() || *additional == true) && !resource {
            let value = if additional.is_object() {
                self.below("additionalProperties", additional)?
            } else {
                Scalar::Any.node()
            };
            return Ok(self.push(Node::Map { value, atomic }));
        }
        let open = source["x-kubernetes-preserve-unknown-fields"] == true;
        if open && properties.is_none_or(Map::is_empty) && !resource && !atomic {
            return Ok(Scalar::Any.node());
        }
        let mut fields = Vec::new();
        for (name, property) in properties.into_iter().flatten() {
            if !(resource && matches!(name.as_str(), "apiVersion" | "kind" | "metadata")) {
                fields.push(self.field(name, property, source)?);
            }
        }
        if resource {
            fields.extend(meta_fields(self));
        }
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        let start = self.schema.fields.len() as u32;
        self.schema.fields.extend(fields);
        let definition = Definition {
            name: Text::Owned(name.to_owned()),
            fields: start..self.schema.fields.len() as u32,
            open,
            atomic,
            ..Definition::default()
        };
        self.schema.definitions.push(definition);
        let definition = self.schema.definitions.len() as u32 - 1;
        Ok(self.push(Node::Object { definition, atomic }))
    }

    fn field(&mut self, name: &str, property: &Value, parent: &Value) -> Result<Field, SchemaError> {
        let node = self.below(&format!("properties[{name}]"), property)?;
        let required = parent["required"].as_array().is_some_and(|names| names.iter().any(|n| n == name));
        let default = property.get("default").cloned();
        let enum_values = property["enum"].as_array().cloned().unwrap_or_default();
        let extra = (default.is_some() || !enum_values.is_empty())
            .then(|| Box::new(Extra { default, enum_values, ..Extra::default() }));
        Ok(Field { name: Text::Owned(name.to_owned()), node, required, extra, ..Field::default() })
    }
}

/// The fields that every resource has.
fn meta_fields(builder: &mut Builder<'_>) -> Vec<Field> {
    let meta = Schema::builtin().by_name[META];
    let meta = builder.push(Node::Builtin(meta));
    let field = |name: &'static str, node| Field { name: Text::Borrowed(name), node, ..Field::default() };
    vec![field("apiVersion", Scalar::String.node()), field("kind", Scalar::String.node()), field("metadata", meta)]
}

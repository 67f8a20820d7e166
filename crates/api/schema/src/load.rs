//! Reads the table of built-in types.
//!
//! A line without indent is a definition: its full name, then words: `atomic`, `gvk=group/version/kind` (`*`: a meta
//! kind, known in every group), `is=type` for what is no struct, `unions=json`. Its fields follow, indented by one
//! space: the name, the type (`[]` is a list of, `{}` a map of; scalars by name; else a definition), then words: `req`,
//! `atomic` (map), `list` (atomic), `set`, `map=key,key`, `patch=merge,retainKeys`, `key=merge key`, `default=json`,
//! `enum=json`, how it prints (`always`, `ptr`, `nil`, `zero`), `via=name` of
//! the embedded Go struct that declares it, `go=name` of the Go type where it does not follow.

use crate::model::{Definition, Extra, Field, ListType, Node, PatchStrategy, Print, Scalar, Schema, Text};
use serde_json::Value;

/// The schema that the table describes. The table is built in: a mistake in it is one in the program.
pub(crate) fn structure(text: &'static str) -> Schema {
    let mut schema = Schema { nodes: Scalar::ALL.map(Node::Scalar).to_vec(), ..Schema::default() };
    text.lines().filter(|line| !line.starts_with(' ')).for_each(|line| declare(&mut schema, line));
    let mut structs = 0;
    for line in text.lines() {
        if let Some(line) = line.strip_prefix(' ') {
            let field = field(&mut schema, line);
            schema.fields.push(field);
            schema.definitions[structs - 1].fields.end += 1;
        } else if is_struct(line) {
            let start = schema.fields.len() as u32;
            schema.definitions[structs].fields = start..start;
            structs += 1;
        }
    }
    // It lasts as long as the program.
    schema.fields.shrink_to_fit();
    schema.nodes.shrink_to_fit();
    schema.definitions.shrink_to_fit();
    schema
}

fn is_struct(line: &str) -> bool {
    !line.contains(" is=") || line.contains(" is=struct")
}

/// Gives a definition its node, so that fields of earlier ones can name it.
fn declare(schema: &mut Schema, line: &'static str) {
    let mut words = line.split(' ');
    let name = words.next().unwrap_or_default();
    let mut definition = Definition { name: Text::Borrowed(name), ..Definition::default() };
    let mut scalar = None;
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("atomic", _) => definition.atomic = true,
            ("gvk", kind) => definition.kinds.push(Text::Borrowed(kind)),
            ("unions", json) => definition.unions = Some(Text::Borrowed(json)),
            ("is", "struct") => {}
            ("is", ty) => scalar = scalar_named(ty),
            (other, _) => unreachable!("the built-in table has an unknown word {other:?}"),
        }
    }
    if let Some(scalar) = scalar {
        schema.by_name.insert(definition.name, scalar.node());
        return;
    }
    let node = schema.nodes.len() as u32;
    let short = name.rsplit('.').next().unwrap_or_default();
    for kind in &definition.kinds {
        let key = if kind == "*" { Text::Owned(format!("*/{short}")) } else { kind.clone() };
        schema.kinds.insert(key, node);
    }
    schema.by_name.insert(definition.name.clone(), node);
    schema.nodes.push(Node::Object { definition: schema.definitions.len() as u32, atomic: definition.atomic });
    schema.definitions.push(definition);
}

fn scalar_named(name: &str) -> Option<Scalar> {
    Some(match name {
        "string" => Scalar::String,
        "int32" => Scalar::Int32,
        "int64" => Scalar::Int64,
        "number" => Scalar::Number,
        "bool" => Scalar::Bool,
        "quantity" => Scalar::Quantity,
        "intorstring" => Scalar::IntOrString,
        "time" => Scalar::Time,
        "microtime" => Scalar::MicroTime,
        "bytes" => Scalar::Bytes,
        "any" | "fields" => Scalar::Any,
        _ => return None,
    })
}

/// What a field's words say of its list or map.
struct Container {
    list_type: ListType,
    keys: Vec<Box<str>>,
    atomic: bool,
}

fn field(schema: &mut Schema, line: &'static str) -> Field {
    let mut words = line.split(' ');
    let mut field = Field { name: Text::Borrowed(words.next().unwrap_or_default()), ..Field::default() };
    let ty = words.next().unwrap_or_default();
    let mut container = Container { list_type: ListType::Atomic, keys: Vec::new(), atomic: false };
    let mut extra = Extra::default();
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        match key {
            "req" => field.required = true,
            "always" => field.print = Print::Always,
            "ptr" => field.print = Print::Given,
            "nil" => field.print = Print::Null,
            "zero" => field.print = Print::NotZero,
            "list" => field.stated = true,
            "atomic" => (field.stated, container.atomic) = (true, true),
            "set" => (field.stated, container.list_type) = (true, ListType::Set),
            "map" => {
                (field.stated, container.list_type) = (true, ListType::Map);
                container.keys = value.split(',').map(Into::into).collect();
            }
            "patch" => {
                field.patch =
                    PatchStrategy { merge: value.contains("merge"), retain_keys: value.contains("retainKeys") };
            }
            "key" => extra.merge_key = Some(Text::Borrowed(value)),
            "default" => extra.default = Some(json(value)),
            "enum" => extra.enum_values = json(value).as_array().cloned().unwrap_or_default(),
            "go" => extra.go = Some(Text::Borrowed(value)),
            "via" => extra.via = Some(Text::Borrowed(value)),
            other => unreachable!("the built-in table has an unknown word {other:?}"),
        }
    }
    if extra != Extra::default() {
        field.extra = Some(Box::new(extra));
    }
    field.node = node(schema, ty, container);
    field
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("the built-in table holds JSON")
}

/// The node of a type; lists, maps and atomic uses of structs get a new one.
fn node(schema: &mut Schema, ty: &'static str, container: Container) -> u32 {
    let plain = || Container { list_type: ListType::Atomic, keys: Vec::new(), atomic: false };
    let new = if let Some(item) = ty.strip_prefix("[]") {
        let item = node(schema, item, plain());
        Node::List { item, list_type: container.list_type, keys: container.keys.into() }
    } else if let Some(value) = ty.strip_prefix("{}") {
        Node::Map { value: node(schema, value, plain()), atomic: container.atomic }
    } else if let Some(scalar) = scalar_named(ty) {
        return scalar.node();
    } else {
        let found = *schema.by_name.get(ty).unwrap_or_else(|| unreachable!("the built-in table lacks {ty:?}"));
        match schema.nodes[found as usize] {
            Node::Object { definition, atomic: false } if container.atomic => Node::Object { definition, atomic: true },
            _ => return found,
        }
    };
    schema.nodes.push(new);
    schema.nodes.len() as u32 - 1
}

#[cfg(test)]
mod tests {
    use crate::{ListType, Print, Schema, Shape};

    #[test]
    fn the_built_in_types_are_there() {
        let schema = Schema::builtin();
        let pod = schema.kind("", "v1", "Pod").unwrap();
        assert_eq!(pod.name(), "io.k8s.api.core.v1.Pod");
        let spec = pod.field("spec").unwrap().ty();
        let containers = spec.field("containers").unwrap();
        assert!(containers.required() && containers.patch_strategy().merge);
        assert_eq!((containers.patch_merge_key(), containers.print()), (Some("name"), Print::Always));
        let Shape::List { item, list_type: ListType::Map, keys } = containers.ty().shape() else { unreachable!() };
        assert_eq!(keys, [Box::from("name")]);
        let protocol = item.field("ports").unwrap().ty();
        let Shape::List { item, .. } = protocol.shape() else { unreachable!() };
        assert_eq!(item.field("protocol").unwrap().default(), Some(&"TCP".into()));
        let selector =
            schema.kind("apps", "v1", "Deployment").unwrap().field("spec").unwrap().ty().field("selector").unwrap();
        assert!(matches!(selector.ty().shape(), Shape::Object { atomic: true, open: false }));
    }

    #[test]
    fn meta_kinds_are_in_every_group() {
        for group in ["", "apps", "example.com"] {
            assert!(Schema::builtin().kind(group, "v1", "DeleteOptions").is_some());
        }
        assert!(Schema::builtin().kind("apps", "v1", "Pod").is_none());
    }

    /// Binary search over fields needs them sorted, and every field must lead to a type.
    #[test]
    fn every_definition_can_be_walked() {
        let schema = Schema::builtin();
        for name in schema.by_name.keys() {
            let ty = schema.definition(name).unwrap();
            for field in ty.fields() {
                assert_eq!(ty.field(field.name()).map(|found| found.name()), Some(field.name()), "{name}");
                let _ = field.ty().shape();
            }
        }
        assert!(schema.by_name.len() > 600);
    }
}

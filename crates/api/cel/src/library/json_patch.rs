//! What mutations construct: `JSONPatch{op: "add", …}` and `Object{spec: Object.spec{…}}`.

use super::argument::*;
use crate::{Function, Library, ObjectType, Overload, Type};

/// The name of the type of patch operations.
pub const PATCH_TYPE: &str = "JSONPatch";
/// The name of the type of apply configurations; what is below them is called by its path: `Object.spec`.
pub const OBJECT_TYPE: &str = "Object";

/// One operation of a JSON patch.
struct Patch;

impl ObjectType for Patch {
    fn name(&self) -> &str {
        PATCH_TYPE
    }

    fn field(&self, name: &str) -> Option<Type> {
        match name {
            "op" | "path" | "from" => Some(Type::String),
            "value" => Some(Type::Dyn),
            _ => None,
        }
    }
}

/// A part of an apply configuration: any field, of anything.
struct Part(Box<str>);

impl ObjectType for Part {
    fn name(&self) -> &str {
        &self.0
    }

    fn field(&self, _name: &str) -> Option<Type> {
        Some(Type::Dyn)
    }
}

pub(super) fn type_named(name: &str) -> Option<Type> {
    if name == PATCH_TYPE {
        return Some(Type::object(Patch));
    }
    let inside = name.strip_prefix(OBJECT_TYPE)?;
    (inside.is_empty() || inside.starts_with('.')).then(|| Type::object(Part(name.into())))
}

pub(super) fn library() -> Library {
    let escape = Overload::global("string_jsonpatch_escapeKey_string", [Type::String], Type::String, |_, a| {
        Ok(text(a, 0)?.replace('~', "~0").replace('/', "~1").into())
    });
    let functions =
        vec![Function::new("jsonpatch.escapeKey", [escape.cost(first_traversed).estimate(estimate_traversed_sized)])];
    Library { functions, ..Library::default() }
}

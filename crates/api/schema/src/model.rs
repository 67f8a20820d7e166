//! The structure of types: definitions, their fields, and the shapes of values.

use serde_json::Value;
use std::sync::Arc;

/// A set of definitions and the kinds that they describe.
#[derive(Debug, Default)]
pub struct Schema {}

/// Why a custom resource's schema can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {message}")]
pub struct SchemaError {
    /// Where in the given schema, such as `spec.properties[a]`.
    pub path: String,
    pub message: String,
}

/// A type of a schema: a cheap handle to copy around.
#[derive(Clone, Copy, Debug)]
pub struct TypeRef<'a> {
    schema: &'a Schema,
    node: u32,
}

/// A type together with its schema, for those who keep it: one per resource and version.
#[derive(Clone, Debug)]
pub enum TypeHandle {
    Builtin(TypeRef<'static>),
    Custom(Arc<Schema>),
}

/// A field of an object type.
#[derive(Clone, Copy, Debug)]
pub struct FieldRef<'a> {
    schema: &'a Schema,
    index: u32,
}

/// How the items of a list relate (`x-kubernetes-list-type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListType {
    Atomic,
    Set,
    Map,
}

/// How a strategic merge patch treats a field (`x-kubernetes-patch-strategy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PatchStrategy {
    pub merge: bool,
    pub retain_keys: bool,
}

/// What values of a type look like.
#[derive(Clone, Copy, Debug)]
pub enum Shape<'a> {
    /// A struct. `atomic`: owned as a whole. `open`: fields that are not declared are kept.
    Object {
        atomic: bool,
        open: bool,
    },
    /// An object with free keys.
    Map {
        value: TypeRef<'a>,
        atomic: bool,
    },
    /// `keys` name the fields that identify an item of a [`ListType::Map`].
    List {
        item: TypeRef<'a>,
        list_type: ListType,
        keys: &'a [Box<str>],
    },
    String,
    Int32,
    Int64,
    Number,
    Bool,
    Quantity,
    IntOrString,
    /// RFC 3339 with seconds.
    Time,
    /// RFC 3339 with microseconds.
    MicroTime,
    /// Base64 text.
    Bytes,
    /// Any JSON value, kept as it is.
    Any,
}

impl Schema {
    /// The schema of the kinds that are built in. Loaded at the first call.
    pub fn builtin() -> &'static Self {
        static BUILTIN: std::sync::LazyLock<Schema> = std::sync::LazyLock::new(Schema::default);
        &BUILTIN
    }
    /// The type of a kind's objects. The core group is "".
    pub fn kind(&self, _group: &str, _version: &str, _kind: &str) -> Option<TypeRef<'_>> {
        None
    }
    /// The type of a definition by its full name, such as `io.k8s.api.core.v1.PodSpec`.
    pub fn definition(&self, _name: &str) -> Option<TypeRef<'_>> {
        None
    }
    /// A schema for one version of a custom resource; its root is the kind.
    pub fn from_crd(
        _group: &str,
        _version: &str,
        _kind: &str,
        _open_api_v3_schema: &Value,
    ) -> Result<TypeHandle, SchemaError> {
        Err(SchemaError { path: String::new(), message: "custom schemas are not supported yet".into() })
    }
}

impl TypeHandle {
    pub fn get(&self) -> TypeRef<'_> {
        match self {
            Self::Builtin(ty) => *ty,
            Self::Custom(schema) => TypeRef { schema, node: 0 },
        }
    }
}

impl<'a> TypeRef<'a> {
    pub fn shape(&self) -> Shape<'a> {
        Shape::Any
    }
    /// The field of that name of an object type.
    pub fn field(&self, _name: &str) -> Option<FieldRef<'a>> {
        None
    }
    /// All fields of an object type, sorted by name.
    pub fn fields(&self) -> impl Iterator<Item = FieldRef<'a>> + use<'a> {
        std::iter::empty()
    }
    /// The definition's full name, such as `io.k8s.api.core.v1.PodSpec`; "" for what has none.
    pub fn name(&self) -> &'a str {
        let _ = (self.schema, self.node);
        ""
    }
}

impl<'a> FieldRef<'a> {
    pub fn name(&self) -> &'a str {
        let _ = (self.schema, self.index);
        ""
    }
    pub fn ty(&self) -> TypeRef<'a> {
        TypeRef { schema: self.schema, node: 0 }
    }
    pub fn required(&self) -> bool {
        false
    }
    /// The default that the schema itself states (strategies of kinds know more of them).
    pub fn default(&self) -> Option<&'a Value> {
        None
    }
    pub fn enum_values(&self) -> &'a [Value] {
        &[]
    }
    pub fn patch_strategy(&self) -> PatchStrategy {
        PatchStrategy::default()
    }
    /// The key by which a strategic merge patch finds list items.
    pub fn patch_merge_key(&self) -> Option<&'a str> {
        None
    }
}

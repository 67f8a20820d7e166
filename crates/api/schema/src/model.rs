//! The structure of types: definitions, their fields, and the shapes of values.

use crate::lazy::Lazy;
use crate::load;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

/// Names are borrowed from the built-in table, or owned by a custom schema.
pub(crate) type Text = Cow<'static, str>;

/// A set of definitions and the kinds that they describe.
#[derive(Debug, Default)]
pub struct Schema {
    pub(crate) nodes: Vec<Node>,
    pub(crate) definitions: Vec<Definition>,
    pub(crate) fields: Vec<Field>,
    /// Nodes of definitions by full name.
    pub(crate) by_name: HashMap<Text, u32>,
    /// Definition names of kinds by `group/version/kind`.
    pub(crate) kinds: HashMap<Text, u32>,
    /// It describes a custom resource.
    pub(crate) custom: bool,
}

/// Why a custom resource's schema can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {message}")]
pub struct SchemaError {
    /// Where in the given schema, such as `properties[spec].items`.
    pub path: String,
    pub message: String,
}

/// A type of a schema: a cheap handle to copy around.
#[derive(Clone, Copy)]
pub struct TypeRef<'a> {
    pub(crate) schema: &'a Schema,
    pub(crate) node: u32,
}

/// A type together with its schema, for those who keep it: one per resource and version.
#[derive(Clone, Debug)]
pub enum TypeHandle {
    Builtin(TypeRef<'static>),
    /// The root of a custom schema.
    Custom(Arc<Lazy>),
}

/// A field of an object type.
#[derive(Clone, Copy)]
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

/// When upstream prints a field, as its struct tags say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Print {
    /// Not when empty: zero, "", false, no items.
    #[default]
    NotEmpty,
    /// Always: a struct as `{}`, a missing list as null.
    Always,
    /// When it was given, empty or not: a pointer.
    Given,
    /// A pointer that prints as null when it was not given.
    Null,
    /// Not when it is the zero value: a time or a struct.
    NotZero,
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

#[derive(Debug, Clone)]
pub(crate) enum Node {
    Object {
        definition: u32,
        atomic: bool,
    },
    Map {
        value: u32,
        atomic: bool,
    },
    List {
        item: u32,
        list_type: ListType,
        keys: Box<[Box<str>]>,
    },
    Scalar(Scalar),
    /// A node of the built-in schema, in a custom one.
    Builtin(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scalar {
    String,
    Int32,
    Int64,
    Number,
    Bool,
    Quantity,
    IntOrString,
    Time,
    MicroTime,
    Bytes,
    Any,
}

#[derive(Debug, Default)]
pub(crate) struct Definition {
    pub name: Text,
    pub fields: Range<u32>,
    /// Undeclared fields are kept.
    pub open: bool,
    /// `group/version/kind`; `*` for the meta kinds that are in every group.
    pub kinds: Vec<Text>,
    /// `x-kubernetes-unions` as JSON.
    pub unions: Option<Text>,
    /// The map type is stated: only then OpenAPI shows it.
    pub atomic: bool,
    /// Found out when the first object is completed.
    pub always_printed: std::sync::OnceLock<Box<[u32]>>,
}

#[derive(Debug, Default)]
pub(crate) struct Field {
    pub name: Text,
    pub node: u32,
    pub print: Print,
    pub required: bool,
    pub patch: PatchStrategy,
    /// The list or map type is stated: only then OpenAPI shows it.
    pub stated: bool,
    pub extra: Option<Box<Extra>>,
}

/// What few fields have.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Extra {
    pub merge_key: Option<Text>,
    pub default: Option<Value>,
    pub enum_values: Vec<Value>,
    pub go: Option<Text>,
    /// The embedded struct of Go that declares the field.
    pub via: Option<Text>,
}

impl Schema {
    /// The schema of the kinds that are built in. Loaded at the first call, in a few milliseconds.
    pub fn builtin() -> &'static Self {
        static BUILTIN: LazyLock<Schema> = LazyLock::new(|| load::structure(include_str!("../data/structure.txt")));
        &BUILTIN
    }

    /// The type of a kind's objects. The core group is "". Meta kinds, such as `DeleteOptions`, are in every group.
    pub fn kind(&self, group: &str, version: &str, kind: &str) -> Option<TypeRef<'_>> {
        let key = format!("{group}/{version}/{kind}");
        let node = self.kinds.get(key.as_str()).or_else(|| self.kinds.get(format!("*/{kind}").as_str()));
        node.map(|&node| self.at(node))
    }

    /// The type of a definition by its full name, such as `io.k8s.api.core.v1.PodSpec`.
    pub fn definition(&self, name: &str) -> Option<TypeRef<'_>> {
        self.by_name.get(name).map(|&node| self.at(node))
    }

    /// A schema for one version of a custom resource, from its `openAPIV3Schema`.
    pub fn from_crd(
        group: &str,
        version: &str,
        kind: &str,
        open_api_v3_schema: &Value,
    ) -> Result<TypeHandle, SchemaError> {
        let built = crate::crd::build(group, version, kind, open_api_v3_schema)?;
        let lazy = Lazy::new(group, version, kind, open_api_v3_schema);
        // Nobody else has it yet.
        let _ = lazy.built.set(built);
        Ok(TypeHandle::Custom(Arc::new(lazy)))
    }

    /// The same, but the schema is only kept packed until it is first used: most of the definitions in a cluster are
    /// not. One that turns out to be unusable lets everything pass.
    pub fn from_crd_later(group: &str, version: &str, kind: &str, open_api_v3_schema: &Value) -> TypeHandle {
        TypeHandle::Custom(Arc::new(Lazy::new(group, version, kind, open_api_v3_schema)))
    }

    pub(crate) fn at(&self, node: u32) -> TypeRef<'_> {
        match self.nodes[node as usize] {
            Node::Builtin(node) => Self::builtin().at(node),
            _ => TypeRef { schema: self, node },
        }
    }
}

impl TypeHandle {
    /// The type itself.
    pub fn get(&self) -> TypeRef<'_> {
        match self {
            Self::Builtin(ty) => *ty,
            Self::Custom(lazy) => lazy.schema().at(lazy.schema().root()),
        }
    }

    /// The `openAPIV3Schema` of a custom resource, which is kept from then on; none for built-in kinds.
    pub fn source(&self) -> Option<&Value> {
        match self {
            Self::Builtin(_) => None,
            Self::Custom(lazy) => Some(lazy.source()),
        }
    }
}

impl TypeHandle {
    /// The same for one use: not kept if it was not already.
    pub fn source_once(&self) -> Option<Cow<'_, Value>> {
        match self {
            Self::Builtin(_) => None,
            Self::Custom(lazy) => Some(lazy.source_once()),
        }
    }

    /// The full name of the definition, found without using a custom schema.
    pub fn name(&self) -> &str {
        match self {
            Self::Builtin(ty) => ty.name(),
            Self::Custom(lazy) => lazy.name(),
        }
    }

    /// Tells one custom schema from another; none for built-in kinds.
    pub fn digest(&self) -> Option<[u8; 32]> {
        match self {
            Self::Builtin(_) => None,
            Self::Custom(lazy) => Some(lazy.digest()),
        }
    }
}

impl From<TypeRef<'static>> for TypeHandle {
    fn from(ty: TypeRef<'static>) -> Self {
        Self::Builtin(ty)
    }
}

impl Schema {
    /// A custom schema's kind is its last node.
    fn root(&self) -> u32 {
        self.nodes.len() as u32 - 1
    }
}

impl<'a> TypeRef<'a> {
    /// What values look like.
    pub fn shape(&self) -> Shape<'a> {
        let schema = self.schema;
        match &schema.nodes[self.node as usize] {
            Node::Object { definition, atomic } => {
                Shape::Object { atomic: *atomic, open: schema.definitions[*definition as usize].open }
            }
            Node::Map { value, atomic } => Shape::Map { value: schema.at(*value), atomic: *atomic },
            Node::List { item, list_type, keys } => Shape::List { item: schema.at(*item), list_type: *list_type, keys },
            Node::Scalar(scalar) => scalar.shape(),
            Node::Builtin(node) => Schema::builtin().at(*node).shape(),
        }
    }

    /// The field of that name of an object type.
    pub fn field(&self, name: &str) -> Option<FieldRef<'a>> {
        let range = self.declared()?.fields.clone();
        let fields = &self.schema.fields[range.start as usize..range.end as usize];
        let index = fields.binary_search_by(|field| field.name.as_ref().cmp(name)).ok()?;
        Some(FieldRef { schema: self.schema, index: range.start + index as u32 })
    }

    /// All fields of an object type, sorted by name.
    pub fn fields(&self) -> impl Iterator<Item = FieldRef<'a>> + use<'a> {
        let schema = self.schema;
        let range = self.declared().map_or(0..0, |definition| definition.fields.clone());
        range.map(move |index| FieldRef { schema, index })
    }

    /// The fields that print although they were not given: few, so that objects are completed fast.
    pub(crate) fn always_printed(&self) -> impl Iterator<Item = FieldRef<'a>> + use<'a> {
        let schema = self.schema;
        let printed = self.declared().map_or(&[][..], |definition| {
            definition.always_printed.get_or_init(|| {
                let is_printed = |at: &u32| matches!(schema.fields[*at as usize].print, Print::Always | Print::Null);
                definition.fields.clone().filter(is_printed).collect()
            })
        });
        printed.iter().map(move |index| FieldRef { schema, index: *index })
    }

    /// The definition's full name, such as `io.k8s.api.core.v1.PodSpec`; "" for what has none.
    pub fn name(&self) -> &'a str {
        self.declared().map_or("", |definition| definition.name.as_ref())
    }

    /// Whether it belongs to a custom resource's schema.
    pub fn is_custom(&self) -> bool {
        self.schema.custom
    }

    /// The number of the definition among the built-in ones; none for what has none, and for custom schemas.
    pub(crate) fn definition_number(&self) -> Option<usize> {
        match &self.schema.nodes[self.node as usize] {
            Node::Object { definition, .. } if !self.schema.custom => Some(*definition as usize),
            _ => None,
        }
    }

    pub(crate) fn declared(&self) -> Option<&'a Definition> {
        match &self.schema.nodes[self.node as usize] {
            Node::Object { definition, .. } => Some(&self.schema.definitions[*definition as usize]),
            _ => None,
        }
    }

    /// The name that upstream's error messages give the type, such as `[]v1.Container`.
    pub(crate) fn go_type(&self) -> String {
        match self.shape() {
            Shape::Object { .. } => {
                let name = self.name();
                let start = name.rmatch_indices('.').nth(1).map_or(0, |(at, _)| at + 1);
                name[start..].to_owned()
            }
            Shape::Map { value, .. } => format!("map[string]{}", value.go_type()),
            Shape::List { item, .. } => format!("[]{}", item.go_type()),
            Shape::String => "string".into(),
            Shape::Int32 => "int32".into(),
            Shape::Int64 => "int64".into(),
            Shape::Number => "float64".into(),
            Shape::Bool => "bool".into(),
            Shape::Bytes => "[]uint8".into(),
            Shape::Quantity => "resource.Quantity".into(),
            Shape::IntOrString => "intstr.IntOrString".into(),
            Shape::Time => "v1.Time".into(),
            Shape::MicroTime => "v1.MicroTime".into(),
            Shape::Any => "interface {}".into(),
        }
    }
}

impl std::fmt::Debug for TypeRef<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TypeRef({})", self.go_type())
    }
}

impl std::fmt::Debug for FieldRef<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FieldRef({}: {:?})", self.name(), self.ty())
    }
}

impl<'a> FieldRef<'a> {
    pub(crate) fn get(&self) -> &'a Field {
        &self.schema.fields[self.index as usize]
    }
    fn extra(&self) -> Option<&'a Extra> {
        self.get().extra.as_deref()
    }
    pub fn name(&self) -> &'a str {
        self.get().name.as_ref()
    }
    pub fn ty(&self) -> TypeRef<'a> {
        self.schema.at(self.get().node)
    }
    /// Whether an object without it is invalid.
    pub fn required(&self) -> bool {
        self.get().required
    }
    /// The default that the schema itself states (strategies of kinds know more of them).
    pub fn default(&self) -> Option<&'a Value> {
        self.extra()?.default.as_ref()
    }
    pub fn enum_values(&self) -> &'a [Value] {
        self.extra().map_or(&[], |extra| &extra.enum_values)
    }
    pub fn patch_strategy(&self) -> PatchStrategy {
        self.get().patch
    }
    /// The key by which a strategic merge patch finds list items.
    pub fn patch_merge_key(&self) -> Option<&'a str> {
        self.extra()?.merge_key.as_deref()
    }
    /// When upstream prints the field.
    pub fn print(&self) -> Print {
        self.get().print
    }
    /// The embedded struct of Go that declares it, which error messages name as if it were a field.
    pub(crate) fn via(&self) -> Option<&'a str> {
        self.extra()?.via.as_deref()
    }
    /// The name of the Go type in error messages, without leading pointers.
    pub(crate) fn go_type(&self) -> Cow<'a, str> {
        match self.extra().and_then(|extra| extra.go.as_deref()) {
            Some(name) => Cow::Borrowed(name),
            None => Cow::Owned(self.ty().go_type()),
        }
    }
}

impl Scalar {
    pub(crate) const ALL: [Self; 11] = [
        Self::String,
        Self::Int32,
        Self::Int64,
        Self::Number,
        Self::Bool,
        Self::Quantity,
        Self::IntOrString,
        Self::Time,
        Self::MicroTime,
        Self::Bytes,
        Self::Any,
    ];

    /// The scalars are the first nodes of every schema, in this order.
    pub(crate) fn node(self) -> u32 {
        self as u32
    }

    fn shape(self) -> Shape<'static> {
        match self {
            Self::String => Shape::String,
            Self::Int32 => Shape::Int32,
            Self::Int64 => Shape::Int64,
            Self::Number => Shape::Number,
            Self::Bool => Shape::Bool,
            Self::Quantity => Shape::Quantity,
            Self::IntOrString => Shape::IntOrString,
            Self::Time => Shape::Time,
            Self::MicroTime => Shape::MicroTime,
            Self::Bytes => Shape::Bytes,
            Self::Any => Shape::Any,
        }
    }
}

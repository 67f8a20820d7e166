//! The types of CEL: what variables are declared as, what functions take and give, what an expression's result is.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A type. Cloning copies at most a reference count.
#[derive(Clone)]
pub enum Type {
    /// Anything; what it is shows at evaluation.
    Dyn,
    /// The type of what did not type-check; agrees with everything, so that one mistake is told once.
    Error,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Timestamp,
    Duration,
    List(Arc<ListType>),
    Map(Arc<MapType>),
    /// A message: fields by name.
    Object(Arc<dyn ObjectType>),
    /// A type of a library: `kubernetes.Quantity`, `net.IP`, `set<A>`.
    Opaque(Arc<OpaqueType>),
    /// The type of a type: `type(1)` is a `type(int)`.
    Type(Arc<Type>),
    Optional(Arc<Type>),
    /// A type parameter of a function's overload: `A` in `list(A)`.
    Param(Arc<str>),
}

/// A list's element type and how such lists compare.
pub struct ListType {
    pub element: Type,
    pub kind: ListKind,
}

/// `x-kubernetes-list-type`: how lists compare (`==`) and join (`+`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListKind {
    Atomic,
    /// Order means nothing, elements occur once.
    Set,
    /// Elements are known by these fields; order means nothing.
    Map(Box<[Box<str>]>),
}

pub struct MapType {
    pub key: Type,
    pub value: Type,
}

pub struct OpaqueType {
    pub name: Box<str>,
    pub parameters: Box<[Type]>,
}

/// The type of messages with fields; types are the same when their names are.
pub trait ObjectType: Send + Sync {
    fn name(&self) -> &str;

    /// The type of the field that expressions call `name` (escaped: see [`crate::unescape`]).
    fn field(&self, name: &str) -> Option<Type>;

    /// Whether `has(x.field)` and other tests treat absent fields as their defaults rather than as errors.
    /// Kubernetes' objects do not.
    fn absent_is_default(&self) -> bool {
        false
    }
}

/// An [`ObjectType`] of a fixed list of fields.
pub struct Fields {
    name: Box<str>,
    fields: Box<[(Box<str>, Type)]>,
}

impl Fields {
    pub fn new<'n>(name: &str, fields: impl IntoIterator<Item = (&'n str, Type)>) -> Self {
        let mut fields: Box<[_]> = fields.into_iter().map(|(name, field)| (Box::from(name), field)).collect();
        fields.sort_by(|a: &(Box<str>, Type), b| a.0.cmp(&b.0));
        Self { name: name.into(), fields }
    }
}

impl ObjectType for Fields {
    fn name(&self) -> &str {
        &self.name
    }

    fn field(&self, name: &str) -> Option<Type> {
        let at = self.fields.binary_search_by(|field| (*field.0).cmp(name)).ok()?;
        Some(self.fields[at].1.clone())
    }
}

impl Type {
    pub fn list(element: Type) -> Type {
        Type::list_of(element, ListKind::Atomic)
    }

    pub fn list_of(element: Type, kind: ListKind) -> Type {
        Type::List(Arc::new(ListType { element, kind }))
    }

    pub fn map(key: Type, value: Type) -> Type {
        Type::Map(Arc::new(MapType { key, value }))
    }

    pub fn object(object: impl ObjectType + 'static) -> Type {
        Type::Object(Arc::new(object))
    }

    pub fn opaque(name: &str) -> Type {
        Type::opaque_of(name, [])
    }

    pub fn opaque_of(name: &str, parameters: impl Into<Box<[Type]>>) -> Type {
        Type::Opaque(Arc::new(OpaqueType { name: name.into(), parameters: parameters.into() }))
    }

    pub fn optional(inner: Type) -> Type {
        Type::Optional(Arc::new(inner))
    }

    pub fn type_of(inner: Type) -> Type {
        Type::Type(Arc::new(inner))
    }

    pub fn param(name: &str) -> Type {
        Type::Param(name.into())
    }

    /// Whether values of this type are only known at evaluation.
    pub fn is_dyn(&self) -> bool {
        matches!(self, Type::Dyn | Type::Error)
    }

    /// What `type(x)` says and conversions name: no parameters (`list`, `google.protobuf.Timestamp`).
    pub fn runtime_name(&self) -> &str {
        match self {
            Type::Dyn => "dyn",
            Type::Error => "*error*",
            Type::Null => "null_type",
            Type::Bool => "bool",
            Type::Int => "int",
            Type::Uint => "uint",
            Type::Double => "double",
            Type::String => "string",
            Type::Bytes => "bytes",
            Type::Timestamp => "google.protobuf.Timestamp",
            Type::Duration => "google.protobuf.Duration",
            Type::List(_) => "list",
            Type::Map(_) => "map",
            Type::Object(object) => object.name(),
            Type::Opaque(opaque) => &opaque.name,
            Type::Type(_) => "type",
            Type::Optional(_) => "optional_type",
            Type::Param(name) => name,
        }
    }
}

/// As messages show it: `list(string)`, `map(string, dyn)`.
impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Null => f.write_str("null"),
            Type::Error => f.write_str("!error!"),
            Type::Timestamp => f.write_str("timestamp"),
            Type::Duration => f.write_str("duration"),
            Type::List(list) => write!(f, "list({})", list.element),
            Type::Map(map) => write!(f, "map({}, {})", map.key, map.value),
            Type::Type(inner) if inner.is_dyn() => f.write_str("type"),
            Type::Type(inner) => write!(f, "type({inner})"),
            Type::Optional(inner) => write!(f, "optional_type({inner})"),
            Type::Opaque(opaque) => write_opaque(f, opaque),
            other => f.write_str(other.runtime_name()),
        }
    }
}

fn write_opaque(f: &mut fmt::Formatter<'_>, opaque: &OpaqueType) -> fmt::Result {
    f.write_str(&opaque.name)?;
    let Some((first, rest)) = opaque.parameters.split_first() else { return Ok(()) };
    write!(f, "({first}")?;
    for parameter in rest {
        write!(f, ", {parameter}")?;
    }
    f.write_str(")")
}

impl fmt::Debug for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PartialEq for Type {
    fn eq(&self, other: &Type) -> bool {
        match (self, other) {
            (Type::List(a), Type::List(b)) => a.element == b.element,
            (Type::Map(a), Type::Map(b)) => a.key == b.key && a.value == b.value,
            (Type::Object(a), Type::Object(b)) => a.name() == b.name(),
            (Type::Opaque(a), Type::Opaque(b)) => a.name == b.name && a.parameters == b.parameters,
            (Type::Type(a), Type::Type(b)) | (Type::Optional(a), Type::Optional(b)) => a == b,
            (Type::Param(a), Type::Param(b)) => a == b,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

impl Eq for Type {}

impl Hash for Type {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.runtime_name().hash(state);
    }
}

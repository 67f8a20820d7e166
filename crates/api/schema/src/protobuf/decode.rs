//! Messages into trees.
//!
//! Upstream writes fields that are no pointers even when they are empty. What JSON would not print is left out here,
//! so that both forms give the same tree.

use super::table::{self, Entry, Form, Found, Layout, Path};
use super::{Envelope, MAGIC, ProtobufError, message_of};
use crate::decode::Limits;
use crate::normalize::{is_empty, is_kept};
use crate::{Print, Shape, TypeRef};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pintle_protobuf::wire::{self, FIXED_64, Payload, VARINT};
use serde_json::{Map, Value};

type Result<T> = std::result::Result<T, ProtobufError>;

/// The times that RFC 3339 can write: the years 1 to 9999.
const TIMES: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
/// A tree takes many times the memory of its bytes: as many bytes must come for each value on average.
const BYTES_PER_VALUE: usize = 8;

/// Decodes one message and what is in it, within bounds.
pub(super) struct Decoder {
    limits: Limits,
    /// How many values may still come.
    values: usize,
}

/// Where a value is: for errors, and to bound the depth.
#[derive(Clone, Copy)]
struct Place<'a> {
    field: &'a str,
    depth: usize,
}

impl Place<'_> {
    fn wrong(&self, payload: Payload<'_>) -> ProtobufError {
        let mut name = self.field.to_owned();
        if let Some(first) = name.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        ProtobufError::FieldType { wire: payload.form(), field: name }
    }

    fn bytes<'b>(&self, payload: Payload<'b>) -> Result<&'b [u8]> {
        if let Payload::Bytes(bytes) = payload { Ok(bytes) } else { Err(self.wrong(payload)) }
    }

    fn varint(&self, payload: Payload<'_>) -> Result<u64> {
        if let Payload::Varint(value) = payload { Ok(value) } else { Err(self.wrong(payload)) }
    }

    fn deeper(self) -> Self {
        Self { depth: self.depth + 1, ..self }
    }
}

impl Decoder {
    pub fn new(limits: Limits) -> Self {
        Self { limits, values: (limits.max_bytes / BYTES_PER_VALUE).max(1024) }
    }

    /// Adds the fields of an object's message to a tree.
    pub fn object(&mut self, ty: TypeRef<'_>, bytes: &[u8], map: &mut Map<String, Value>) -> Result<()> {
        self.message(ty, bytes, map, 0)
    }

    fn message(&mut self, ty: TypeRef<'_>, bytes: &[u8], map: &mut Map<String, Value>, depth: usize) -> Result<()> {
        let Some(layout) = table::layout(ty) else { return Ok(()) };
        self.fields(layout, (Path::default(), 0), bytes, map, depth)
    }

    /// Reads the message of a struct, or of one that is embedded in it at the path of that many levels.
    fn fields(
        &mut self,
        layout: &'static Layout,
        (prefix, level): (Path, usize),
        bytes: &[u8],
        map: &mut Map<String, Value>,
        depth: usize,
    ) -> Result<()> {
        if depth >= self.limits.max_depth {
            return Err(ProtobufError::Depth);
        }
        let mut rest = bytes;
        while let Some((number, payload)) = wire::next(&mut rest)? {
            match (layout.find(prefix, level, number), payload) {
                (Found::Field(entry), payload) => {
                    self.field(entry, payload, map, Place { field: entry.field.name(), depth })?
                }
                (Found::Embedded(path), Payload::Bytes(inner)) => {
                    self.fields(layout, (path, level + 1), inner, map, depth + 1)?
                }
                (Found::Embedded(_), payload) => return Err(Place { field: "embedded", depth }.wrong(payload)),
                (Found::Unknown, _) => {}
            }
        }
        Ok(())
    }

    fn spend(&mut self, values: usize) -> Result<()> {
        self.values = self.values.checked_sub(values).ok_or(ProtobufError::Values)?;
        Ok(())
    }

    fn field(
        &mut self,
        entry: &Entry,
        payload: Payload<'_>,
        map: &mut Map<String, Value>,
        place: Place<'_>,
    ) -> Result<()> {
        let (name, ty) = (entry.field.name(), entry.field.ty());
        match ty.shape() {
            Shape::List { item, .. } if entry.form != Form::Wrapped => {
                let slot = map.entry(name).or_insert_with(|| Value::Array(Vec::new()));
                let Value::Array(items) = slot else { return Ok(()) };
                self.item(item, entry.form, payload, items, place)
            }
            Shape::Map { value, .. } => {
                let slot = map.entry(name).or_insert_with(|| Value::Object(Map::new()));
                let Value::Object(entries) = slot else { return Ok(()) };
                let (key, value) = self.pair(value, entry.form, payload, place)?;
                entries.insert(key, value);
                Ok(())
            }
            _ => {
                let old = map.remove(name);
                let value = self.value(ty, entry.form, payload, old, place)?;
                if let Some(value) = value.filter(|value| prints(entry, value)) {
                    map.insert(name.to_owned(), value);
                }
                Ok(())
            }
        }
    }

    /// One item of a list, or all of them: numbers may be packed into one value.
    fn item(
        &mut self,
        ty: TypeRef<'_>,
        form: Form,
        payload: Payload<'_>,
        items: &mut Vec<Value>,
        place: Place<'_>,
    ) -> Result<()> {
        let packed = match (ty.shape(), payload) {
            (Shape::Int32 | Shape::Int64 | Shape::Bool | Shape::Number, Payload::Bytes(bytes)) => bytes,
            _ => {
                let value = self.value(ty, form, payload, None, place)?;
                items.push(value.unwrap_or_default());
                return Ok(());
            }
        };
        let packed_form = if matches!(ty.shape(), Shape::Number) { FIXED_64 } else { VARINT };
        let mut rest = packed;
        while !rest.is_empty() {
            let payload = wire::untagged(packed_form, &mut rest)?;
            items.push(self.value(ty, form, payload, None, place)?.unwrap_or_default());
        }
        Ok(())
    }

    /// One entry of a map.
    fn pair(&mut self, ty: TypeRef<'_>, form: Form, payload: Payload<'_>, place: Place<'_>) -> Result<(String, Value)> {
        let (mut key, mut value) = (String::new(), None);
        let mut rest = place.bytes(payload)?;
        while let Some((number, payload)) = wire::next(&mut rest)? {
            match number {
                1 => key = wire::text(place.bytes(payload)?),
                2 => value = self.value(ty, form, payload, None, place)?,
                _ => {}
            }
        }
        Ok((key, value.unwrap_or_else(|| zero(ty, form))))
    }

    /// One value; none when it says that there is none. Messages that come twice are merged into the `old` value.
    fn value(
        &mut self,
        ty: TypeRef<'_>,
        form: Form,
        payload: Payload<'_>,
        old: Option<Value>,
        place: Place<'_>,
    ) -> Result<Option<Value>> {
        self.spend(1)?;
        Ok(Some(match ty.shape() {
            _ if form == Form::Wrapped => self.wrapped(place.bytes(payload)?, place)?,
            _ if form != Form::Plain => self.either(form, place.bytes(payload)?, place)?,
            Shape::Object { .. } => {
                let mut map = if let Some(Value::Object(map)) = old { map } else { Map::new() };
                self.message(ty, place.bytes(payload)?, &mut map, place.depth + 1)?;
                Value::Object(map)
            }
            Shape::String => wire::text(place.bytes(payload)?).into(),
            Shape::Bytes => STANDARD.encode(place.bytes(payload)?).into(),
            // As Go does: what is too long is cut.
            Shape::Int32 => (place.varint(payload)? as i32).into(),
            Shape::Int64 => (place.varint(payload)? as i64).into(),
            Shape::Bool => (place.varint(payload)? != 0).into(),
            Shape::Number => {
                let Payload::Fixed64(bits) = payload else { return Err(place.wrong(payload)) };
                number(f64::from_bits(bits))
            }
            Shape::Quantity => quantity(place.bytes(payload)?)?,
            Shape::IntOrString => int_or_string(place.bytes(payload)?)?,
            Shape::Time => return time(place.bytes(payload)?, false),
            Shape::MicroTime => return time(place.bytes(payload)?, true),
            Shape::Any => return self.raw(place.bytes(payload)?, place),
            // No message has lists in lists or in maps, other than wrapped ones.
            Shape::List { .. } | Shape::Map { .. } => return Ok(None),
        }))
    }

    /// `{items}`.
    fn wrapped(&mut self, bytes: &[u8], place: Place<'_>) -> Result<Value> {
        let mut items = Vec::new();
        let mut rest = bytes;
        while let Some((number, payload)) = wire::next(&mut rest)? {
            if number == 1 {
                self.spend(1)?;
                items.push(wire::text(place.bytes(payload)?).into());
            }
        }
        Ok(Value::Array(items))
    }

    /// A schema or something else.
    fn either(&mut self, form: Form, bytes: &[u8], place: Place<'_>) -> Result<Value> {
        let (mut schema, mut list, mut allows) = (None, Vec::new(), false);
        let mut rest = bytes;
        while let Some((number, payload)) = wire::next(&mut rest)? {
            match (form, number) {
                (Form::SchemaOrBool, 1) => allows = place.varint(payload)? != 0,
                (Form::SchemaOrNames, 2) => {
                    self.spend(1)?;
                    list.push(wire::text(place.bytes(payload)?).into());
                }
                (Form::SchemaOrList, 2) => list.push(self.schema(payload, place)?),
                (Form::SchemaOrBool, 2) | (Form::SchemaOrList | Form::SchemaOrNames, 1) => {
                    schema = Some(self.schema(payload, place)?);
                }
                _ => {}
            }
        }
        Ok(match schema {
            Some(schema) if list.is_empty() => schema,
            None if form == Form::SchemaOrBool => allows.into(),
            _ => Value::Array(list),
        })
    }

    fn schema(&mut self, payload: Payload<'_>, place: Place<'_>) -> Result<Value> {
        let Some(ty) = table::schema_type() else { return Ok(Value::Null) };
        let value = self.value(ty, Form::Plain, payload, None, place.deeper())?;
        Ok(value.unwrap_or_default())
    }

    /// `{raw}`: JSON, or an object in an envelope of its own.
    fn raw(&mut self, bytes: &[u8], place: Place<'_>) -> Result<Option<Value>> {
        let mut raw: &[u8] = &[];
        let mut rest = bytes;
        while let Some((number, payload)) = wire::next(&mut rest)? {
            if number == 1 {
                raw = place.bytes(payload)?;
            }
        }
        if raw.starts_with(&MAGIC) {
            return self.enveloped(raw, place).map(Some);
        }
        if raw.is_empty() {
            return Ok(None);
        }
        self.spend(raw.len() / BYTES_PER_VALUE)?;
        let limits = Limits { max_depth: self.limits.max_depth.saturating_sub(place.depth), ..self.limits };
        let decoded = crate::decode::json(raw, limits).map_err(|e| ProtobufError::Json(e.to_string()))?;
        Ok(Some(decoded.value))
    }

    fn enveloped(&mut self, bytes: &[u8], place: Place<'_>) -> Result<Value> {
        let envelope = Envelope::open(bytes)?;
        let mut map = Map::new();
        if let Some(ty) = message_of(&envelope.api_version, &envelope.kind) {
            self.message(ty, envelope.raw, &mut map, place.depth + 1)?;
        }
        map.insert("apiVersion".into(), envelope.api_version.into());
        map.insert("kind".into(), envelope.kind.into());
        Ok(Value::Object(map))
    }
}

/// Whether JSON would show the value.
fn prints(entry: &Entry, value: &Value) -> bool {
    match entry.field.print() {
        Print::Always | Print::Given | Print::Null => true,
        Print::NotEmpty => !is_empty(value) || is_kept(entry.field.ty(), value),
        Print::NotZero => !is_zero(value),
    }
}

/// Nothing is set in it, however deep.
fn is_zero(value: &Value) -> bool {
    if let Value::Object(map) = value { map.values().all(is_zero) } else { is_empty(value) }
}

/// The value of a map's entry that has none.
fn zero(ty: TypeRef<'_>, form: Form) -> Value {
    match ty.shape() {
        _ if form == Form::Wrapped => Value::Array(Vec::new()),
        Shape::Object { .. } => Value::Object(Map::new()),
        Shape::String | Shape::Bytes => "".into(),
        Shape::Quantity => "0".into(),
        Shape::Bool => false.into(),
        Shape::Int32 | Shape::Int64 | Shape::Number | Shape::IntOrString => 0.into(),
        _ => Value::Null,
    }
}

/// Whole numbers print without a fraction.
fn number(value: f64) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() < EXACT { (value as i64).into() } else { value.into() }
}

fn quantity(bytes: &[u8]) -> Result<Value> {
    let mut text = String::new();
    let mut rest = bytes;
    while let Some((number, payload)) = wire::next(&mut rest)? {
        if let (1, Payload::Bytes(bytes)) = (number, payload) {
            text = wire::text(bytes);
        }
    }
    Ok(if text.is_empty() { "0".into() } else { text.into() })
}

fn int_or_string(bytes: &[u8]) -> Result<Value> {
    let (mut is_text, mut int, mut text) = (false, 0, String::new());
    let mut rest = bytes;
    while let Some((number, payload)) = wire::next(&mut rest)? {
        match (number, payload) {
            (1, Payload::Varint(kind)) => is_text = kind != 0,
            (2, Payload::Varint(value)) => int = value as i32,
            (3, Payload::Bytes(bytes)) => text = wire::text(bytes),
            _ => {}
        }
    }
    Ok(if is_text { text.into() } else { int.into() })
}

/// No bytes are no time. Upstream drops what is smaller than seconds, and than microseconds.
fn time(bytes: &[u8], micro: bool) -> Result<Option<Value>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let (mut seconds, mut nanos) = (0, 0);
    let mut rest = bytes;
    while let Some((number, payload)) = wire::next(&mut rest)? {
        match (number, payload) {
            (1, Payload::Varint(value)) => seconds = value as i64,
            (2, Payload::Varint(value)) => nanos = u32::try_from(value).unwrap_or_default(),
            _ => {}
        }
    }
    if !TIMES.contains(&seconds) {
        return Err(ProtobufError::Time(seconds));
    }
    Ok(Some(crate::time::print(seconds, nanos.min(999_999_999), micro).into()))
}

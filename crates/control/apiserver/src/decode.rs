//! Bodies into objects: the content type, the kind, unknown fields, types; told in upstream's words.

use crate::media::{CBOR, Offers, PROTOBUF};
use crate::response::{JSON, YAML};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use pintle_kinds::Table;
use pintle_registry::FieldValidation;
use pintle_schema::decode::{Decoded, Limits};
use pintle_schema::protobuf::Envelope;
use pintle_schema::{TypeRef, check};
use pintle_types::names::{GroupVersion, GroupVersionKind};
use pintle_types::{Reason, Status};
use serde_json::Value;

/// What a body should be.
pub(crate) struct Expected<'a> {
    pub gvk: GroupVersionKind,
    pub ty: Option<TypeRef<'a>>,
    pub validation: FieldValidation,
}

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    Yaml,
    Protobuf,
    Cbor,
}

/// The encoding that the content type names, of those that are taken; none is JSON.
pub(crate) fn encoding(headers: &HeaderMap, offers: Offers) -> Result<Encoding, Box<Status>> {
    match media_type(headers) {
        "" | JSON => Ok(Encoding::Json),
        YAML => Ok(Encoding::Yaml),
        PROTOBUF if offers.protobuf => Ok(Encoding::Protobuf),
        CBOR if offers.cbor => Ok(Encoding::Cbor),
        _ => Err(unknown_format(&offers.media_types())),
    }
}

/// The content type without its parameters.
pub(crate) fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

pub(crate) fn unknown_format(accepted: &str) -> Box<Status> {
    let message =
        format!("the body of the request was in an unknown format - accepted media types include: {accepted}");
    Box::new(Status::failure(415, Reason::UnsupportedMediaType, message))
}

/// Decodes a body into an object of the expected kind, `apiVersion` and `kind` filled in. Warnings about unknown and
/// duplicate fields are added to `warnings`.
pub(crate) fn object(
    bytes: &[u8],
    encoding: Encoding,
    expected: &Expected<'_>,
    table: &Table,
    warnings: &mut Vec<String>,
) -> Result<Value, Box<Status>> {
    let decoded = tree(bytes, encoding, &expected.gvk)?;
    let duplicates = decoded.duplicate_messages();
    let mut value = decoded.value;
    set_kind(&mut value, &expected.gvk, table)?;
    let Some(ty) = expected.ty else { return Ok(value) };
    let kind = &expected.gvk.kind;
    let cannot = |why: String| {
        let version = &expected.gvk.version;
        Box::new(Status::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {why}")))
    };
    let mut odd = duplicates;
    odd.extend(check::unknown_fields(ty, &mut value));
    check::types(ty, &value).map_err(cannot)?;
    match expected.validation {
        FieldValidation::Strict if !odd.is_empty() => Err(cannot(format!("strict decoding error: {}", odd.join(", ")))),
        FieldValidation::Warn => {
            warnings.extend(odd);
            Ok(value)
        }
        _ => Ok(value),
    }
}

/// The tree of an object in protobuf, which is of kind `default` where it does not say.
pub(crate) fn protobuf(bytes: &[u8], default: (&str, &str)) -> Result<Value, Box<Status>> {
    let kind = default.1;
    let bad = |message: String| Box::new(Status::bad_request(message));
    let envelope = Envelope::open(bytes).map_err(|e| {
        let shown = summary(bytes);
        bad(format!("the object provided is unrecognized (must be of type {kind}): {e} ({shown})"))
    })?;
    envelope.object(default, Limits::default()).map_err(|e| {
        let found = envelope.api_version.rsplit('/').next().unwrap_or_default();
        bad(format!("{} in version {found:?} cannot be handled as a {kind}: {e}", envelope.kind))
    })
}

fn tree(bytes: &[u8], encoding: Encoding, expected: &GroupVersionKind) -> Result<Decoded, Box<Status>> {
    let kind = &expected.kind;
    if encoding == Encoding::Protobuf {
        let value = protobuf(bytes, (&expected.api_version(), kind))?;
        return Ok(Decoded { value, duplicates: Vec::new() });
    }
    if encoding == Encoding::Cbor {
        let head = format!("the object provided is unrecognized (must be of type {kind}): couldn't get version/kind");
        let bad =
            |why: &dyn std::fmt::Display| Box::new(Status::bad_request(format!("{head}; {why} ({})", summary(bytes))));
        let value = pintle_schema::cbor::decode(bytes, Limits::default()).map_err(|e| bad(&e))?;
        if !value.is_object() {
            return Err(bad(&"cbor: the object is no map"));
        }
        return Ok(Decoded { value, duplicates: Vec::new() });
    }
    let unrecognized = |why: &dyn std::fmt::Display| {
        let shown = summary(bytes);
        let head = format!("the object provided is unrecognized (must be of type {kind}): couldn't get version/kind");
        Box::new(Status::bad_request(format!("{head}; json parse error: {why} ({shown})")))
    };
    let decoded = match encoding {
        Encoding::Yaml => pintle_schema::decode::yaml(bytes, Limits::default()),
        _ => pintle_schema::decode::json(bytes, Limits::default()),
    };
    let decoded = decoded.map_err(|e| unrecognized(&e))?;
    let found = match &decoded.value {
        Value::Object(_) => return Ok(decoded),
        Value::Null => return Ok(Decoded { value: Value::Object(Default::default()), ..decoded }),
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
    };
    let target =
        r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
    Err(unrecognized(&format!("json: cannot unmarshal {found} into Go value of type {target}")))
}

/// The beginning of a body as messages show it: JSON objects as they are, all else in hexadecimal.
fn summary(bytes: &[u8]) -> String {
    const SHOWN: usize = 1024;
    let cut = &bytes[..bytes.len().min(SHOWN)];
    let text = match bytes.first() {
        None => return "<empty>".into(),
        Some(b'{') => String::from_utf8_lossy(cut).into_owned(),
        Some(_) => hex::encode(cut),
    };
    if bytes.len() > SHOWN { format!("{text} ...") } else { text }
}

/// Checks `apiVersion` and `kind`, or fills them in.
fn set_kind(value: &mut Value, expected: &GroupVersionKind, table: &Table) -> Result<(), Box<Status>> {
    let Some(fields) = value.as_object_mut() else { return Ok(()) };
    let text = |v: Option<&Value>| v.and_then(Value::as_str).unwrap_or_default().to_owned();
    let (api_version, kind) = (text(fields.get("apiVersion")), text(fields.get("kind")));
    let wanted = expected.api_version();
    if (!api_version.is_empty() && api_version != wanted) || (!kind.is_empty() && kind != expected.kind) {
        let api_version = if api_version.is_empty() { wanted } else { api_version };
        let kind = if kind.is_empty() { expected.kind.clone() } else { kind };
        return Err(wrong_kind(&api_version, &kind, expected, table));
    }
    fields.insert("apiVersion".into(), wanted.into());
    fields.insert("kind".into(), expected.kind.as_str().into());
    Ok(())
}

fn wrong_kind(api_version: &str, kind: &str, expected: &GroupVersionKind, table: &Table) -> Box<Status> {
    let found = GroupVersion::parse(api_version).unwrap_or_else(|| GroupVersion::new(api_version, ""));
    let head = format!("{kind} in version {:?} cannot be handled as a {}", found.version, expected.kind);
    let why = if table.by_kind(&found.group, &found.version, kind).is_none() {
        format!("no kind {kind:?} is registered for version {api_version:?} in scheme \"{SCHEME}\"")
    } else if kind == expected.kind && found.group == expected.group {
        let wanted = expected.api_version();
        let message =
            format!("the API version in the data ({api_version}) does not match the expected API version ({wanted})");
        return Box::new(Status::bad_request(message));
    } else {
        let (from, to) = (&found.version, internal_package(&expected.group));
        format!("converting ({from}.{kind}) to ({to}.{}): unknown conversion", expected.kind)
    };
    Box::new(Status::bad_request(format!("{head}: {why}")))
}

/// Clients see where upstream's list of kinds was made.
const SCHEME: &str = "pkg/api/legacyscheme/scheme.go:30";

/// The name that upstream's unversioned types of a group go by.
fn internal_package(group: &str) -> &str {
    match group.split('.').next().unwrap_or_default() {
        "" => "core",
        name => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, expected: &str) {
        let table = Table::builtin();
        let gvk = GroupVersionKind::new("", "v1", "ConfigMap");
        let expected_kind = Expected { gvk, ty: None, validation: FieldValidation::Warn };
        let got = object(body.as_bytes(), Encoding::Json, &expected_kind, &table, &mut Vec::new());
        let got = got.map_or_else(|s| s.message.clone(), |v| v.to_string());
        assert!(got.contains(expected), "{body}: {got}");
    }

    #[test]
    fn bodies_of_another_kind_are_refused() {
        check(r#"{"metadata":{}}"#, r#""apiVersion":"v1""#);
        check(r#"{"kind":"Pod","apiVersion":"v1"}"#, "converting (v1.Pod) to (core.ConfigMap): unknown conversion");
        check(
            r#"{"kind":"ConfigMap","apiVersion":"v9"}"#,
            "ConfigMap in version \"v9\" cannot be handled as a ConfigMap: no kind \"ConfigMap\" is registered",
        );
        check("[]", "cannot unmarshal array into Go value of type struct { APIVersion string");
        check("[]", "(5b5d)");
        check("", "(<empty>)");
    }

    #[test]
    fn bad_protobuf_is_told_by_how_far_it_was_understood() {
        let message = |bytes: &[u8]| protobuf(bytes, ("v1", "ConfigMap")).map_or_else(|s| s.message, |v| v.to_string());
        assert_eq!(
            message(b"{}"),
            "the object provided is unrecognized (must be of type ConfigMap): provided data does not appear to be a \
             protobuf message, expected prefix [107 56 115 0] ({})"
        );
        let cut = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x01\x0a";
        assert_eq!(message(cut), "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: unexpected EOF");
    }
}

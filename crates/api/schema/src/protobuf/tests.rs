//! Round trips, exact bytes, and bytes that are none.

use super::table::{self, Form};
use super::*;
use crate::{Shape, normalize};
use serde_json::json;

fn decode(bytes: &[u8]) -> Result<Value, ProtobufError> {
    Envelope::open(bytes)?.object(("", ""), Limits::default())
}

/// A value of a type with everything set; no definition within itself.
fn sample(ty: TypeRef<'_>, form: Form, within: &mut Vec<&'static str>) -> Value {
    match (form, ty.shape()) {
        (_, Shape::Map { value, .. }) => json!({"k1": sample(value, form, within), "k2": sample(value, form, within)}),
        (Form::Wrapped, _) => json!(["one", "two"]),
        (Form::SchemaOrBool, _) => json!(true),
        (Form::SchemaOrNames, _) => json!(["name"]),
        (Form::SchemaOrList, _) => json!([{"type": "string"}, {"minLength": 0}]),
        (_, Shape::Object { .. }) => Value::Object(sample_fields(ty, within)),
        (_, Shape::List { item, .. }) => json!([sample(item, form, within), sample(item, form, within)]),
        (_, Shape::String) => "text ü".into(),
        (_, Shape::Int32) => (-7).into(),
        (_, Shape::Int64) => i64::MAX.into(),
        (_, Shape::Number) => 2.5.into(),
        (_, Shape::Bool) => true.into(),
        (_, Shape::Quantity) => "1500m".into(),
        (_, Shape::IntOrString) => "25%".into(),
        (_, Shape::Time) => "2026-01-02T03:04:05Z".into(),
        (_, Shape::MicroTime) => "1969-12-31T23:59:59.000006Z".into(),
        (_, Shape::Bytes) => "AAH/".into(),
        (_, Shape::Any) => json!({"any": [1, "x", null]}),
    }
}

fn sample_fields(ty: TypeRef<'_>, within: &mut Vec<&'static str>) -> Map<String, Value> {
    let mut map = Map::new();
    let Some(layout) = table::layout(ty) else { return map };
    for entry in &layout.entries {
        let field = entry.field;
        let inner = innermost(field.ty()).name();
        if !inner.is_empty() && within.contains(&inner) {
            continue;
        }
        within.push(inner);
        map.insert(field.name().into(), sample(field.ty(), entry.form, within));
        within.pop();
    }
    map
}

fn innermost(ty: TypeRef<'static>) -> TypeRef<'static> {
    match ty.shape() {
        Shape::List { item: inner, .. } | Shape::Map { value: inner, .. } => innermost(inner),
        _ => ty,
    }
}

/// Encodes and decodes; both ways of printing must agree.
fn round_trip(ty: TypeRef<'_>, mut object: Value) {
    let bytes = encode(&object).unwrap_or_else(|| unreachable!("{ty:?} has no message"));
    let mut back = decode(&bytes).unwrap();
    normalize::object(ty, &mut object);
    normalize::object(ty, &mut back);
    assert_eq!(back, object);
    assert_eq!(encode(&back).unwrap(), bytes, "{}", ty.name());
}

#[test]
fn every_kind_goes_there_and_back() {
    let schema = Schema::builtin();
    let mut seen = 0;
    for key in schema.kinds.keys() {
        let mut parts = key.split('/');
        let (group, version, kind) = match [parts.next(), parts.next(), parts.next()] {
            [Some(group), Some(version), Some(kind)] => (group, version, kind),
            _ => ("", "v1", key.trim_start_matches("*/")),
        };
        let ty = schema.kind(group, version, kind).unwrap();
        let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        let mut full = Value::Object(sample_fields(ty, &mut vec![ty.name()]));
        for mut object in [full.take(), json!({})] {
            object["apiVersion"] = api_version.as_str().into();
            object["kind"] = kind.into();
            round_trip(ty, object);
        }
        seen += 1;
    }
    assert!(seen > 150, "{seen}");
}

/// `text` as bytes, spaces and line breaks left out.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

/// The message of an object without its envelope.
fn raw(object: &Value) -> Vec<u8> {
    Envelope::open(&encode(object).unwrap()).unwrap().raw.to_vec()
}

#[test]
fn a_config_map_is_written_as_upstream_stores_it() {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"},
        "metadata": {"name": "x", "namespace": "default", "creationTimestamp": "2023-07-14T03:17:56Z"}});
    let expected = hex("6b387300  0a0f 0a027631 1209436f6e6669674d6170
         122a  0a20 0a0178 1200 1a0764656661756c74 2200 2a00 3200 3800 4208 08e4fcc2a506 1000
               1206 0a0161 120162
         1a00 2200");
    assert_eq!(encode(&object).unwrap(), expected);
    assert_eq!(decode(&expected).unwrap(), object);
}

#[test]
fn special_types_are_written_as_upstream_writes_them() {
    // Type, port as a message {type, intVal, strVal}; the rest of the struct is empty.
    let service = |port: Value| json!({"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"port": 80, "targetPort": port}]}});
    let port = |text: &str| [hex("0a00 1200 1850 22"), hex(text), hex("2800")].concat();
    let contains = |object: &Value, part: &[u8]| {
        let bytes = raw(object);
        assert!(bytes.windows(part.len()).any(|window| window == part), "{object}: {bytes:02x?}");
    };
    contains(&service(json!(8080)), &port("07 0800 10903f 1a00"));
    contains(&service(json!("http")), &port("0a 0801 1000 1a0468747470"));
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "spec": {"hard": {"cpu": "500m"}}});
    contains(&quota, &hex("0a0d 0a03637075 1206 0a04 3530306d"));
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": {"renewTime": "1970-01-01T00:00:01.000002Z"}});
    contains(&lease, &hex("2205 0801 10d00f"));
    // Negative numbers take ten bytes.
    let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "value": -1});
    contains(&class, &hex("10ffffffffffffffffff01"));
    // Wrapped lists, in maps too.
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {"extra": {"k": ["v", "w"]}}});
    contains(&review, &hex("2a0b 0a016b 1206 0a0176 0a0177"));
}

#[test]
fn what_json_leaves_out_is_left_out() {
    // Empty strings and times, a merged message, an unknown number; a pointer to 0 stays.
    let message = hex("0a04 1200 4200 0a03 0a0178 9a0600 1204 0800 2800");
    let mut bytes = hex("6b387300 0a15 0a07617070732f7631 120a");
    bytes.extend(b"Deployment");
    wire::put_bytes(&mut bytes, 2, &message);
    let expected =
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "spec": {"replicas": 0}});
    assert_eq!(decode(&bytes).unwrap(), expected);
}

#[test]
fn objects_in_objects_may_have_an_envelope() {
    let inner = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}});
    let frame = encode_watch_event("ADDED", &inner).unwrap();
    assert_eq!(u32::from_be_bytes(frame[..4].try_into().unwrap()) as usize, frame.len() - 4);
    let mut event = hex("6b387300 0a10 0a027631 120a");
    event.extend(b"WatchEvent");
    wire::put_bytes(&mut event, 2, &frame[4..]);
    let expected = json!({"apiVersion": "v1", "kind": "WatchEvent", "type": "ADDED", "object": inner});
    assert_eq!(decode(&event).unwrap(), expected);
}

#[test]
fn bad_bytes_are_told_in_gos_words() {
    let message = |bytes: &[u8]| decode(bytes).map_or_else(|e| e.to_string(), |value| value.to_string());
    let map = |raw: &str| {
        let mut bytes = hex("6b387300 0a0f 0a027631 1209436f6e6669674d6170");
        wire::put_bytes(&mut bytes, 2, &hex(raw));
        bytes
    };
    let prefix = "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]";
    for (bytes, expected) in [
        (Vec::new(), "empty data"),
        (b"{}".to_vec(), prefix),
        (b"k8s\0".to_vec(), "empty body"),
        (map("0a05"), "unexpected EOF"),
        (map("0a80"), "unexpected EOF"),
        (map("0affffffffffffffffffff"), "proto: integer overflow"),
        (map("0800"), "proto: wrong wireType = 0 for field Metadata"),
        (map("0b"), "proto: illegal wireType 3"),
        (map("0000"), "proto: illegal tag 0"),
    ] {
        assert_eq!(message(&bytes), expected, "{bytes:02x?}");
    }
    let nothing = hex("6b387300 0a04 0a027631");
    assert_eq!(Envelope::open(&nothing).unwrap().kind, "");
    let unknown = hex("6b387300 0a07 0a027631 120158 1201ff");
    assert_eq!(decode(&unknown).unwrap(), json!({"apiVersion": "v1", "kind": "X"}), "nothing is known of its message");
}

#[test]
fn is_bounded() {
    let object = |kind: &str, api_version: &str, raw: &[u8]| {
        let mut meta = Vec::new();
        wire::put_bytes(&mut meta, 1, api_version.as_bytes());
        wire::put_bytes(&mut meta, 2, kind.as_bytes());
        let mut bytes = MAGIC.to_vec();
        wire::put_bytes(&mut bytes, 1, &meta);
        wire::put_bytes(&mut bytes, 2, raw);
        bytes
    };
    // Schemas in schemas (`not` is number 28), in the first version (7, 4, 1) of a definition's spec (2).
    let mut nested = Vec::new();
    for _ in 0..2000 {
        let inner = std::mem::take(&mut nested);
        wire::put_bytes(&mut nested, 28, &inner);
    }
    for path in [1, 4, 7, 2] {
        let inner = std::mem::take(&mut nested);
        wire::put_bytes(&mut nested, path, &inner);
    }
    let crd = object("CustomResourceDefinition", "apiextensions.k8s.io/v1", &nested);
    assert_eq!(decode(&crd).unwrap_err(), ProtobufError::Depth);
    let many = hex("1a00").repeat(1 << 20);
    assert_eq!(decode(&object("ServiceAccount", "v1", &many)).unwrap_err(), ProtobufError::Values);
    let small = Limits { max_bytes: 4, ..Limits::default() };
    let bytes = object("ServiceAccount", "v1", &[0; 5]);
    let error = Envelope::open(&bytes).unwrap().object(("", ""), small).unwrap_err();
    assert_eq!(error, ProtobufError::Size { bytes: 5, limit: 4 });
}

/// Cut anywhere and with any byte changed, a message is decoded or refused, never more; and so are random bytes.
#[test]
fn never_panics() {
    let schema = Schema::builtin();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    for (api_version, group, version, kind) in [
        ("v1", "", "v1", "Service"),
        ("batch/v1", "batch", "v1", "JobList"),
        ("apps/v1", "apps", "v1", "ControllerRevision"),
    ] {
        let ty = schema.kind(group, version, kind).unwrap();
        let mut object = sample(ty, Form::Plain, &mut vec![ty.name()]);
        object["apiVersion"] = api_version.into();
        object["kind"] = kind.into();
        let bytes = encode(&object).unwrap();
        for _ in 0..300 {
            let at = next() as usize % bytes.len();
            let _ = decode(&bytes[..at]).is_ok();
            let mut changed = bytes.clone();
            for _ in 0..next() % 4 + 1 {
                let at = next() as usize % changed.len();
                changed[at] = next() as u8;
            }
            if let Ok(value) = decode(&changed) {
                let _ = encode(&value);
            }
            let noise: Vec<u8> = (0..next() % 64).map(|_| next() as u8).collect();
            let mut map = Map::new();
            let _ = decode::Decoder::new(Limits::default()).object(ty, &noise, &mut map).is_ok();
        }
    }
}

#[test]
fn lists_of_finished_messages_are_as_those_of_trees() {
    let item = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b".repeat(300)}});
    let metadata = json!({"resourceVersion": "7", "continue": "x", "remainingItemCount": 3});
    let list =
        json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": metadata, "items": [item("a"), item("b")]});
    let items = ["a", "b"].map(|name| message(&item(name)).unwrap());
    let made = encode_list("v1", "ConfigMapList", metadata.as_object().unwrap(), &items).unwrap();
    assert_eq!(made, encode(&list).unwrap());
    assert!(encode_list("example.com/v1", "ThingList", metadata.as_object().unwrap(), &items).is_none());
}

#[test]
fn metadata_alone_has_a_form() {
    let metadata = json!({"metadata": {"name": "n", "labels": {"a": "b"}}});
    let with = |version: &str, kind: &str, rest: Value| {
        let mut object = rest;
        object["apiVersion"] = version.into();
        object["kind"] = kind.into();
        encode(&object).unwrap()
    };
    let one = with("meta.k8s.io/v1", "PartialObjectMetadata", metadata.clone());
    let envelope = Envelope::open(&one).unwrap();
    let (field, inner) = wire::next(&mut &*envelope.raw).unwrap().unwrap();
    assert_eq!(field, 1);
    assert!(matches!(inner, Payload::Bytes(bytes) if bytes.starts_with(b"\x0a\x01n")));
    let list = json!({"metadata": {"resourceVersion": "5"}, "items": [metadata]});
    let first = |version: &str| {
        let list = with(version, "PartialObjectMetadataList", list.clone());
        wire::next(&mut Envelope::open(&list).unwrap().raw).unwrap().unwrap().1
            == Payload::Bytes(Envelope::open(&one).unwrap().raw)
    };
    assert!(first("meta.k8s.io/v1beta1"), "items come first there");
    assert!(!first("meta.k8s.io/v1"));
}

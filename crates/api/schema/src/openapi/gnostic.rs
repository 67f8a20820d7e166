//! The v2 document in the protobuf form that older clients insist on (gnostic's `openapi_v2.Document`).

use pintle_protobuf::wire;
use serde_json::{Map, Value};

/// A protobuf message as it is written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        wire::put_bytes(&mut self.0, field, bytes);
    }

    fn message(&mut self, field: u32, fill: impl FnOnce(&mut Self)) {
        wire::put_nested(&mut self.0, field, |out| {
            let mut inner = Self(std::mem::take(out));
            fill(&mut inner);
            *out = inner.0;
        });
    }

    fn text(&mut self, field: u32, value: &Value) {
        if let Some(text) = value.as_str().filter(|text| !text.is_empty()) {
            self.bytes(field, text.as_bytes());
        }
    }

    fn texts(&mut self, field: u32, value: &Value) {
        let texts = value.as_array().into_iter().flatten().filter_map(Value::as_str);
        texts.for_each(|text| self.bytes(field, text.as_bytes()));
    }

    fn flag(&mut self, field: u32, value: &Value) {
        if *value == true {
            wire::put_varint(&mut self.0, field, 1);
        }
    }

    fn integer(&mut self, field: u32, value: &Value) {
        if let Some(integer) = value.as_i64() {
            wire::put_varint(&mut self.0, field, integer as u64);
        }
    }

    fn double(&mut self, field: u32, value: &Value) {
        if let Some(double) = value.as_f64() {
            wire::put_double(&mut self.0, field, double);
        }
    }

    /// A value without a schema: as YAML, and JSON is YAML.
    fn any(&mut self, field: u32, value: &Value) {
        if !value.is_null() {
            self.message(field, |any| any.bytes(2, value.to_string().as_bytes()));
        }
    }

    /// An entry of a map with names: `{name, value}`.
    fn named(&mut self, field: u32, name: &str, fill: impl FnOnce(&mut Self)) {
        self.message(field, |entry| {
            entry.bytes(1, name.as_bytes());
            entry.message(2, fill);
        });
    }

    /// The `x-…` keys of an object.
    fn extensions(&mut self, field: u32, object: &Value) {
        for (name, value) in entries(object).filter(|(name, _)| name.starts_with("x-")) {
            self.named(field, name, |any| any.bytes(2, value.to_string().as_bytes()));
        }
    }
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

/// The document, which is v2 JSON, in protobuf; empty when it is none.
pub(super) fn encode(document: &[u8]) -> Vec<u8> {
    let document: Value = serde_json::from_slice(document).unwrap_or_default();
    let mut out = Message::default();
    out.text(1, &document["swagger"]);
    out.message(2, |info| {
        info.text(1, &document["info"]["title"]);
        info.text(2, &document["info"]["version"]);
    });
    out.message(8, |paths| {
        entries(&document["paths"]).for_each(|(path, item)| paths.named(2, path, |out| path_item(out, item)));
    });
    out.message(9, |definitions| {
        let all = entries(&document["definitions"]);
        all.for_each(|(name, definition)| definitions.named(1, name, |out| schema(out, definition)));
    });
    for requirement in document["security"].as_array().into_iter().flatten() {
        out.message(12, |out| entries(requirement).for_each(|(name, _)| out.named(1, name, |_| {})));
    }
    out.message(13, |out| {
        let all = entries(&document["securityDefinitions"]);
        all.for_each(|(name, definition)| out.named(1, name, |out| out.message(2, |key| api_key(key, definition))));
    });
    out.0
}

fn api_key(out: &mut Message, definition: &Value) {
    for (field, name) in [(1, "type"), (2, "name"), (3, "in"), (4, "description")] {
        out.text(field, &definition[name]);
    }
}

fn path_item(out: &mut Message, item: &Value) {
    for (field, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (8, "patch")] {
        if item[method].is_object() {
            out.message(field, |out| operation(out, &item[method]));
        }
    }
    parameters(out, 9, &item["parameters"]);
}

fn operation(out: &mut Message, operation: &Value) {
    out.texts(1, &operation["tags"]);
    out.text(3, &operation["description"]);
    out.text(5, &operation["operationId"]);
    out.texts(6, &operation["produces"]);
    out.texts(7, &operation["consumes"]);
    parameters(out, 8, &operation["parameters"]);
    out.message(9, |out| {
        for (code, response) in entries(&operation["responses"]) {
            out.named(1, code, |value| {
                value.message(1, |out| {
                    out.text(1, &response["description"]);
                    if response["schema"].is_object() {
                        out.message(2, |item| item.message(1, |out| schema(out, &response["schema"])));
                    }
                });
            });
        }
    });
    out.texts(10, &operation["schemes"]);
    out.extensions(13, operation);
}

fn parameters(out: &mut Message, field: u32, list: &Value) {
    for parameter in list.as_array().into_iter().flatten() {
        out.message(field, |item| {
            item.message(1, |out| match parameter["in"].as_str() {
                Some("body") => out.message(1, |out| {
                    out.text(1, &parameter["description"]);
                    out.text(2, &parameter["name"]);
                    out.text(3, &parameter["in"]);
                    out.flag(4, &parameter["required"]);
                    out.message(5, |out| schema(out, &parameter["schema"]));
                }),
                Some("path") => out.message(2, |out| out.message(4, |out| plain_parameter(out, parameter, [5, 18]))),
                _ => out.message(2, |out| out.message(3, |out| plain_parameter(out, parameter, [6, 20]))),
            });
        });
    }
}

/// A parameter in the path or the query; the field numbers of `type` and `uniqueItems` differ.
fn plain_parameter(out: &mut Message, parameter: &Value, [ty, unique]: [u32; 2]) {
    out.flag(1, &parameter["required"]);
    out.text(2, &parameter["in"]);
    out.text(3, &parameter["description"]);
    out.text(4, &parameter["name"]);
    out.text(ty, &parameter["type"]);
    out.flag(unique, &parameter["uniqueItems"]);
}

fn schema(out: &mut Message, schema_value: &Value) {
    let of = |name: &str| &schema_value[name];
    for (field, name) in [(1, "$ref"), (2, "format"), (3, "title"), (4, "description"), (13, "pattern")] {
        out.text(field, of(name));
    }
    out.any(5, of("default"));
    for (field, name) in [(6, "multipleOf"), (7, "maximum"), (9, "minimum")] {
        out.double(field, of(name));
    }
    for (field, name) in [(8, "exclusiveMaximum"), (10, "exclusiveMinimum"), (16, "uniqueItems")] {
        out.flag(field, of(name));
    }
    for (field, name) in [
        (11, "maxLength"),
        (12, "minLength"),
        (14, "maxItems"),
        (15, "minItems"),
        (17, "maxProperties"),
        (18, "minProperties"),
    ] {
        out.integer(field, of(name));
    }
    out.texts(19, of("required"));
    of("enum").as_array().into_iter().flatten().for_each(|value| out.any(20, value));
    match of("additionalProperties") {
        Value::Bool(_) => out.message(21, |item| item.flag(2, of("additionalProperties"))),
        Value::Object(_) => out.message(21, |item| item.message(1, |out| schema(out, of("additionalProperties")))),
        _ => {}
    }
    if of("type").is_string() {
        out.message(22, |item| item.text(1, of("type")));
    }
    if of("items").is_object() {
        out.message(23, |item| item.message(1, |out| schema(out, of("items"))));
    }
    of("allOf").as_array().into_iter().flatten().for_each(|value| out.message(24, |out| schema(out, value)));
    if of("properties").is_object() {
        out.message(25, |out| {
            entries(of("properties")).for_each(|(name, value)| out.named(1, name, |out| schema(out, value)))
        });
    }
    out.extensions(31, schema_value);
}

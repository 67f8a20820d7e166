//! Bytes into JSON trees, bounded in size and depth, with the duplicate keys told.

use serde_json::Value;

mod json;
mod yaml;

/// Bounds of one document.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub max_bytes: usize,
    /// Of nested objects and lists.
    pub max_depth: usize,
}

impl Default for Limits {
    /// 3 MiB, as upstream takes; 256 levels, several times what any kind needs.
    fn default() -> Self {
        Self { max_bytes: 3 << 20, max_depth: 256 }
    }
}

/// A document and what was odd about it.
#[derive(Debug)]
pub struct Decoded {
    pub value: Value,
    /// Paths such as `metadata.name` of keys that came more than once; the last one counts.
    pub duplicates: Vec<String>,
}

impl Decoded {
    /// Upstream's words for the duplicates, such as `duplicate field "metadata.name"`.
    pub fn duplicate_messages(&self) -> Vec<String> {
        self.duplicates.iter().map(|path| format!("duplicate field \"{path}\"")).collect()
    }
}

/// Bytes that are no document. The messages are upstream's where it has the same bound.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Go's words, such as `unexpected end of JSON input`.
    #[error("{0}")]
    Json(String),
    #[error("error converting YAML to JSON: {0}")]
    Yaml(String),
    #[error("exceeded max depth")]
    Depth,
    #[error("the document has {bytes} bytes, {limit} are allowed")]
    Size { bytes: usize, limit: usize },
}

/// Decodes one JSON value.
pub fn json(bytes: &[u8], limits: Limits) -> Result<Decoded, DecodeError> {
    check_size(bytes, limits)?;
    json::Parser::new(bytes, limits.max_depth).document()
}

/// Decodes one YAML (or JSON) document. Aliases may multiply it up to sixteen times the allowed bytes in values.
pub fn yaml(bytes: &[u8], limits: Limits) -> Result<Decoded, DecodeError> {
    check_size(bytes, limits)?;
    // JSON is YAML; this way is faster and tells duplicates.
    if bytes.trim_ascii_start().first() == Some(&b'{')
        && let Ok(decoded) = json::Parser::new(bytes, limits.max_depth).document()
    {
        return Ok(decoded);
    }
    yaml::document(bytes, limits)
}

fn check_size(bytes: &[u8], limits: Limits) -> Result<(), DecodeError> {
    if bytes.len() > limits.max_bytes {
        return Err(DecodeError::Size { bytes: bytes.len(), limit: limits.max_bytes });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json as tree;

    fn message(text: &str) -> String {
        json(text.as_bytes(), Limits::default())
            .map_or_else(|error| error.to_string(), |decoded| decoded.value.to_string())
    }

    #[test]
    fn decodes_and_says_what_go_says() {
        for (text, expected) in [
            (
                r#"{"a":[1,-2.5e3,true,null,"x\u00e9\n\ud83d\ude00"]}"#,
                "{\"a\":[1,-2500.0,true,null,\"x\u{e9}\\n\u{1f600}\"]}",
            ),
            (" 7 ", "7"),
            ("", "unexpected end of JSON input"),
            ("{", "unexpected end of JSON input"),
            ("{]", "invalid character ']' looking for beginning of object key string"),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            ("{\"a\":1 \"b\"}", "invalid character '\"' after object key:value pair"),
            ("[1 2]", "invalid character '2' after array element"),
            ("[1,]", "invalid character ']' looking for beginning of value"),
            ("nul", "unexpected end of JSON input"),
            ("nulx", "invalid character 'x' in literal null (expecting 'l')"),
            ("01", "invalid character '1' after top-level value"),
            ("1.", "unexpected end of JSON input"),
            ("-x", "invalid character 'x' in numeric literal"),
            ("1.x", "invalid character 'x' after decimal point in numeric literal"),
            ("\"a\nb\"", "invalid character '\\n' in string literal"),
            ("\"\\q\"", "invalid character 'q' in string escape code"),
            ("{} x", "invalid character 'x' after top-level value"),
        ] {
            assert_eq!(message(text), expected, "{text}");
        }
    }

    #[test]
    fn tells_duplicates_and_keeps_the_last() {
        let decoded = json(br#"{"m":{"n":"a","n":"b"},"l":[{"x":1,"x":2}]}"#, Limits::default()).unwrap();
        assert_eq!(decoded.value, serde_json::json!({"m": {"n": "b"}, "l": [{"x": 2}]}));
        assert_eq!(decoded.duplicates, ["m.n", "l[0].x"]);
        assert_eq!(decoded.duplicate_messages()[0], "duplicate field \"m.n\"");
    }

    #[test]
    fn is_bounded() {
        let deep = "[".repeat(100_000);
        assert_eq!(json(deep.as_bytes(), Limits::default()).unwrap_err(), DecodeError::Depth);
        assert!(yaml(deep.as_bytes(), Limits::default()).is_err());
        let small = Limits { max_bytes: 4, ..Limits::default() };
        assert_eq!(json(b"[1,2]", small).unwrap_err(), DecodeError::Size { bytes: 5, limit: 4 });
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for i in 1..12 {
            let item = format!("*a{}", i - 1);
            bomb.push_str(&format!("a{i}: &a{i} [{}]\n", vec![item; 10].join(",")));
        }
        assert!(yaml(bomb.as_bytes(), Limits { max_bytes: 2000, ..Limits::default() }).is_err());
    }

    #[test]
    fn decodes_yaml_as_upstream_does() {
        for (text, expected) in [
            ("kind: ConfigMap\nmetadata: {name: y}\n", tree!({"kind": "ConfigMap", "metadata": {"name": true}})),
            ("a: 010\nz:\n1: x\n", tree!({"a": 8, "z": null, "1": "x"})),
            ("a: yes\nb: 'yes'\nc: \"off\"\nd: |\n  no\n", tree!({"a": true, "b": "yes", "c": "off", "d": "no\n"})),
            ("a: &x {b: 1}\nc: *x\n---\nd: 1\n", tree!({"a": {"b": 1}, "c": {"b": 1}})),
            ("{\"a\": \"no\", b: no}", tree!({"a": "no", "b": false})),
            ("# nothing\n", Value::Null),
        ] {
            assert_eq!(yaml(text.as_bytes(), Limits::default()).unwrap().value, expected, "{text}");
        }
    }

    #[test]
    fn bad_yaml_is_told_as_go_tells_it() {
        for (text, message) in [
            ("not: [valid", "yaml: line 1: did not find expected ',' or ']'"),
            ("a: b: c", "yaml: mapping values are not allowed in this context"),
            ("a: 1\nb: c: d\n", "yaml: line 2: mapping values are not allowed in this context"),
            ("a:\n\t- b\n", "yaml: line 2: found character that cannot start any token"),
        ] {
            let error = yaml(text.as_bytes(), Limits::default()).unwrap_err();
            assert_eq!(error.to_string(), format!("error converting YAML to JSON: {message}"), "{text:?}");
        }
    }

    /// Cut anywhere and with any byte changed, a document is decoded or refused, never more.
    #[test]
    fn never_panics() {
        let text = br#"{"a":[{"b":"c\u0041\\"},-1.5e+10,true,null],"d":{"e":{}}}"#;
        for at in 0..text.len() {
            let _ = json(&text[..at], Limits::default()).is_ok();
            for byte in [0, b'"', b'\\', b'{', b']', b'9', 0xff] {
                let mut changed = text.to_vec();
                changed[at] = byte;
                let _ = json(&changed, Limits::default()).is_ok();
                let _ = yaml(&changed, Limits::default()).is_ok();
            }
        }
    }
}

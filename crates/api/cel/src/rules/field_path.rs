//! `fieldPath` of rules: `.spec.x['a.b']`, checked against a schema.

use pintle_types::field::Path;
use serde_json::Value as Json;

/// The path as errors show it.
pub(super) fn resolve(text: &str, schema: &Json) -> Result<String, String> {
    let (mut path, mut schema, mut rest) = (Path::default(), schema, text);
    while !rest.is_empty() {
        let (name, after) = step(rest)?;
        rest = after;
        if let Some(properties) = schema["properties"].as_object() {
            path = path.child(&name);
            schema = properties.get(&name).ok_or("does not refer to a valid field")?;
        } else if schema["additionalProperties"].is_object() {
            path = path.key(&name);
            schema = &schema["additionalProperties"];
        } else {
            return Err("does not refer to a valid field".into());
        }
    }
    Ok(path.as_str().to_owned())
}

/// The first step's name, and what follows it.
fn step(text: &str) -> Result<(String, &str), String> {
    if let Some(rest) = text.strip_prefix('.') {
        let end = rest.find(['.', '[', ']']).unwrap_or(rest.len());
        return match end {
            0 => Err("unexpected end of JSON path".into()),
            end => Ok((rest[..end].to_owned(), &rest[end..])),
        };
    }
    let Some(rest) = text.strip_prefix('[') else {
        return Err(format!("expected [ or . but got: {text}"));
    };
    let Some(quoted) = rest.strip_prefix('\'') else {
        return Err(format!("expected single quoted string but got {rest}"));
    };
    let (name, after) = unquote(quoted)?;
    let after = after.strip_prefix(']').ok_or_else(|| format!("expected ] but got {after}"))?;
    Ok((name, after))
}

/// The text up to a single quote, and what follows that.
fn unquote(text: &str) -> Result<(String, &str), String> {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\'' => return Ok((name, &text[at + 1..])),
            '\\' => match chars.next().map(|(_, c)| c) {
                Some('a') => name.push('\u{7}'),
                Some('b') => name.push('\u{8}'),
                Some('f') => name.push('\u{c}'),
                Some('n') => name.push('\n'),
                Some('r') => name.push('\r'),
                Some('t') => name.push('\t'),
                Some('v') => name.push('\u{b}'),
                Some(c @ ('\'' | '\\')) => name.push(c),
                other => {
                    let shown = other.map(String::from).unwrap_or_default();
                    return Err(format!("invalid string literal: invalid escape char \\{shown}"));
                }
            },
            c => name.push(c),
        }
    }
    Err("unexpected end of JSON path".into())
}

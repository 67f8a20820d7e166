//! Takes `metadata.managedFields` out of the text of an object before it is decoded: caches don't keep them, and they are
//! often half of the text.

use std::borrow::Cow;
use std::ops::Range;

/// The object without them; as it is where it has none, or where it is not written without spaces, as servers do.
pub(crate) fn without_managed_fields(object: &[u8]) -> Cow<'_, [u8]> {
    match place(object) {
        Some(place) => Cow::Owned([&object[..place.start], &object[place.end..]].concat()),
        None => Cow::Borrowed(object),
    }
}

/// Where the member is, with one of the commas about it.
fn place(text: &[u8]) -> Option<Range<usize>> {
    let metadata = member(text, 0, b"metadata")?;
    let found = member(text, metadata.value, b"managedFields")?;
    let end = skip(text, found.value)?;
    Some(match text[found.key - 1] {
        b',' => found.key - 1..end,
        _ if text.get(end) == Some(&b',') => found.key..end + 1,
        _ => found.key..end,
    })
}

/// The places of a member's key, with its quotes, and of its value.
struct Member {
    key: usize,
    value: usize,
}

/// Looks for a member of the object that begins at `at`.
fn member(text: &[u8], at: usize, name: &[u8]) -> Option<Member> {
    if text.get(at) != Some(&b'{') {
        return None;
    }
    let mut key = at + 1;
    loop {
        let colon = skip_string(text, key)?;
        if text.get(colon) != Some(&b':') {
            return None;
        }
        if text.get(key + 1..colon - 1) == Some(name) {
            return Some(Member { key, value: colon + 1 });
        }
        let end = skip(text, colon + 1)?;
        if text.get(end) != Some(&b',') {
            return None;
        }
        key = end + 1;
    }
}

/// Where the value ends that begins at `at`.
fn skip(text: &[u8], at: usize) -> Option<usize> {
    let (mut at, mut depth) = (at, 0_usize);
    loop {
        match text.get(at)? {
            b'"' => at = skip_string(text, at)?,
            b'{' | b'[' => {
                depth += 1;
                at += 1;
                continue;
            }
            b'}' | b']' if depth > 0 => {
                depth -= 1;
                at += 1;
            }
            // Between the parts of a list or an object.
            b',' | b':' if depth > 0 => {
                at += 1;
                continue;
            }
            byte if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.') => {
                let rest = &text[at..];
                at += rest.iter().position(|byte| matches!(byte, b',' | b'}' | b']')).unwrap_or(rest.len());
            }
            _ => return None,
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

/// Where the string ends that begins at `at` with its quote.
fn skip_string(text: &[u8], at: usize) -> Option<usize> {
    if text.get(at) != Some(&b'"') {
        return None;
    }
    let mut at = at + 1;
    loop {
        at += text.get(at..)?.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
        if text[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(text: &str, expected: &str) {
        let slim = without_managed_fields(text.as_bytes());
        assert_eq!(std::str::from_utf8(&slim).unwrap(), expected);
    }

    #[test]
    fn only_the_objects_own_entries_go() {
        check(
            r#"{"metadata":{"managedFields":[{"a":"]}"},1.5,null],"name":"x"},"a":1}"#,
            r#"{"metadata":{"name":"x"},"a":1}"#,
        );
        check(
            r#"{"a":[[],{}],"metadata":{"name":"x","managedFields":[]}}"#,
            r#"{"a":[[],{}],"metadata":{"name":"x"}}"#,
        );
        check(r#"{"metadata":{"managedFields":[]}}"#, r#"{"metadata":{}}"#);
        check(r#"{"metadata":{"a":"\"\\","managedFields":null,"b":-1e+3}}"#, r#"{"metadata":{"a":"\"\\","b":-1e+3}}"#);
        for same in [
            r#"{"metadata":{"name":"x"},"spec":{"template":{"metadata":{"managedFields":[1]}}}}"#,
            r#"{"metadata":{"annotations":{"managedFields":"x"}}}"#,
            r#"{"metadata":{"a":",\"managedFields\":[]"}}"#,
            r#"{"managedFields":[1]}"#,
            r#"{ "metadata": {"managedFields":[1]}}"#,
            r#"{"metadata":{"managedFields":["#,
            r#"{"metadata":{"managedFields":"\"#,
            r#"{"metadata":"#,
            r#"{"a":]"#,
            "[]",
            "",
        ] {
            check(same, same);
        }
    }

    #[test]
    fn what_is_left_reads_as_before() {
        let mut object = json!({"kind": "Pod", "apiVersion": "v1", "spec": {"é\"\\": ["\n", {"x": [true, 1e3]}]},
            "metadata": {"name": "ü", "managedFields": [{"fieldsV1": {"k:{\"a\":\"]\"}": {".": {}}}}], "uid": "u"}});
        let slim = serde_json::from_slice::<Value>(&without_managed_fields(object.to_string().as_bytes())).unwrap();
        object["metadata"].as_object_mut().unwrap().remove("managedFields");
        assert_eq!(slim, object);
    }
}

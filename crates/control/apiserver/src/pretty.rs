//! JSON for people: indented when a request asks for it, or comes from a tool by which people look.

use crate::query::Query;
use crate::response::JSON;
use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, USER_AGENT};
use http::{HeaderMap, Response};
use http_body_util::BodyExt;
use pintle_client::{Body, body_from, empty_body};

/// How the programs begin to name themselves whose answers people read; upstream's list.
const OF_PEOPLE: [&str; 3] = ["curl", "Wget", "Mozilla/5.0"];

/// Whether the answer is to be indented: the accepted type may say so, or else the parameter, or without it the program.
pub(crate) fn is_wanted(query: &Query, headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if text(ACCEPT).contains("pretty=1") {
        return true;
    }
    match query.get("pretty").filter(|word| !word.is_empty()) {
        // What Go parses as true.
        Some(word) => matches!(word, "1" | "t" | "T" | "TRUE" | "true" | "True"),
        None => OF_PEOPLE.iter().any(|name| text(USER_AGENT).starts_with(name)),
    }
}

/// Makes sure that the answer can be indented when it is there.
pub(crate) fn ask_plainly(headers: &mut HeaderMap) {
    headers.remove(ACCEPT_ENCODING);
}

/// The same answer, indented if it is JSON. Other answers pass as they are.
pub(crate) async fn indented(response: Response<Body>) -> Response<Body> {
    let headers = response.headers();
    let is_json = headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(JSON.as_bytes()));
    if !is_json || headers.contains_key(CONTENT_ENCODING) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    // What breaks off in the middle has nothing to be indented.
    let Ok(whole) = body.collect().await else { return Response::from_parts(parts, empty_body()) };
    parts.headers.remove(CONTENT_LENGTH);
    Response::from_parts(parts, body_from(indent(&whole.to_bytes())))
}

/// JSON with two spaces for each level, as Go's `MarshalIndent` writes it; texts and numbers stay as they are.
fn indent(json: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(json.len() * 2);
    let (mut depth, mut in_text, mut escaped, mut opened) = (0_usize, false, false, false);
    let line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.extend(std::iter::repeat_n(b' ', 2 * depth));
    };
    for &byte in json {
        if in_text {
            out.push(byte);
            in_text = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        if byte.is_ascii_whitespace() {
            continue;
        }
        let closes = matches!(byte, b'}' | b']');
        if closes {
            depth = depth.saturating_sub(1);
        }
        // What is empty stays on its line.
        if opened != closes {
            line(&mut out, depth);
        }
        opened = matches!(byte, b'{' | b'[');
        depth += usize::from(opened);
        out.push(byte);
        match byte {
            b',' => line(&mut out, depth),
            b':' => out.push(b' '),
            b'"' => in_text = true,
            _ => {}
        }
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn levels_are_indented_and_texts_kept() {
        let check =
            |json: &str, expected: &str| assert_eq!(String::from_utf8_lossy(&indent(json.as_bytes())), expected);
        check("{}\n", "{}");
        check("[]", "[]");
        check("\"a\\\"{b\"", "\"a\\\"{b\"");
        check(
            "{\"a\":[1,{\"b\":{}},[]],\"c\":\"x: {\\\\\",\"d\":1.50}\n",
            "{\n  \"a\": [\n    1,\n    {\n      \"b\": {}\n    },\n    []\n  ],\n  \"c\": \"x: {\\\\\",\n  \"d\": 1.50\n}",
        );
        // What is indented already stays so.
        check("{\n  \"a\": 1\n}", "{\n  \"a\": 1\n}");
    }

    #[test]
    fn the_parameter_decides_before_the_program() {
        let check = |query: &str, program: &str, expected: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(USER_AGENT, HeaderValue::from_str(program).expect("a header"));
            assert_eq!(is_wanted(&Query::parse(query), &headers), expected, "{query} {program}");
        };
        check("", "curl/8.5.0", true);
        check("", "Wget/1.21", true);
        check("", "Mozilla/5.0 (X11)", true);
        check("", "kubectl/v1.33.0", false);
        check("pretty=0", "curl/8.5.0", false);
        check("pretty=what", "curl/8.5.0", false);
        check("pretty=true", "kubectl/v1.33.0", true);
        check("limit=1&pretty=1", "", true);
    }
}

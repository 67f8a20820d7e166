//! How answers are put on the wire: status codes, headers, compression.

use crate::media::{PROTOBUF, Shape, Written, negotiate};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, Response, StatusCode};
use pintle_client::{Body, body_from};
use pintle_types::Status;
use std::io::Write;

/// The outcome of a step: an answer, or the failure to report.
pub(crate) type Answer = Result<Response<Body>, Box<Status>>;

pub(crate) const JSON: &str = "application/json";
pub(crate) const YAML: &str = "application/yaml";
const TEXT: &str = "text/plain; charset=utf-8";

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
const WARNING: HeaderName = HeaderName::from_static("warning");

/// Headers of a usual answer: type, audit id, cache control, two of priority and fairness, date and length.
const HEADERS: usize = 8;

/// Answers up to this size are not worth compressing; upstream's threshold.
const COMPRESSED_BEYOND_BYTES: usize = 128 * 1024;
/// Warnings beyond this many bytes together are left out; upstream's bound.
const MAX_WARNING_BYTES: usize = 4096;

pub(crate) fn with_type(code: StatusCode, content_type: &str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(body_from(body));
    *response.status_mut() = code;
    // The usual type needs no copy.
    let value = match content_type {
        JSON => Ok(HeaderValue::from_static(JSON)),
        other => HeaderValue::from_str(other),
    };
    // Room for what all answers have, so that the map grows only once.
    response.headers_mut().reserve(HEADERS);
    if let Ok(value) = value {
        response.headers_mut().insert(CONTENT_TYPE, value);
    }
    response
}

pub(crate) fn json(code: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    with_type(code, JSON, body)
}

pub(crate) fn text(code: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = with_type(code, TEXT, body);
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// What Go's multiplexer answers for paths that nobody serves.
pub(crate) fn page_not_found() -> Response<Body> {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// A failure as its `Status`.
pub(crate) fn failure(status: &Status, request: &HeaderMap) -> Response<Body> {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = self::status(code, status, request);
    let retry = status.details.as_ref().map_or(0, |d| d.retry_after_seconds);
    if retry > 0 {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(retry));
    }
    response
}

/// A `Status` in the form that the client prefers: JSON where it takes none that there is.
pub(crate) fn status(code: StatusCode, status: &Status, request: &HeaderMap) -> Response<Body> {
    let text = status.to_json();
    let tree = || serde_json::from_slice::<serde_json::Value>(text.as_ref()).ok();
    let written = negotiate(request, Shape::Other).map_or(Written::Json, |format| format.written);
    let other = match written {
        Written::Protobuf => tree().and_then(|tree| pintle_schema::protobuf::encode(&tree)).map(|b| (PROTOBUF, b)),
        Written::Yaml => tree().and_then(|tree| serde_yaml_ng::to_string(&tree).ok()).map(|t| (YAML, t.into_bytes())),
        Written::Json | Written::Cbor => None,
    };
    match other {
        Some((content_type, bytes)) => with_type(code, content_type, bytes),
        None => json(code, text),
    }
}

/// What an overloaded server says.
pub(crate) fn too_many_requests() -> Response<Body> {
    let message = "Too many requests, please try again later.";
    let mut response = text(StatusCode::TOO_MANY_REQUESTS, format!("{message}\n"));
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(1));
    response
}

/// What a client is told whose request made its handler panic.
pub(crate) fn panicked() -> Response<Body> {
    let message = "This request caused apiserver to panic. Look in the logs for details.\n";
    text(StatusCode::INTERNAL_SERVER_ERROR, message)
}

/// The headers that all answers have.
pub(crate) fn finish(response: &mut Response<Body>, audit_id: String, warnings: &[String]) {
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::try_from(audit_id) {
        headers.insert(AUDIT_ID, id);
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
    let mut bytes = 0;
    for warning in warnings {
        bytes += warning.len();
        if bytes > MAX_WARNING_BYTES {
            break;
        }
        if let Ok(value) = HeaderValue::from_str(&warning_header(warning)) {
            headers.append(WARNING, value);
        }
    }
}

/// RFC 7234, 5.5: code 299, no agent, the text quoted. Characters that a header can't carry become spaces.
fn warning_header(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 12);
    out.push_str("299 - \"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Compresses a large body for a client that accepts it.
pub(crate) fn compressed(code: StatusCode, content_type: &str, body: Bytes, request: &HeaderMap) -> Response<Body> {
    let wanted = body.len() > COMPRESSED_BEYOND_BYTES && accepts_gzip(request);
    let packed = wanted.then(|| gzip(&body)).flatten();
    let mut response = match &packed {
        Some(packed) => with_type(code, content_type, packed.clone()),
        None => with_type(code, content_type, body),
    };
    if packed.is_some() {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    response
}

/// Whether `gzip` is among the encodings as it is: with a quality beside it, it is not, as upstream reads the header.
pub(crate) fn accepts_gzip(request: &HeaderMap) -> bool {
    let values = request.get_all(http::header::ACCEPT_ENCODING);
    values.iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).any(|v| v.trim() == "gzip")
}

/// Fast compression, as upstream: on a local network the time counts more than the bytes.
pub(crate) fn gzip(body: &[u8]) -> Option<Bytes> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 6), Compression::fast());
    encoder.write_all(body).ok()?;
    Some(encoder.finish().ok()?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_quoted() {
        assert_eq!(warning_header("unknown field \"spec.x\""), "299 - \"unknown field \\\"spec.x\\\"\"");
    }
}

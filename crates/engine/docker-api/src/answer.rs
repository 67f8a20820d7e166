//! Answers in the Engine's form: JSON bodies, streams, and errors as `{"message": …}`.

use bytes::Bytes;
use futures::Stream;
use http::{HeaderValue, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use pintle_docker::DockerError;
use serde::Serialize;
use serde_json::json;
use std::io;

pub(crate) type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;
pub(crate) type Result<T = Answer> = std::result::Result<T, DockerError>;

/// A whole body.
pub(crate) fn bytes(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let body = Full::new(body.into()).map_err(|never| match never {}).boxed_unsync();
    dressed(status, content_type, body)
}

/// A body that comes bit by bit; each bit is sent when it comes.
pub(crate) fn stream<S>(content_type: &'static str, pieces: S) -> Answer
where
    S: Stream<Item = io::Result<Bytes>> + Send + 'static,
{
    use futures::TryStreamExt;
    dressed(StatusCode::OK, content_type, BodyExt::boxed_unsync(StreamBody::new(pieces.map_ok(Frame::data))))
}

fn dressed(status: StatusCode, content_type: &'static str, body: UnsyncBoxBody<Bytes, io::Error>) -> Answer {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    if !content_type.is_empty() {
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    headers.insert("api-version", HeaderValue::from_static(crate::API_VERSION));
    headers.insert("docker-experimental", HeaderValue::from_static("false"));
    headers.insert("ostype", HeaderValue::from_static("linux"));
    headers.insert(http::header::SERVER, HeaderValue::from_static("Docker/28.5.0 (linux) pintle"));
    response
}

/// JSON with status 200.
pub(crate) fn value(body: &impl Serialize) -> Result {
    json_with(StatusCode::OK, body)
}

pub(crate) fn json_with(status: StatusCode, body: &impl Serialize) -> Result {
    let mut text = serde_json::to_vec(body).map_err(|e| DockerError::internal(e.to_string()))?;
    text.push(b'\n');
    Ok(bytes(status, "application/json", text))
}

/// Done, and nothing to say.
pub(crate) fn nothing() -> Result {
    Ok(bytes(StatusCode::NO_CONTENT, "", ""))
}

pub(crate) fn failure(error: &DockerError) -> Answer {
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if status == StatusCode::NOT_MODIFIED {
        return bytes(status, "", "");
    }
    bytes(status, "application/json", format!("{}\n", json!({ "message": error.message })))
}

//! Makes answers.

use super::{Body, Refusal};
use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use tokio::sync::mpsc;

/// A body that is known already.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

fn with_type(status: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

pub fn text(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    with_type(status, "text/plain; charset=utf-8", full(text.into()))
}

pub fn refuse(status: StatusCode, words: impl Into<String>) -> Refusal {
    Box::new(text(status, words))
}

pub fn json(bytes: impl Into<Bytes>) -> Response<Body> {
    with_type(StatusCode::OK, "application/json", full(bytes))
}

/// A text that comes part by part.
pub fn stream(parts: mpsc::Receiver<Result<Bytes, std::io::Error>>) -> Response<Body> {
    let parts = futures::stream::unfold(parts, |mut parts| async { parts.recv().await.map(|part| (part, parts)) });
    let body = StreamBody::new(parts.map(|part| part.map(Frame::data))).boxed_unsync();
    with_type(StatusCode::OK, "text/plain; charset=utf-8", body)
}

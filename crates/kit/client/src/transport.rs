//! How requests reach a server: the trait, and the body type that every transport answers with.

use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::{BodyExt, Empty, Full};

/// Any error that a body's stream can end with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a response: a boxed stream of bytes, which for a watch goes on until somebody ends it.
pub type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>;

/// A request that got no answer.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct TransportError {
    /// What was tried, and on what.
    pub message: String,
    #[source]
    pub source: Option<BoxError>,
}

impl TransportError {
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), source: None }
    }

    pub fn caused(message: impl std::fmt::Display, source: impl Into<BoxError>) -> Self {
        let source = source.into();
        Self { message: format!("{message}: {source}"), source: Some(source) }
    }
}

/// Carries requests to an API server. The URI of a request is path and query only; the transport knows the server,
/// and on whose behalf it asks.
#[async_trait::async_trait]
pub trait Transport: Send + Sync + 'static {
    async fn call(&self, request: http::Request<Bytes>) -> Result<http::Response<Body>, TransportError>;
}

/// A body that is known already.
pub fn body_from(bytes: impl Into<Bytes>) -> Body {
    Body::new(Full::new(bytes.into()).map_err(|never| match never {}))
}

/// A body of no bytes.
pub fn empty_body() -> Body {
    Body::new(Empty::new().map_err(|never| match never {}))
}

/// Reads a body to its end; one longer than `limit` bytes is an error.
pub async fn collect(mut body: Body, limit: usize) -> Result<Bytes, BoxError> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if whole.len() + data.len() > limit {
            return Err(format!("the body is longer than {limit} bytes").into());
        }
        if whole.is_empty() && body.is_end_stream() {
            return Ok(data);
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

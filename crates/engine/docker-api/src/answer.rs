//! Answers in the Engine's form: JSON bodies, and errors as `{"message": …}`.

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use pintle_cri::CriError;
use pintle_image::ImageError;
use serde_json::{Value, json};
use std::convert::Infallible;

pub(crate) type Answer = Response<BoxBody<Bytes, Infallible>>;

/// A request that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }
    pub(crate) fn unsupported(what: &str) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, format!("{what} is not supported"))
    }
}

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Self {
        let status = match &error {
            ImageError::NotFound(_) => StatusCode::NOT_FOUND,
            ImageError::Reference(_) | ImageError::BadArchive(_) | ImageError::DigestMismatch { .. } => {
                StatusCode::BAD_REQUEST
            }
            ImageError::Conflict(_) => StatusCode::CONFLICT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let message = match error {
            ImageError::NotFound(name) => format!("No such image: {name}"),
            other => other.to_string(),
        };
        Self { status, message }
    }
}

impl From<CriError> for Failure {
    fn from(error: CriError) -> Self {
        let status = match &error {
            CriError::NotFound { .. } => StatusCode::NOT_FOUND,
            CriError::InvalidArgument(_) => StatusCode::BAD_REQUEST,
            CriError::AlreadyExists(_) | CriError::FailedPrecondition(_) => StatusCode::CONFLICT,
            CriError::Unimplemented(_) => StatusCode::NOT_IMPLEMENTED,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, message: error.to_string() }
    }
}

pub(crate) fn bytes(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()).boxed());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    headers.insert("api-version", http::HeaderValue::from_static(crate::API_VERSION));
    headers.insert("ostype", http::HeaderValue::from_static("linux"));
    headers.insert(http::header::SERVER, http::HeaderValue::from_static("pintle (linux)"));
    response
}

pub(crate) fn value(body: &Value) -> Answer {
    bytes(StatusCode::OK, "application/json", body.to_string())
}

pub(crate) fn failure(failure: Failure) -> Answer {
    bytes(failure.status, "application/json", json!({ "message": failure.message }).to_string())
}

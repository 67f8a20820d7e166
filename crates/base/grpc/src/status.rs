//! How calls end: gRPC's codes, and the headers and trailers that carry them.

use http::{HeaderMap, HeaderValue, StatusCode};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use std::fmt;

/// `grpc-message` is percent-encoded: everything but printable ASCII, and `%`.
const MESSAGE: &AsciiSet = &CONTROLS.add(b'%');
/// Header values that are longer would be refused by clients.
const MAX_MESSAGE_BYTES: usize = 4096;

/// `google.golang.org/grpc/codes`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub u32);

macro_rules! codes {
    ($($constant:ident $name:literal,)*) => {
        impl Code {
            const NAMES: &[&str] = &[$($name),*];
        }
        codes!(@ 0, $($constant,)*);
    };
    (@ $number:expr, $constant:ident, $($rest:ident,)*) => {
        impl Code {
            pub const $constant: Self = Self($number);
        }
        codes!(@ $number + 1, $($rest,)*);
    };
    (@ $number:expr,) => {};
}

codes! {
    OK "OK",
    CANCELED "Canceled",
    UNKNOWN "Unknown",
    INVALID_ARGUMENT "InvalidArgument",
    DEADLINE_EXCEEDED "DeadlineExceeded",
    NOT_FOUND "NotFound",
    ALREADY_EXISTS "AlreadyExists",
    PERMISSION_DENIED "PermissionDenied",
    RESOURCE_EXHAUSTED "ResourceExhausted",
    FAILED_PRECONDITION "FailedPrecondition",
    ABORTED "Aborted",
    OUT_OF_RANGE "OutOfRange",
    UNIMPLEMENTED "Unimplemented",
    INTERNAL "Internal",
    UNAVAILABLE "Unavailable",
    DATA_LOSS "DataLoss",
    UNAUTHENTICATED "Unauthenticated",
}

/// As Go prints it.
impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.get(self.0 as usize) {
            Some(name) => f.write_str(name),
            None => write!(f, "Code({})", self.0),
        }
    }
}

/// A call's failure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rpc error: code = {code} desc = {message}")]
pub struct Status {
    pub code: Code,
    pub message: String,
}

impl Status {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::INVALID_ARGUMENT, message)
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::INTERNAL, message)
    }

    /// A method that is not served, such as `/runtime.v1.RuntimeService/Version`, in grpc-go's words.
    pub fn unknown_method(path: &str) -> Self {
        let (service, method) = path.trim_start_matches('/').rsplit_once('/').unwrap_or((path, ""));
        Self::new(Code::UNIMPLEMENTED, format!("unknown method {method} for service {service}"))
    }
}

/// The outcome that headers or trailers tell, if they tell one.
pub(crate) fn told(headers: &HeaderMap) -> Option<Result<(), Status>> {
    let code = headers.get("grpc-status")?.to_str().ok().and_then(|code| code.parse().ok());
    if code == Some(0) {
        return Some(Ok(()));
    }
    let text = headers.get("grpc-message").map(|text| String::from_utf8_lossy(text.as_bytes()).into_owned());
    let text = percent_decode_str(text.as_deref().unwrap_or_default()).decode_utf8_lossy().into_owned();
    Some(Err(Status::new(code.map_or(Code::UNKNOWN, Code), text)))
}

/// What an answer that is no gRPC means ("HTTP to gRPC Status Code Mapping"), in grpc-go's words.
pub(crate) fn of_http(status: StatusCode) -> Status {
    let code = match status.as_u16() {
        400 => Code::INTERNAL,
        401 => Code::UNAUTHENTICATED,
        403 => Code::PERMISSION_DENIED,
        404 => Code::UNIMPLEMENTED,
        429 | 502..=504 => Code::UNAVAILABLE,
        _ => Code::UNKNOWN,
    };
    Status::new(code, format!("unexpected HTTP status code received from server: {status}"))
}

/// Writes an outcome into headers or trailers.
pub(crate) fn tell(outcome: Result<(), &Status>, headers: &mut HeaderMap) {
    let code = outcome.err().map_or(0, |status| status.code.0);
    headers.insert("grpc-status", HeaderValue::from(code));
    let Err(status) = outcome else { return };
    let message = &status.message;
    let cut = (0..=message.len().min(MAX_MESSAGE_BYTES)).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
    let text = utf8_percent_encode(&message[..cut], MESSAGE).to_string();
    if let Ok(text) = HeaderValue::from_str(&text) {
        headers.insert("grpc-message", text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_come_back_as_they_went() {
        for message in ["", "plain words: \"quoted\"", "two\nlines, 100 % and ü"] {
            let status = Status::new(Code::NOT_FOUND, message);
            let mut headers = HeaderMap::new();
            tell(Err(&status), &mut headers);
            assert_eq!(told(&headers), Some(Err(status)));
        }
        let mut headers = HeaderMap::new();
        assert_eq!(told(&headers), None);
        tell(Ok(()), &mut headers);
        assert_eq!(told(&headers), Some(Ok(())));
    }

    #[test]
    fn codes_have_gos_names() {
        assert_eq!((Code::OK.0, Code::UNAUTHENTICATED.0), (0, 16));
        let shown = Status::unknown_method("/a.B/C").to_string();
        assert_eq!(shown, "rpc error: code = Unimplemented desc = unknown method C for service a.B");
        assert_eq!(Code(99).to_string(), "Code(99)");
    }
}

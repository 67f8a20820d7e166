//! Errors as gRPC's codes.

use pintle_cri::CriError;
use pintle_grpc::{Code, Status};

/// What a call is about, for errors that name it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    pub what: &'static str,
    pub id: &'a str,
}

pub(crate) fn of_cri(error: CriError) -> Status {
    let code = match &error {
        CriError::NotFound { .. } => Code::NOT_FOUND,
        CriError::AlreadyExists(_) => Code::ALREADY_EXISTS,
        CriError::InvalidArgument(_) => Code::INVALID_ARGUMENT,
        CriError::FailedPrecondition(_) => Code::FAILED_PRECONDITION,
        CriError::DeadlineExceeded(_) => Code::DEADLINE_EXCEEDED,
        CriError::Unimplemented(_) => Code::UNIMPLEMENTED,
        // As containerd's, whose errors have no code.
        CriError::Internal(_) => Code::UNKNOWN,
    };
    Status::new(code, error.to_string())
}

/// A server's failure in our words.
pub(crate) fn failure(status: Status, subject: Subject<'_>) -> CriError {
    let Status { code, message } = status;
    let without = |end: &str| message.strip_suffix(end).unwrap_or(&message).to_owned();
    match code {
        Code::NOT_FOUND => CriError::NotFound { what: subject.what, id: subject.id.to_owned() },
        Code::ALREADY_EXISTS => CriError::AlreadyExists(message),
        Code::INVALID_ARGUMENT => CriError::InvalidArgument(message),
        Code::FAILED_PRECONDITION => CriError::FailedPrecondition(message),
        Code::DEADLINE_EXCEEDED => CriError::DeadlineExceeded(without(" timed out")),
        Code::UNIMPLEMENTED => CriError::Unimplemented(without(" is not supported")),
        _ => CriError::Internal(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_come_back_as_they_went() {
        let subject = Subject { what: "container", id: "c1" };
        for error in [
            CriError::NotFound { what: "container", id: "c1".to_owned() },
            CriError::AlreadyExists("a".to_owned()),
            CriError::InvalidArgument("b".to_owned()),
            CriError::FailedPrecondition("c".to_owned()),
            CriError::DeadlineExceeded("d".to_owned()),
            CriError::Unimplemented("e".to_owned()),
            CriError::Internal("f".to_owned()),
        ] {
            assert_eq!(failure(of_cri(error.clone()), subject), error);
        }
    }
}

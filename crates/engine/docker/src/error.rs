//! What went wrong, in the words and with the status of the Docker Engine.

use pintle_cri::CriError;
use pintle_image::ImageError;

pub type Result<T> = std::result::Result<T, DockerError>;

/// A request that was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DockerError {
    /// Of HTTP, as the Engine API has it.
    pub status: u16,
    pub message: String,
}

impl DockerError {
    pub fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: kernel_words(message.into()) }
    }

    /// The request itself is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, message)
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(404, message)
    }

    /// The thing is in a state that does not allow it.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(409, message)
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(500, message)
    }

    /// There is no such feature here.
    pub fn unsupported(what: &str) -> Self {
        Self::new(501, format!("{what} is not supported"))
    }

    /// An input or output error, with what was tried.
    pub fn io(what: impl std::fmt::Display, error: impl std::fmt::Display) -> Self {
        Self::internal(format!("{what}: {error}"))
    }
}

/// Errors of the kernel as Go has them, which scripts look for: `No such file or directory (os error 2)` begins with a
/// small letter and has no number.
fn kernel_words(mut message: String) -> String {
    const NUMBER: &str = " (os error ";
    while let Some(at) = message.find(NUMBER) {
        let Some(end) = message[at..].find(')') else { break };
        message.replace_range(at..=at + end, "");
        let start = message[..at].rfind(": ").map_or(0, |colon| colon + 2);
        if let Some(first) = message.get_mut(start..start + 1) {
            first.make_ascii_lowercase();
        }
    }
    message
}

impl From<CriError> for DockerError {
    fn from(error: CriError) -> Self {
        let status = match &error {
            CriError::NotFound { .. } => 404,
            CriError::InvalidArgument(_) => 400,
            CriError::AlreadyExists(_) | CriError::FailedPrecondition(_) => 409,
            CriError::Unimplemented(_) => 501,
            _ => 500,
        };
        Self::new(status, error.to_string())
    }
}

impl From<ImageError> for DockerError {
    fn from(error: ImageError) -> Self {
        let status = match &error {
            ImageError::NotFound(_) => 404,
            ImageError::Invalid(_)
            | ImageError::CutShort
            | ImageError::Reference(_)
            | ImageError::BadArchive(_)
            | ImageError::DigestMismatch { .. } => 400,
            ImageError::Conflict(_) => 409,
            _ => 500,
        };
        let message = match error {
            ImageError::NotFound(name) => format!("No such image: {name}"),
            other => other.to_string(),
        };
        Self::new(status, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_kernel_are_those_that_go_has() {
        for (text, told) in [
            ("write /x: No such file or directory (os error 2)", "write /x: no such file or directory"),
            ("Not a directory (os error 20)", "not a directory"),
            ("a: É (os error 5): b", "a: É: b"),
            ("a (os error ", "a (os error "),
            ("plain: As it is", "plain: As it is"),
        ] {
            assert_eq!(DockerError::internal(text).message, told);
        }
    }
}

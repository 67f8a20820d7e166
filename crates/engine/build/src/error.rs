//! Why a build failed.

use pintle_docker::DockerError;
use pintle_image::ImageError;

pub type Result<T> = std::result::Result<T, BuildError>;

/// A build that failed, in Docker's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BuildError {
    /// Of HTTP, when nothing was told yet.
    pub status: u16,
    pub message: String,
    /// How a step ended; 0 for other reasons.
    pub code: i32,
}

impl BuildError {
    pub fn new(message: impl Into<String>) -> Self {
        Self { status: 500, message: message.into(), code: 0 }
    }

    /// The request or the Dockerfile is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self { status: 400, ..Self::new(message) }
    }

    /// Somebody wanted it to end.
    pub fn cancelled() -> Self {
        Self::new("Build cancelled")
    }

    /// Puts words before the message.
    pub fn within(self, what: impl std::fmt::Display) -> Self {
        Self { message: format!("{what}: {}", self.message), ..self }
    }

    /// An input or output error, with what was tried.
    pub fn io(what: impl std::fmt::Display, error: impl std::fmt::Display) -> Self {
        Self::new(format!("{what}: {error}"))
    }
}

impl From<DockerError> for BuildError {
    fn from(error: DockerError) -> Self {
        Self { status: error.status, message: error.message, code: 0 }
    }
}

impl From<ImageError> for BuildError {
    fn from(error: ImageError) -> Self {
        DockerError::from(error).into()
    }
}

/// Does work on the disk on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| Err(BuildError::new(format!("the build's work on the disk ended early: {e}"))))
}

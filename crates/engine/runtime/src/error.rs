//! How failures of the system, of ports and of shims become the errors of CRI.

use crate::ports::PortError;
use pintle_cri::CriError;
use pintle_shim::protocol::{Failure, FailureKind};

/// The engine cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    System(#[from] pintle_linux::Error),
    #[error("{what}: {source}")]
    Io {
        what: String,
        #[source]
        source: std::io::Error,
    },
}

pub fn from_port(error: PortError) -> CriError {
    match error {
        PortError::InvalidArgument(text) => CriError::InvalidArgument(text),
        PortError::Unsupported(text) => CriError::Unimplemented(text),
        PortError::NotFound(text) | PortError::Failed(text) => CriError::Internal(text),
    }
}

pub fn from_system(error: pintle_linux::Error) -> CriError {
    CriError::Internal(error.to_string())
}

pub fn from_failure(failure: Failure) -> CriError {
    match failure.kind {
        FailureKind::NotFound => CriError::FailedPrecondition(failure.message),
        FailureKind::NoProgram | FailureKind::NotExecutable | FailureKind::Other => CriError::Internal(failure.message),
    }
}

/// Says what was tried.
pub fn internal(what: impl std::fmt::Display, error: impl std::fmt::Display) -> CriError {
    CriError::Internal(format!("{what}: {error}"))
}

/// Runs blocking work of the system where it may wait.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> pintle_linux::Result<T> + Send + 'static,
) -> Result<T, CriError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| internal("work on a thread", e))?.map_err(from_system)
}

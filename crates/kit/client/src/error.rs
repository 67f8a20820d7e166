//! What can go wrong with a request, sorted by who said so.

use crate::transport::TransportError;
use pintle_types::{DecodeError, Reason, Status};

/// A request that failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server refused.
    #[error("{0}")]
    Status(Box<Status>),
    /// No answer came.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The answer is not what it should be.
    #[error("the server's answer can't be read: {0}")]
    Decode(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<Status> for ClientError {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

impl From<DecodeError> for ClientError {
    fn from(error: DecodeError) -> Self {
        Self::Decode(Box::new(error))
    }
}

impl From<serde_json::Error> for ClientError {
    fn from(error: serde_json::Error) -> Self {
        Self::Decode(Box::new(error))
    }
}

impl ClientError {
    /// The server's own words, when it was the server that refused.
    pub fn status(&self) -> Option<&Status> {
        match self {
            Self::Status(status) => Some(status),
            _ => None,
        }
    }

    fn has_reason(&self, reason: Reason) -> bool {
        self.status().is_some_and(|status| status.reason == reason)
    }

    pub fn is_not_found(&self) -> bool {
        self.has_reason(Reason::NotFound)
    }

    pub fn is_conflict(&self) -> bool {
        self.has_reason(Reason::Conflict)
    }

    pub fn is_already_exists(&self) -> bool {
        self.has_reason(Reason::AlreadyExists)
    }

    /// The revision asked for is no longer kept: list again.
    pub fn is_gone(&self) -> bool {
        self.has_reason(Reason::Gone) || self.has_reason(Reason::Expired)
    }

    pub fn is_invalid(&self) -> bool {
        self.has_reason(Reason::Invalid)
    }

    /// Whether what was asked for may have been done all the same: no answer came, none that can be read, or one of a
    /// server in trouble.
    pub fn is_undecided(&self) -> bool {
        self.status().is_none_or(|status| status.code >= 500)
    }

    /// The namespace of a new object is being deleted, so nothing can be created in it.
    pub fn is_namespace_terminating(&self) -> bool {
        let causes = self.status().and_then(|s| s.details.as_ref()).map(|d| d.causes.as_slice()).unwrap_or_default();
        causes.iter().any(|cause| cause.reason == "NamespaceTerminating")
    }
}

/// What came of a request; nothing where its object was not there, which whoever is done with it does not mind.
///
/// # Errors
/// That of the request otherwise.
pub fn unless_missing<T>(result: Result<T, ClientError>) -> Result<Option<T>, ClientError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

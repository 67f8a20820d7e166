//! What the kernel refused, and what it was asked to do at that moment.

use std::io;
use std::path::PathBuf;

/// A failure of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket itself failed.
    #[error("netlink: {doing}: {source}")]
    Socket { doing: &'static str, source: io::Error },
    /// The kernel said no to a request.
    #[error("{doing}: {source}{}", Detail(.detail))]
    Refused {
        /// The request in words, such as `add address 10.0.0.1/24 to link 3`.
        doing: String,
        source: io::Error,
        /// The kernel's own explanation; often empty.
        detail: String,
    },
    /// A request does not fit its format: a field of more than 64 KiB, a message of more than 4 GiB.
    #[error("{doing}: the request is too large for netlink")]
    TooLarge { doing: String },
    /// The kernel's answer was not what the protocol says.
    #[error("{doing}: the kernel's answer {what}")]
    Malformed { doing: String, what: &'static str },
    /// A network namespace could not be made, entered or removed.
    #[error("network namespace {path}: {doing}: {source}", path = .path.display())]
    Namespace { path: PathBuf, doing: &'static str, source: io::Error },
}

struct Detail<'a>(&'a str);

impl std::fmt::Display for Detail<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " ({})", self.0) }
    }
}

impl Error {
    /// The error number that the kernel gave.
    pub fn code(&self) -> Option<i32> {
        match self {
            Self::Socket { source, .. } | Self::Refused { source, .. } | Self::Namespace { source, .. } => {
                source.raw_os_error()
            }
            Self::TooLarge { .. } | Self::Malformed { .. } => None,
        }
    }

    /// Whether the thing to make is there already.
    pub fn is_exists(&self) -> bool {
        self.code() == Some(libc::EEXIST)
    }

    /// Whether the kernel has no such thing as what was to be made.
    pub fn is_unsupported(&self) -> bool {
        self.code() == Some(libc::EOPNOTSUPP)
    }

    /// Whether the thing to change or delete is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self.code(), Some(libc::ENOENT | libc::ENODEV | libc::ESRCH | libc::EADDRNOTAVAIL))
    }
}

/// The outcome of a deletion: what is not there is as good as deleted.
///
/// # Errors
/// That of the deletion otherwise.
pub fn forgive_missing(result: Result<(), Error>) -> Result<(), Error> {
    result.or_else(|error| if error.is_not_found() { Ok(()) } else { Err(error) })
}

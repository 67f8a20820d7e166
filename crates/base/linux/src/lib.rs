//! Wraps the Linux system calls that containers need, so that nobody above needs `unsafe`.
//!
//! Beside the shim's start path this is the only crate with `unsafe` blocks. It knows what a cgroup, a mount or a
//! namespace is, never what a container is made of. Everything here is blocking and cheap; callers in asynchronous
//! code decide where it runs. There is no logging: what was tried and on what is in the error.
#![allow(unsafe_code)]

pub mod bare_mounts;
pub mod capability;
pub mod cgroup;
pub mod datagram;
pub mod device_filter;
pub mod frame;
pub mod heap;
pub mod heap_profile;
pub mod id_map;
pub mod mount;
pub mod netns;
pub mod path;
pub mod process;
pub mod profile;
pub mod program;
pub mod pty;
pub mod seccomp;
pub mod signal;

/// A system call that failed: what was tried, on what, and the kernel's answer.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct Error {
    pub what: String,
    #[source]
    pub source: std::io::Error,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn new(what: impl Into<String>, source: impl Into<std::io::Error>) -> Self {
        Self { what: what.into(), source: source.into() }
    }

    /// An error of our own making, where no system call was at fault.
    pub fn invalid(what: impl Into<String>, why: &'static str) -> Self {
        Self::new(what, std::io::Error::new(std::io::ErrorKind::InvalidInput, why))
    }

    pub fn kind(&self) -> std::io::ErrorKind {
        self.source.kind()
    }

    /// The kernel's error number, when it was the kernel that refused.
    pub fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }
}

/// Says what was tried when a call fails.
pub trait Context<T> {
    fn context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Into<std::io::Error>> Context<T> for std::result::Result<T, E> {
    fn context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|source| Error::new(what(), source))
    }
}

//! Pretenders for tests and the simulator: a runtime without containers, and pods written as JSON.

#[cfg(test)]
pub(crate) mod api;
#[cfg(test)]
pub(crate) mod host;
pub mod pods;
pub mod runtime;
mod streams;

pub use runtime::{FakeRuntime, Script};
pub use streams::NoStreams;

/// A directory that is removed with its owner.
#[cfg(test)]
pub(crate) fn temporary_directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("the machine has a directory for temporary files")
}

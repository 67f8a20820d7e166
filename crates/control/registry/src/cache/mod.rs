//! The watch cache: what every resource's objects are, and how they came to be so lately.

mod entry;
mod watch;

pub use entry::Entry;
pub(crate) use watch::CacheWatch;

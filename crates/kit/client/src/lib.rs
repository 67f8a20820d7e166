//! Talks to an API server: requests, watches, transports.
//!
//! The HTTP part knows bytes only; objects are decoded at the edge through [`pintle_types::Kind`], so that the
//! code for a kind exists once in the binary. How the bytes travel is a [`Transport`]'s business: [`HttpTransport`]
//! for processes apart, [`Failover`] where several servers answer for one cluster, the API server's own for parts of the
//! same process.

mod client;
mod error;
mod failover;
mod http2;
mod kubeconfig;
mod options;
mod path;
mod transport;
mod watch;

pub use client::{Client, List, RawPage};
pub use error::{ClientError, unless_missing};
pub use failover::Failover;
pub use http2::{HttpConfig, HttpTransport, Token};
pub use kubeconfig::{Kubeconfig, KubeconfigError};
pub use options::{DeleteOptions, ListOptions, Patch, PatchOptions, Preconditions, Propagation, WatchOptions};
pub use path::resource_path;
pub use transport::{Body, BoxError, Transport, TransportError, body_from, collect, empty_body};
pub use watch::{EventType, RawEvent, RawWatch, Watch, WatchEvent};

#[cfg(test)]
mod tests;

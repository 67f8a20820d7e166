//! Answers the cluster's names and forwards the rest.
//!
//! The names are those of the Kubernetes DNS specification, version 1.1.0, answered as CoreDNS does with the
//! configuration that kubeadm gives it. `answer` decides from the objects that the informers hold: there is no second
//! copy of them, and a query costs a few look-ups. While the API server is away the last known objects are used.

mod answer;
mod cache;
mod cluster;
mod forward;
mod message;
mod metrics;
mod resolv;
mod server;
mod stub;
#[cfg(test)]
mod tests;

pub use cluster::Objects;
pub use resolv::Upstreams;
pub use server::{Config, Dns, Error};

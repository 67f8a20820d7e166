//! Serves the Kubernetes API over HTTP: who asks, may they, what for, and the answer.
//!
//! [`Server`] is the whole interface. Every request, whether it came over TLS or from a part of the same process
//! through [`Server::local_transport`], goes through the same steps in the same order (`pipeline.rs`). Verbs, storage
//! and caching are the registry's business; what is particular to a kind, the kinds table's.

mod authorization;
mod config;
mod local;
mod pipeline;
mod query;
mod request;
mod server;
mod user;

pub use config::Config;
pub use local::LocalTransport;
pub use server::{BoundServer, Error, Server};
pub use user::User;

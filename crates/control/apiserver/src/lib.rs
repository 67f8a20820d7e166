//! Serves the Kubernetes API over HTTP: who asks, may they, what for, and the answer.
//!
//! [`Server`] is the whole interface. Every request, whether it came over TLS or from a part of the same process
//! through [`Server::local_transport`], goes through the same steps in the same order (`pipeline.rs`). Verbs, storage
//! and caching are the registry's business; what is particular to a kind, the kinds table's.

#![allow(clippy::result_large_err, reason = "the registry and admission answer with a Status as it is")]

mod admission;
mod aggregation;
mod audit;
mod authentication;
mod authorization;
mod bootstrap;
mod config;
mod custom;
mod deadline;
mod decisions;
mod decode;
mod ending;
mod endpoints;
mod flow;
mod follow;
mod gather;
mod local;
mod media;
mod metrics;
mod options;
mod paths;
mod pipeline;
mod pretty;
mod query;
mod request;
mod resources;
mod response;
mod runtime_config;
mod server;
mod subresources;
mod usage;
mod websocket;

pub use admission::{AdmissionSettings, AdmissionSettingsError};
pub use audit::AuditConfig;
pub use config::Config;
pub use local::LocalTransport;
pub use paths::GIT_VERSION;
pub use pintle_audit::LogOptions as AuditLogOptions;
pub use pintle_auth::User;
pub use runtime_config::{RuntimeConfig, RuntimeConfigError};
pub use server::{BoundServer, Error, Server};

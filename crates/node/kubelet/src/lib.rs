//! Runs the pods that are bound to its node and reports on them.
//!
//! Pods come from the API server's watch, containers are driven through [`pintle_cri::Runtime`]; the kubelet knows
//! nothing of who implements it. One actor owns one pod (`actor`): it observes the runtime, makes a plan (`plan`,
//! pure), does it (`act`), and pushes the status (`status`, `push`). It recovers from a restart by observing:
//! sandboxes and containers carry the labels of their pod, so what runs is adopted and what nobody wants is removed.

mod act;
mod actor;
mod admission;
mod api;
mod backoff;
mod cgroups;
mod config;
mod container_config;
mod container_status;
mod credential_providers;
mod dns;
mod duration;
mod ending;
mod env;
mod env_sources;
mod etc_hosts;
mod events;
mod eviction;
pub mod fake;
mod field_ref;
mod hardware;
mod host;
mod huge_pages;
mod image_gc;
mod images;
mod kubelet;
mod labels;
mod lifecycle;
mod logs;
mod measured;
mod measures;
mod memory;
mod node;
mod objects;
mod objects_pinned;
mod observed;
mod options;
mod placement;
mod plan;
mod plugins;
mod pods;
mod preemption;
mod probe;
mod purge;
mod push;
mod reference;
mod resize;
mod resources;
mod sandbox_config;
mod security;
mod server;
mod shutdown;
mod start;
mod static_pods;
mod stats;
mod status;
mod streams;
mod terminate;
mod termination_message;
mod user_namespaces;
mod volumes;

#[cfg(test)]
mod tests;

pub use backoff::{MaxRestartPeriod, RestartPeriodError};
pub use config::{Config, Error, ServerConfig};
pub use container_config::LOG_MAX_BYTES;
pub use credential_providers::{ConfigError, CredentialProviders};
pub use eviction::flags::{EvictionFlags, ThresholdError};
pub use hardware::Hardware;
pub use kubelet::run;
pub use node::machine::Machine;
pub use options::{ImageLimits, Options};
pub use shutdown::{Paths as ShutdownPaths, ShutdownError, ShutdownOptions};
pub use streams::{PortStream, RemoteStreams, StreamError, Streaming, Upgrade, Wants};

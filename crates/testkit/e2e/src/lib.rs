//! Starts real clusters in namespaces of their own and drives them with real clients.
//!
//! A [`Host`] is a network namespace with an address; a [`Cluster`] is a `pintle server` in it, with its own
//! directories and cgroups. Tests of one file share a cluster and each take a Kubernetes namespace of their own.
//! An [`Engine`] is a `pintle engine` alone, driven by `docker`.
//! [`suite`] runs them and, at the end, resets the cluster and looks for anything it left behind.

mod clients;
mod cluster;
mod command;
mod containerd;
mod dev;
mod engine;
pub mod figures;
mod held;
mod host;
mod image;
mod lan;
mod leftovers;
mod nodes;
mod script;
mod servers;
mod suite;
mod transcript;
mod usage;
mod wait;

pub use clients::install_clients;
pub use cluster::{Cluster, Space};
pub use command::{Output, Spawned, run as run_command, run_within as run_command_within};
pub use dev::Dev;
pub use engine::Engine;
pub use held::Held;
pub use host::Host;
pub use image::BUSYBOX;
pub use lan::Lan;
pub use nodes::{Agent, DualNodes, NODES, Nodes};
pub use script::{play, transcripts};
pub use servers::Servers;
pub use suite::{Case, Subject, Test, left_out, suite, suite_of, suite_on};
pub use usage::{memory, processor_time};
pub use wait::until;

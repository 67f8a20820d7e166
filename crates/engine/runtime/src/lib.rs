//! Owns the life of sandboxes and containers, and serves them by the words of CRI.
//!
//! [`Engine`] implements `pintle_cri::RuntimeService` and `ImageService`. What it knows is in small JSON files of the
//! state directory (`records`), each replaced atomically; what runs is held by one shim per sandbox, which the engine
//! finds again by the socket in the run directory. So the engine can end at any instruction: at start (`recover`) it
//! reads the records, asks the shims, takes exits from their files, and cleans what was half made.
//!
//! ```text
//! state_dir/sandboxes/ID/{record.json,hostname,hosts,resolv.conf}
//! state_dir/containers/ID/{record.json,exit.json}
//! run_dir/rootfs/                    empty; roots are mounted here, each in its container's mount namespace
//! run_dir/netns/ID                   a sandbox's network namespace, bound
//! run_dir/sandboxes/ID/{shim.sock,shim.log}
//! ```

pub mod ports;

mod cleanup;
mod containers;
mod engine;
mod error;
mod exec;
mod forward;
mod ids;
mod image_mounts;
mod image_service;
mod native;
pub mod options;
mod records;
mod recover;
mod runtime_service;
mod sandbox_files;
mod sandboxes;
mod seccomp;
mod shim_client;
mod spec;
mod start;
mod stats;
mod stdio;

pub use engine::{Config, Engine};
pub use error::OpenError;
pub use native::ContainerView;
pub use ports::{ImageInfo, Images, PortError, SandboxNetwork, SnapshotMounts, SnapshotUsage};
pub use records::ContainerPhase;

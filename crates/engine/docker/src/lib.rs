//! Containers, networks and volumes as Docker knows them: their records, their life, what they tell.
//!
//! [`Daemon`] owns all of it and stands on the same runtime and images as CRI. Its records are below `data_dir`, each
//! replaced atomically; what runs is held by the runtime's shims, so the daemon can end at any instruction. It knows
//! nothing of HTTP: [`DockerError`] carries the status that the Engine API would answer with.

pub mod containers;
mod daemon;
mod error;
pub mod events;
pub mod exec;
pub mod go_format;
mod health;
pub mod logs;
pub mod model;
pub mod networks;
pub mod volumes;

pub use daemon::{Config, Daemon};
pub use error::{DockerError, Result};

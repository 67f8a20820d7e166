//! Owns the life of sandboxes and containers, and serves them by the words of CRI.

pub mod ports;

pub use ports::{ImageInfo, Images, PortError, SandboxNetwork, SnapshotMounts, SnapshotUsage};

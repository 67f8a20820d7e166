//! Gives a sandbox its interface, address and routes on a bridge.
//!
//! Every call blocks for at most a few milliseconds: asynchronous callers use `spawn_blocking`. The crate has never
//! heard of pods or services; to it they are sandboxes and address ranges.

mod bridge;
mod error;

pub use bridge::{Attachment, BridgeNetwork, Config, HostPort, Protocol, Status};
pub use error::Error;

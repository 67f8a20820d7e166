//! Gives a sandbox its interface, address and routes on a bridge.
//!
//! Every sandbox has one address of each family, with nothing else on its link, and reaches everything, its neighbours on the bridge too, through the
//! host. So the host's connection tracking sees both directions of every flow, and translated addresses work between
//! sandboxes of one node without `br_netfilter`.
//!
//! Every call blocks for at most a few milliseconds: asynchronous callers use `spawn_blocking`. The crate has never
//! heard of pods or services; to it they are sandboxes and address ranges.

mod address;
mod bridge;
mod cni;
mod error;
mod peers;
mod record;
mod rules;

pub use bridge::{Bandwidth, BridgeNetwork, Config, Status};
pub use cni::{CniConfig, CniNetwork, CniSandbox};
pub use error::Error;
pub use peers::{Backend, PeerNode, Peers, PeersConfig, TunnelConfig, TunnelEnd, sandbox_mtu};
pub use record::{Attachment, HostPort, Protocol};

/// What every call of this crate returns.
pub type Result<T> = std::result::Result<T, Error>;

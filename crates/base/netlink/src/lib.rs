//! Speaks rtnetlink, nf_tables and WireGuard's netlink to the kernel: links, addresses, routes, namespaces, rules, tunnels.
//!
//! One small encoder serves all protocols. Every socket belongs to the network namespace it was opened in, for ever:
//! a thread that later changes its namespace changes nothing for the socket. All calls are synchronous, because the
//! kernel has answered by the time that `send` returns; none of them waits for anything but kernel locks.
//!
//! Knows nothing of services, pods or containers.

pub mod conntrack;
mod error;
mod generic;
pub mod lan;
pub mod namespace;
pub mod nft;
mod route;
mod socket;
mod wire;
pub mod wireguard;

pub use error::{Error, forgive_missing};
pub use route::{
    Address, Bridge, Forwarding, HardwareAddress, Link, LinkChange, Neighbor, Netlink, Peer, Port, Route, Scope,
    Stacked, StackedKind, TokenBucket, Veth, Vxlan,
};

/// What every call of this crate returns.
pub type Result<T> = std::result::Result<T, Error>;

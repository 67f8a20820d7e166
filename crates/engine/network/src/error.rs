//! What can go wrong while a sandbox gets or loses its network.

use ipnet::IpNet;
use std::io;
use std::path::PathBuf;

/// A failure, said with what was being done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused something.
    #[error(transparent)]
    Kernel(#[from] pintle_netlink::Error),
    /// All addresses of the node are in use.
    #[error("no address is free in {subnet}: {used} are in use; delete pods of this node or give it a larger subnet")]
    Exhausted { subnet: IpNet, used: usize },
    #[error("sandbox {id:?}: an id has 1 to 128 letters, digits, '-', '_' or '.', and does not begin with '.'")]
    BadSandboxId { id: String },
    #[error("host port {port}/{protocol} is in use by sandbox {holder}")]
    HostPortInUse { port: u16, protocol: &'static str, holder: String },
    /// A record or a setting could not be read or written.
    #[error("{doing} {path}: {source}", path = .path.display())]
    File { doing: &'static str, path: PathBuf, source: io::Error },
    /// A CNI plugin said no.
    #[error("plugin type={kind:?} failed ({}): {message}", .command.to_ascii_lowercase())]
    Plugin { kind: String, command: String, message: String },
    /// Packets between nodes are to be encrypted, and the kernel can't.
    #[error(
        "the link {device} can't be made, because the kernel {kernel} has no WireGuard ({source}): load its module \
         (modprobe wireguard), run a kernel with CONFIG_WIREGUARD, or choose vxlan or host-gw with --pod-network on all nodes"
    )]
    NoWireguard { device: String, kernel: String, source: pintle_netlink::Error },
    #[error("{source}: when UDP port {port} is in use, choose another for {device} with --wireguard-port")]
    TunnelPort { device: String, port: u16, source: pintle_netlink::Error },
    /// The configuration cannot work.
    #[error("{0}")]
    Config(String),
}

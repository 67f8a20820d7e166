//! What can go wrong while a sandbox gets or loses its network.

use std::path::PathBuf;

/// A failure, said with what was being done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0} is not supported yet")]
    NotSupported(&'static str),
    #[error("no address is free in {subnet}: {used} are in use; delete pods of this node or give it a larger subnet")]
    Exhausted { subnet: ipnet::IpNet, used: usize },
    #[error("sandbox {id:?}: the id must be 1 to 128 letters, digits, '-', '_' or '.'")]
    BadSandboxId { id: String },
    #[error("host port {port}/{protocol} is already used by sandbox {holder}")]
    HostPortInUse { port: u16, protocol: &'static str, holder: String },
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{0}")]
    Config(String),
}

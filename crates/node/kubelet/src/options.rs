//! What may be set of the kubelet, with upstream's defaults.

use std::path::PathBuf;

/// Settings that a node can do without.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A directory (or file) of static pods; none without.
    pub static_pods: Option<PathBuf>,
}

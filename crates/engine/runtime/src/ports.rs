//! What the runtime needs from others: images with their snapshots, and a network for a sandbox.
//!
//! The runtime declares both traits, as their consumer; `pintle-image` and `pintle-network` are joined to it by the
//! binary.

use async_trait::async_trait;
use pintle_cri::{AuthConfig, FilesystemUsage, Image, PodSandboxConfig};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Why a port did not do what the runtime asked, in words that may reach an event of a pod.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    InvalidArgument(String),
    #[error("{0} is not supported")]
    Unsupported(String),
    #[error("{0}")]
    Failed(String),
}

/// An image that is present, with what a container takes from it.
#[derive(Clone, Debug)]
pub struct ImageInfo {
    /// `sha256:…` of the configuration.
    pub id: String,
    /// Tagged references such as `docker.io/library/redis:7`.
    pub refs: Vec<String>,
    /// `repository@sha256:…` of each repository that it came from.
    pub digests: Vec<String>,
    pub config: oci_spec::image::ImageConfiguration,
    /// Of its layers, lowest first (OCI image spec, "Layer ChainID").
    pub chain_ids: Vec<String>,
}

/// The directories that become a container's root filesystem.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SnapshotMounts {
    /// Read-only layers, the top one first. Empty: `upper` is the whole root, and is bound instead of overlaid.
    pub lower_dirs: Vec<PathBuf>,
    /// Where the container writes.
    pub upper: PathBuf,
    /// The overlay's work directory, on the same filesystem as `upper`.
    pub work: PathBuf,
}

/// Bytes and inodes of a container's writable layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotUsage {
    pub bytes: u64,
    pub inodes: u64,
}

/// Images and the writable snapshots on top of them.
#[async_trait]
pub trait Images: Send + Sync + 'static {
    /// Finds a present image by any reference: a name with or without tag, a digest, an id. Nothing when it is absent.
    async fn resolve(&self, reference: &str) -> Result<Option<ImageInfo>, PortError>;
    async fn list(&self) -> Result<Vec<Image>, PortError>;
    /// The CRI view of one image; nothing when it is absent.
    async fn status(&self, reference: &str) -> Result<Option<Image>, PortError>;
    /// Fetches an image and returns its id.
    async fn pull(&self, reference: &str, auth: Option<AuthConfig>) -> Result<String, PortError>;
    /// Removes an image; succeeds when it is not there.
    async fn remove(&self, reference: &str) -> Result<(), PortError>;
    async fn fs_info(&self) -> Result<FilesystemUsage, PortError>;

    /// Makes the writable layer of a container. Asked twice, it answers with the one that is there.
    async fn prepare_snapshot(&self, container_id: &str, image_id: &str) -> Result<SnapshotMounts, PortError>;
    /// Removes the writable layer; succeeds when it is not there.
    async fn remove_snapshot(&self, container_id: &str) -> Result<(), PortError>;
    async fn snapshot_usage(&self, container_id: &str) -> Result<SnapshotUsage, PortError>;
    /// Ids of all containers that have a writable layer: at start the runtime removes those that it does not know.
    async fn snapshots(&self) -> Result<Vec<String>, PortError>;
}

/// Gives sandboxes their addresses.
#[async_trait]
pub trait SandboxNetwork: Send + Sync + 'static {
    /// Whether sandboxes can get a network now; the message says why not.
    async fn ready(&self) -> Result<(), String>;
    /// Connects the network namespace that is bound at `netns` and returns its addresses, the primary one first.
    /// Called again for the same sandbox it answers with what it gave before.
    async fn setup(&self, sandbox_id: &str, netns: &Path, config: &PodSandboxConfig) -> Result<Vec<IpAddr>, PortError>;
    /// Takes back what `setup` gave. Succeeds when nothing is there, also when `netns` is gone.
    async fn teardown(&self, sandbox_id: &str, netns: &Path) -> Result<(), PortError>;
    /// After a restart: only these sandboxes live, what others had is free again.
    async fn retain(&self, live: &[String]) -> Result<(), PortError>;
}

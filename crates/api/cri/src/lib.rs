//! The words between a kubelet and a container runtime (CRI v1), as a trait.
//!
//! The consumer's side declares it: the kubelet says what a runtime is, the engine implements it, and an external
//! runtime behind a socket can too. Field meanings are those of `runtime.v1` in kubernetes/cri-api. Times are
//! nanoseconds since the epoch, 0 is "not yet".

pub mod stream;
pub mod types;

pub use stream::{ByteReader, ByteStream, ByteWriter, ExecSession, ExitOutcome, TerminalSize};
pub use types::*;

use async_trait::async_trait;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CriError {
    #[error("{what} {id:?} not found")]
    NotFound { what: &'static str, id: String },
    #[error("{0}")]
    AlreadyExists(String),
    #[error("{0}")]
    InvalidArgument(String),
    /// The thing is not in a state that allows this.
    #[error("{0}")]
    FailedPrecondition(String),
    #[error("{0} timed out")]
    DeadlineExceeded(String),
    #[error("{0} is not supported")]
    Unimplemented(String),
    #[error("{0}")]
    Internal(String),
}

pub type CriResult<T> = Result<T, CriError>;

/// The runtime half of CRI. All calls but `exec*`, `attach` and `port_forward` are idempotent: stopping what is
/// stopped and removing what is gone succeed.
#[async_trait]
pub trait RuntimeService: Send + Sync + 'static {
    async fn version(&self) -> CriResult<VersionResponse>;
    async fn status(&self) -> CriResult<RuntimeStatus>;
    /// Tells from which ranges the node's pods have their addresses, the primary one first; may be told again. A
    /// runtime whose network knows them by itself has nothing to do.
    async fn update_pod_cidrs(&self, _: &[String]) -> CriResult<()> {
        Ok(())
    }

    /// Creates and starts a sandbox; returns its id.
    async fn run_pod_sandbox(&self, config: PodSandboxConfig, runtime_handler: &str) -> CriResult<String>;
    /// Kills the sandbox's containers and gives its network back.
    async fn stop_pod_sandbox(&self, id: &str) -> CriResult<()>;
    async fn remove_pod_sandbox(&self, id: &str) -> CriResult<()>;
    async fn pod_sandbox_status(&self, id: &str) -> CriResult<PodSandboxStatus>;
    async fn list_pod_sandbox(&self, filter: PodSandboxFilter) -> CriResult<Vec<PodSandbox>>;

    /// Returns the container's id.
    async fn create_container(
        &self,
        sandbox_id: &str,
        config: ContainerConfig,
        sandbox_config: &PodSandboxConfig,
    ) -> CriResult<String>;
    async fn start_container(&self, id: &str) -> CriResult<()>;
    /// Sends the stop signal, waits at most `timeout_seconds`, then kills. Returns when the container has ended.
    async fn stop_container(&self, id: &str, timeout_seconds: u64) -> CriResult<()>;
    async fn remove_container(&self, id: &str) -> CriResult<()>;
    async fn container_status(&self, id: &str) -> CriResult<ContainerStatus>;
    async fn list_containers(&self, filter: ContainerFilter) -> CriResult<Vec<Container>>;
    async fn update_container_resources(&self, id: &str, resources: LinuxContainerResources) -> CriResult<()>;
    /// Opens the log file anew, after it was rotated.
    async fn reopen_container_log(&self, id: &str) -> CriResult<()>;
    async fn container_stats(&self, id: &str) -> CriResult<ContainerStats>;
    async fn list_container_stats(&self, filter: ContainerFilter) -> CriResult<Vec<ContainerStats>>;

    /// Runs a command to its end; at most 16 MiB of each output are kept. `timeout_seconds` 0 is none.
    async fn exec_sync(&self, id: &str, command: &[String], timeout_seconds: u64) -> CriResult<ExecSyncResponse>;
    async fn exec(&self, request: ExecRequest) -> CriResult<ExecSession>;
    async fn attach(&self, request: AttachRequest) -> CriResult<ExecSession>;
    /// A connection to a port on the sandbox's loopback.
    async fn port_forward(&self, sandbox_id: &str, port: u16) -> CriResult<ByteStream>;

    /// What happens to containers and sandboxes from now on. Ends when the runtime closes.
    async fn events(&self) -> CriResult<EventStream>;
}

/// The image half of CRI.
#[async_trait]
pub trait ImageService: Send + Sync + 'static {
    async fn list_images(&self) -> CriResult<Vec<Image>>;
    /// Nothing when the image is not there.
    async fn image_status(&self, image: &str) -> CriResult<Option<Image>>;
    /// Returns the image's id.
    async fn pull_image(&self, image: &str, auth: Option<AuthConfig>) -> CriResult<String>;
    async fn remove_image(&self, image: &str) -> CriResult<()>;
    async fn image_fs_info(&self) -> CriResult<FilesystemUsage>;
}

/// A whole runtime.
pub trait Runtime: RuntimeService + ImageService {}
impl<T: RuntimeService + ImageService> Runtime for T {}

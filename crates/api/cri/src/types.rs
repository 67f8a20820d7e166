//! The messages of CRI v1 that kubelet and runtime exchange.

pub use pintle_linux::id_map::{IdMappings, IdRange};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::pin::Pin;

pub type Labels = BTreeMap<String, String>;

/// What no container sees of /proc and /sys unless it asks for all (Docker's and Kubernetes' list).
pub const MASKED_PATHS: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// What no container may write to, with the same exception.
pub const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionResponse {
    pub runtime_name: String,
    pub runtime_version: String,
    pub runtime_api_version: String,
}

/// Whether the runtime can run containers and give them networks; a reason and message when not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeStatus {
    pub runtime_ready: Result<(), String>,
    pub network_ready: Result<(), String>,
    pub handlers: Vec<RuntimeHandler>,
}

/// A way to run pods that a RuntimeClass can name, and what it can do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeHandler {
    /// Empty is the usual one.
    pub name: String,
    pub recursive_read_only_mounts: bool,
    pub user_namespaces: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodSandboxMetadata {
    pub name: String,
    pub uid: String,
    pub namespace: String,
    pub attempt: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsConfig {
    pub servers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    pub protocol: Protocol,
    pub container_port: u16,
    /// 0 is no mapping.
    pub host_port: u16,
    /// Empty is all addresses.
    pub host_ip: String,
}

/// Whose namespace a container or sandbox uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamespaceMode {
    /// Shared by the pod.
    #[default]
    Pod,
    /// The container's own.
    Container,
    /// The machine's.
    Node,
    /// That of another container, by id.
    Target(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceOption {
    pub network: NamespaceMode,
    pub pid: NamespaceMode,
    pub ipc: NamespaceMode,
}

impl Default for NamespaceOption {
    fn default() -> Self {
        Self { network: NamespaceMode::Pod, pid: NamespaceMode::Container, ipc: NamespaceMode::Pod }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SeccompProfile {
    #[default]
    Unconfined,
    RuntimeDefault,
    /// A profile file on the node. An empty name is an error, never "unconfined" (CVE-2023-2431).
    Localhost(String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodSandboxConfig {
    pub metadata: PodSandboxMetadata,
    pub hostname: String,
    /// Where the log files of its containers go.
    pub log_directory: String,
    pub dns: DnsConfig,
    pub port_mappings: Vec<PortMapping>,
    pub labels: Labels,
    pub annotations: Labels,
    /// The cgroup that holds the pod, from the root of each hierarchy.
    pub cgroup_parent: String,
    pub sysctls: BTreeMap<String, String>,
    pub namespaces: NamespaceOption,
    pub privileged: bool,
    /// A user namespace for all of its containers (`NamespaceOption.userns_options`); empty is the machine's.
    #[serde(default)]
    pub id_mappings: IdMappings,
    /// The sum over its containers, set on the pod's own cgroup by the kubelet; for the runtime's information.
    pub overhead: Option<LinuxContainerResources>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SandboxState {
    #[default]
    Ready,
    NotReady,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodSandboxStatus {
    pub id: String,
    pub metadata: PodSandboxMetadata,
    pub state: SandboxState,
    pub created_at: i64,
    /// Empty on the host's network.
    pub ips: Vec<String>,
    pub namespaces: NamespaceOption,
    pub labels: Labels,
    pub annotations: Labels,
    pub runtime_handler: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodSandbox {
    pub id: String,
    pub metadata: PodSandboxMetadata,
    pub state: SandboxState,
    pub created_at: i64,
    pub labels: Labels,
    pub annotations: Labels,
    pub runtime_handler: String,
}

/// All set fields must hold; labels are a subset to be present.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodSandboxFilter {
    pub id: Option<String>,
    pub state: Option<SandboxState>,
    pub labels: Labels,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ContainerMetadata {
    pub name: String,
    pub attempt: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountPropagation {
    #[default]
    Private,
    HostToContainer,
    Bidirectional,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    pub container_path: String,
    pub host_path: String,
    pub readonly: bool,
    pub recursive_readonly: bool,
    pub propagation: MountPropagation,
    /// Below `host_path` or in the image, resolved without ever leaving it (CVE-2021-25741). Empty is all of it.
    pub sub_path: String,
    /// A reference or id of a present image, whose content is mounted read-only instead of `host_path`.
    #[serde(default)]
    pub image: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    pub container_path: String,
    pub host_path: String,
    /// Of `rwm`.
    pub permissions: String,
}

/// Limits; 0 leaves the kernel's default, except where a field says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinuxContainerResources {
    pub cpu_period: i64,
    pub cpu_quota: i64,
    pub cpu_shares: i64,
    pub memory_limit_in_bytes: i64,
    pub memory_swap_limit_in_bytes: i64,
    pub oom_score_adj: i64,
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
    pub pids_limit: i64,
    pub hugepage_limits: Vec<(String, u64)>,
    /// cgroup v2 files and their values.
    pub unified: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSecurityContext {
    /// Names without `CAP_`; `ALL` is all.
    pub add_capabilities: Vec<String>,
    pub drop_capabilities: Vec<String>,
    pub privileged: bool,
    pub namespaces: NamespaceOption,
    pub run_as_user: Option<i64>,
    pub run_as_group: Option<i64>,
    /// From the image, resolved in its /etc/passwd; used when `run_as_user` is not set.
    pub run_as_username: String,
    pub readonly_rootfs: bool,
    pub supplemental_groups: Vec<i64>,
    /// Whether the image's own supplementary groups of the user are left out (`Strict`).
    pub supplemental_groups_strict: bool,
    pub no_new_privs: bool,
    pub seccomp: SeccompProfile,
    pub masked_paths: Vec<String>,
    pub readonly_paths: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerConfig {
    pub metadata: ContainerMetadata,
    /// A reference or an image id that is present.
    pub image: String,
    /// Replaces the image's entry point when not empty.
    pub command: Vec<String>,
    /// Replaces the image's command when not empty.
    pub args: Vec<String>,
    pub working_dir: String,
    pub envs: Vec<(String, String)>,
    pub mounts: Vec<Mount>,
    pub devices: Vec<Device>,
    pub labels: Labels,
    pub annotations: Labels,
    /// Within the sandbox's log directory.
    pub log_path: String,
    /// A log of this many bytes is set aside as `<log_path>.1` and a new one begun; a few of them are kept. 0 is never.
    #[serde(default)]
    pub log_max_bytes: u64,
    pub stdin: bool,
    /// Close stdin when the first client that attached goes.
    pub stdin_once: bool,
    pub tty: bool,
    pub resources: LinuxContainerResources,
    pub security: ContainerSecurityContext,
    /// A signal name such as `SIGQUIT`; empty is the image's, or SIGTERM.
    pub stop_signal: String,
    /// Devices by their names in the container device interface: `vendor.com/class=name`.
    #[serde(default)]
    pub cdi_devices: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    #[default]
    Created,
    Running,
    Exited,
    Unknown,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerStatus {
    pub id: String,
    pub metadata: ContainerMetadata,
    pub state: ContainerState,
    pub created_at: i64,
    pub started_at: i64,
    pub finished_at: i64,
    pub exit_code: i32,
    /// As the configuration named it.
    pub image: String,
    /// What the node knows it by: `repository@digest` when it has one, else the image's id.
    pub image_ref: String,
    pub image_id: String,
    /// `Completed`, `Error`, `OOMKilled`, `ContainerCannotRun`…, once it ended.
    pub reason: String,
    pub message: String,
    pub labels: Labels,
    pub annotations: Labels,
    pub mounts: Vec<Mount>,
    pub log_path: String,
    pub resources: LinuxContainerResources,
    /// Uid, gid and supplementary groups of the first process.
    pub user: Option<ContainerUser>,
    /// Of its first process, in the machine's pid namespace; 0 when it does not run.
    pub pid: i32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerUser {
    pub uid: i64,
    pub gid: i64,
    pub supplemental_groups: Vec<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    pub id: String,
    pub sandbox_id: String,
    pub metadata: ContainerMetadata,
    pub image: String,
    pub image_ref: String,
    pub state: ContainerState,
    pub created_at: i64,
    pub labels: Labels,
    pub annotations: Labels,
}

/// All set fields must hold; labels are a subset to be present.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerFilter {
    pub id: Option<String>,
    pub state: Option<ContainerState>,
    pub sandbox_id: Option<String>,
    pub labels: Labels,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerStats {
    pub id: String,
    pub metadata: ContainerMetadata,
    pub labels: Labels,
    pub timestamp: i64,
    /// Core-nanoseconds used since the start.
    pub cpu_usage_nanos: u64,
    pub memory_usage_bytes: u64,
    /// Usage less what the kernel could reclaim at once.
    pub memory_working_set_bytes: u64,
    pub memory_rss_bytes: u64,
    pub pids: u64,
    pub writable_layer_bytes: u64,
    pub writable_layer_inodes: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSyncResponse {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub exit_code: i32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRequest {
    pub container_id: String,
    pub command: Vec<String>,
    pub tty: bool,
    /// The terminal's size from the start, where it is known; a runtime that cannot set it then leaves it out.
    pub size: Option<crate::TerminalSize>,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachRequest {
    pub container_id: String,
    pub stdin: bool,
    pub tty: bool,
    pub stdout: bool,
    pub stderr: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// `sha256:…` of the configuration.
    pub id: String,
    /// `docker.io/library/redis:7`, …
    pub repo_tags: Vec<String>,
    pub repo_digests: Vec<String>,
    /// Bytes.
    pub size: u64,
    pub uid: Option<i64>,
    pub username: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthConfig {
    pub username: String,
    pub password: String,
    pub server_address: String,
    pub identity_token: String,
    pub registry_token: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesystemUsage {
    pub timestamp: i64,
    pub mountpoint: String,
    pub used_bytes: u64,
    pub inodes_used: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventKind {
    ContainerCreated,
    ContainerStarted,
    ContainerStopped,
    ContainerDeleted,
    SandboxStarted,
    SandboxStopped,
    SandboxDeleted,
}

/// Something happened to a container, or to a sandbox (then `container_id` is empty).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeEvent {
    pub kind: EventKind,
    pub container_id: String,
    pub sandbox_id: String,
    pub pod_uid: String,
}

pub type EventStream = Pin<Box<dyn futures::Stream<Item = RuntimeEvent> + Send>>;

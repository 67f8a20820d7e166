//! What may be asked of a sandbox or container beyond the words of CRI: all that the Docker face needs.
//!
//! Records keep these beside CRI's configuration, so both faces share one life of a container.

use crate::ports::SnapshotMounts;
use pintle_linux::cgroup::{DeviceRule, Limits};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

pub use pintle_cri::{IdMappings, IdRange};
pub use pintle_shim::protocol::LogFormat;

/// Whose a sandbox is. Each face lists its own and hears of its own only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Owner {
    #[default]
    Cri,
    Docker,
}

/// Who connects a sandbox's network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// The engine's own network, unless the configuration says the machine's.
    #[default]
    Connected,
    /// It is the sandbox's own and has a loopback; the caller connects it to what it likes, or to nothing.
    Unconnected,
    /// It is that of another sandbox, which lives at least as long.
    Sandbox(String),
}

/// Files that the caller wrote: the sandbox's containers see them where the usual ones would be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxFiles {
    pub hostname: PathBuf,
    pub hosts: PathBuf,
    pub resolv_conf: PathBuf,
}

/// Further properties of a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SandboxOptions {
    pub owner: Owner,
    pub network: Network,
    /// Bytes of /dev/shm; 0 is the usual 64 MiB.
    pub shm_bytes: u64,
    /// The NIS domain name; empty is the machine's.
    pub domainname: String,
    /// The machine's uts namespace, with its name.
    pub host_uts: bool,
    /// Other sandboxes may join its ipc namespace and /dev/shm.
    pub shareable_ipc: bool,
    /// The ipc namespace and /dev/shm of a running container of a sandbox that is shareable, which lives at least as
    /// long.
    pub ipc_of: Option<String>,
    /// No /dev/shm is shared: each container has an ipc namespace without any (`--ipc none`).
    pub no_shm: bool,
    pub files: Option<SandboxFiles>,
    /// Users and groups of the containers as those of the machine, for a user namespace; empty is what the
    /// configuration says.
    pub id_mappings: IdMappings,
}

/// Whose cgroup namespace a container is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CgroupNamespace {
    /// Its own, unless it is privileged.
    #[default]
    Usual,
    Own,
    Host,
}

/// Further properties of a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerOptions {
    /// The id that it is to have; chosen by the engine when empty.
    pub id: String,
    /// A writable layer that the caller made and keeps, under a key that is no id of the engine's (those are swept);
    /// without it the engine makes one that goes with the container.
    pub snapshot: Option<SnapshotMounts>,
    /// The caller's layer goes with the container as well: it need not survive a crash of the machine.
    pub volatile: bool,
    /// Instead of the configuration's resources.
    pub limits: Option<Limits>,
    /// Beside the usual devices and those of the configuration.
    pub device_rules: Vec<DeviceRule>,
    /// `RLIMIT_` number, soft, hard (getrlimit(2)).
    pub rlimits: Vec<(u32, u64, u64)>,
    /// Columns and rows of the terminal when the program starts.
    pub terminal_size: Option<(u16, u16)>,
    pub tmpfs: Vec<Tmpfs>,
    /// A small init is process 1: it reaps, passes signals on, and runs the program (`--init`).
    pub init: bool,
    /// The variables and the command are exactly those of the configuration: nothing comes from the image.
    pub exact: bool,
    /// `user[:group]` by name or number; empty is what the configuration says.
    pub user: String,
    /// Further groups by name or number, looked up in the container's /etc/group.
    pub groups: Vec<String>,
    /// The pid namespace of a container of any sandbox.
    pub pid_of: Option<String>,
    /// A seccomp profile in OCI's JSON form, instead of the configuration's.
    pub seccomp: Option<String>,
    pub cgroup_namespace: CgroupNamespace,
    pub log_format: LogFormat,
    /// How many log files are kept, the current one included; 0 is the usual five.
    pub log_files: u32,
    /// How many bytes of its lines may wait for a slow disk before new ones are dropped; without it the container waits.
    pub log_ring: Option<u64>,
}

/// A tmpfs of the container's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tmpfs {
    pub target: PathBuf,
    /// As mount(8) takes them: `size=64m`, `mode=1777`, `ro`, `noexec`, `uid=…`.
    pub options: Vec<String>,
}

/// Further properties of a process that is run in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOptions {
    /// Set or replaced after the container's own, as `NAME=value`; without one all of them are the container's.
    pub env: Vec<String>,
    /// Empty is the container's.
    pub cwd: PathBuf,
    /// `user[:group]`; empty is the container's.
    pub user: String,
    pub privileged: bool,
}

impl ExecOptions {
    /// Puts them into what a process of the container would be.
    pub(crate) fn apply(&self, process: &mut pintle_shim::protocol::ProcessSpec) {
        for variable in &self.env {
            let name = variable.split('=').next().unwrap_or_default();
            process.env.retain(|old| old.split('=').next() != Some(name));
            process.env.push(variable.clone());
        }
        if !self.cwd.as_os_str().is_empty() {
            process.cwd.clone_from(&self.cwd);
        }
        if !self.user.is_empty() {
            process.user.clone_from(&self.user);
        }
    }
}

//! What the daemon and the shim say to each other, as JSON in the frames of `pintle_linux::frame`.
//!
//! The daemon sends `Call`s; the shim answers each with a `Reply` of the same number and, unasked, tells of exits.
//! Answers may come in another order than calls. A daemon that connects anew asks for `State` first.

use pintle_linux::capability::{Capabilities, Sets};
use pintle_linux::cgroup::Cgroups;
use pintle_linux::id_map::IdMappings;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Debug, Serialize, Deserialize)]
pub struct Call {
    pub number: u64,
    pub request: Request,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// The first one: makes the sandbox. With it may come a mount namespace with few mounts, to build roots in. Answer:
    /// `Done`.
    Sandbox(Box<SandboxSpec>),
    /// Starts a container. Answer: `Started`.
    Start(Box<ContainerSpec>),
    /// Runs a process in a container. With it come the process's stdin, stdout and stderr, those that `exec` names,
    /// in this order; with a terminal none. Answer: `Started`, with a terminal its controlling end comes along.
    Exec(Box<ExecSpec>),
    /// Sends a signal to a container's first process, or to all of its processes.
    Signal { container: String, signal: i32, all: bool },
    /// Sends a signal to a process that `Exec` started.
    SignalExec { exec: String, signal: i32 },
    /// Joins a container's stdio, also before it is started. With it come the pipe to read stdin from and those to write output to, those that
    /// are true, in this order.
    Attach { container: String, stdin: bool, stdout: bool, stderr: bool },
    /// Tells the container's terminal its size.
    Resize { container: String, columns: u16, rows: u16 },
    /// Opens the log file anew, after it was renamed.
    ReopenLog { container: String },
    /// Which containers there are. Answer: `State`.
    State,
    /// Drops what is kept of a container that has ended.
    Forget { container: String },
    /// Ends the shim, and with it whatever still runs.
    Shutdown,
}

/// What the shim sends.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromShim {
    Reply {
        number: u64,
        result: Result<Answer, Failure>,
    },
    /// A container ended; its exit file is written already.
    Exited(Exit),
    ExecExited {
        exec: String,
        code: i32,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    Done,
    /// A client gets the output from this time on, in nanoseconds since the epoch; what the log has from before is not
    /// in it. A shim of an earlier version says `Done`.
    Attached(i64),
    Started(Started),
    State(Vec<ContainerState>),
}

/// A process runs: its number in the machine's pid namespace, and who it became.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    pub pid: i32,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerState {
    pub id: String,
    pub pid: i32,
    /// Nothing while it runs.
    pub exit: Option<Exit>,
}

/// How a container ended. Also the content of its exit file, which stays when shim and daemon are gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    pub container: String,
    /// The code, or 128 and the number of the signal that killed it.
    pub code: i32,
    /// The kernel killed a process of it for want of memory.
    pub oom_killed: bool,
    /// Nanoseconds since the epoch.
    pub finished_at: i64,
}

impl Exit {
    /// Reads an exit file; nothing when there is none.
    pub fn read(path: &Path) -> std::io::Result<Option<Self>> {
        match std::fs::read(path) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Writes the exit file so that a reader sees all of it or nothing.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let new = path.with_extension("new");
        std::fs::write(&new, serde_json::to_vec(self)?)?;
        std::fs::rename(&new, path)
    }
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct Failure {
    pub kind: FailureKind,
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// There is no such container or process, or it has ended.
    NotFound,
    /// The program is not there.
    NoProgram,
    /// The program may not be executed.
    NotExecutable,
    Other,
}

impl Failure {
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    pub fn other(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Other, message)
    }
}

impl From<pintle_linux::Error> for Failure {
    fn from(error: pintle_linux::Error) -> Self {
        Self::other(error.to_string())
    }
}

/// The namespaces that all containers of the sandbox share.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SandboxSpec {
    pub id: String,
    /// Empty: the machine's own, in its uts namespace.
    pub hostname: String,
    /// The bound network namespace; none is the machine's.
    pub netns: Option<PathBuf>,
    /// An ipc namespace and /dev/shm of the sandbox's own.
    pub ipc: bool,
    /// A pid namespace for all containers, kept by a pause process.
    pub shared_pid: bool,
    /// Where the pause process is counted.
    pub cgroup: String,
    /// Names with dots. Only those that belong to a namespace of the sandbox are taken.
    pub sysctls: BTreeMap<String, String>,
    /// An empty directory of the host that roots are mounted on, in each container's own mount namespace.
    pub mount_point: PathBuf,
    /// A directory of the sandbox's own in the run directory.
    pub directory: PathBuf,
    /// Bytes of /dev/shm.
    pub shm_bytes: u64,
    /// The NIS domain name of the sandbox's uts namespace; empty leaves it.
    #[serde(default)]
    pub domainname: String,
    /// An ipc namespace to join instead of making one, and the mounted /dev/shm that belongs to it.
    #[serde(default)]
    pub join_ipc: Option<(PathBuf, PathBuf)>,
    /// /dev/shm is mounted in the sandbox's directory, so that other sandboxes can share it.
    #[serde(default)]
    pub shareable_shm: bool,
    /// There is no /dev/shm at all.
    #[serde(default)]
    pub no_shm: bool,
    /// The user namespace that its other namespaces belong to; empty is the machine's. With one, the shim makes the
    /// network namespace that `netns` names.
    #[serde(default)]
    pub id_mappings: IdMappings,
    /// `netns` is that of another sandbox.
    #[serde(default)]
    pub joined_netns: bool,
    /// The hierarchies that are mounted, so that nobody reads the table of all mounts for each sandbox.
    #[serde(default)]
    pub cgroups: Option<Cgroups>,
}

/// Whose pid namespace a container lives in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PidNamespace {
    #[default]
    Own,
    /// That of the sandbox's pause process.
    Sandbox,
    /// The machine's.
    Host,
    /// That of another container of this sandbox.
    Container(String),
    /// The one that this file of /proc stands for.
    At(PathBuf),
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ContainerSpec {
    pub id: String,
    pub root: RootSpec,
    pub pid: PidNamespace,
    /// An ipc namespace of its own, though the sandbox has another.
    pub own_ipc: bool,
    /// Made and limited already.
    pub cgroup: String,
    pub mounts: Vec<MountSpec>,
    pub devices: Vec<DeviceSpec>,
    /// /sys and the cgroups writable.
    pub privileged: bool,
    /// It stays in the machine's cgroup namespace.
    #[serde(default)]
    pub host_cgroup_namespace: bool,
    /// There is no /dev/shm.
    #[serde(default)]
    pub no_shm: bool,
    pub masked_paths: Vec<PathBuf>,
    pub readonly_paths: Vec<PathBuf>,
    pub process: ProcessSpec,
    /// Keep stdin open for those who attach.
    pub stdin: bool,
    /// Close it when the first of them goes.
    pub stdin_once: bool,
    pub log_path: Option<PathBuf>,
    /// After how many bytes a new log file is begun; 0 is never.
    #[serde(default)]
    pub log_max_bytes: u64,
    /// How many log files are kept; 0 is the usual number.
    #[serde(default)]
    pub log_files: u32,
    #[serde(default)]
    pub log_format: LogFormat,
    /// How many bytes of lines may wait for a slow disk, so that the container does not; without it, it waits.
    #[serde(default)]
    pub log_ring: Option<u64>,
    pub exit_file: PathBuf,
}

/// How output is written to the log file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogFormat {
    #[default]
    Cri,
    /// Docker's `json-file`.
    Json,
}

/// The root filesystem: an overlay, or a directory when there are no layers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RootSpec {
    /// The top one first.
    pub lower: Vec<PathBuf>,
    pub upper: PathBuf,
    pub work: PathBuf,
    pub readonly: bool,
    /// What is written goes with the container: it need not survive a crash of the machine, so nothing waits for the
    /// disk, not even fsync.
    #[serde(default)]
    pub volatile: bool,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct MountSpec {
    pub target: PathBuf,
    pub source: PathBuf,
    /// Below the source; empty is the source itself.
    pub sub_path: PathBuf,
    pub readonly: bool,
    pub recursive_readonly: bool,
    pub propagation: Propagation,
    /// A new tmpfs with these options of mount(8), instead of the source.
    #[serde(default)]
    pub tmpfs: Option<Vec<String>>,
    /// The content of an image, instead of the source: nothing in it can be written or executed.
    #[serde(default)]
    pub image: Option<RootSpec>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    #[default]
    Private,
    FromHost,
    BothWays,
}

/// A device of the host, to be there under another or the same name.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct DeviceSpec {
    pub target: PathBuf,
    pub source: PathBuf,
}

/// What is executed, as whom and how confined.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ProcessSpec {
    pub args: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    pub cwd: PathBuf,
    /// `user`, `user:group`, by name or number, resolved in the container's /etc/passwd; empty is root.
    pub user: String,
    /// Further groups.
    pub groups: Vec<u32>,
    /// Further groups by name or number, looked up in the container's /etc/group.
    #[serde(default)]
    pub named_groups: Vec<String>,
    /// Leave out the groups that the container's /etc/group gives the user.
    pub only_given_groups: bool,
    pub capabilities: Capabilities,
    pub no_new_privileges: bool,
    /// The program as hexadecimal digits, sixteen for each instruction in memory order. None is unconfined.
    pub seccomp: Option<String>,
    pub terminal: bool,
    /// Columns and rows that the terminal has when the program starts.
    #[serde(default)]
    pub terminal_size: Option<(u16, u16)>,
    pub oom_score_adj: Option<i32>,
    /// Sets that differ from `capabilities`, which then is the bounding one.
    #[serde(default)]
    pub capability_sets: Option<Sets>,
    /// Groups and variables are exactly the given ones: no group of the user, no PATH.
    #[serde(default)]
    pub exact: bool,
    /// The mode bits that new files do not get; nothing is 022.
    #[serde(default)]
    pub umask: Option<u32>,
    /// Descriptors behind stdio that the program gets as they are.
    #[serde(default)]
    pub kept_descriptors: u32,
    /// RLIMIT_ number, soft, hard.
    pub limits: Vec<(u32, u64, u64)>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ExecSpec {
    /// Chosen by the daemon, unique in the sandbox.
    pub id: String,
    pub container: String,
    pub process: ProcessSpec,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

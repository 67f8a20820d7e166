//! Starts the first process of a container: forks into new namespaces, and in the child builds and enters the root.

use crate::identity::{self, Report, Reporter, Stdio};
use crate::prepare::{self, Bind, ChildStdio, ShimStdio, set_oom_score};
use crate::protocol::{ContainerSpec, Failure, PidNamespace};
use crate::rootfs::{self, Parts};
use crate::sandbox::Sandbox;
use crate::user_namespace::UserNamespace;
use pintle_linux::mount::{self, Tree};
use pintle_linux::process::{self, Forked, namespace};
use pintle_linux::{Context, Result, capability};
use rustix::fs::Mode;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// A process that is on its way: it reports on the socket, then executes, which closes it.
pub struct Launch {
    pub pid: i32,
    pub handle: OwnedFd,
    pub socket: UnixStream,
    pub stdio: ShimStdio,
}

/// What the child takes along.
struct Baggage {
    /// The root filesystem, where the rest of the machine's mounts is not needed any more.
    root: Option<Tree>,
    binds: Vec<Bind>,
    shm: Option<Tree>,
    stdio: ChildStdio,
    socket: UnixStream,
}

/// Forks a container's first process. `pid_of` is the process whose pid namespace it joins, if it is not its own.
pub fn container(
    sandbox: &Sandbox,
    spec: &ContainerSpec,
    pid_of: Option<BorrowedFd<'_>>,
) -> std::result::Result<Launch, Failure> {
    let binds = prepare::binds(spec, sandbox.users.as_ref())?;
    let shm = if spec.own_ipc { None } else { sandbox.shared_memory()? };
    let (child, shim) = match spec.process.terminal {
        true => (ChildStdio::default(), ShimStdio::default()),
        false => prepare::pipes(spec.stdin)?,
    };
    let (ours, theirs) = UnixStream::pair().context(|| "make a socket pair")?;
    ours.set_nonblocking(true).context(|| "make a socket non-blocking")?;
    let root = if may_leave_mounts(sandbox, spec) { rootfs::root_tree(&spec.root)? } else { None };
    let mut namespaces = if root.is_some() { 0 } else { namespace::MOUNT };
    let baggage = Baggage { root, binds, shm, stdio: child, socket: theirs };
    if spec.pid == PidNamespace::Own {
        namespaces |= namespace::PID;
    }
    if spec.own_ipc {
        namespaces |= namespace::IPC;
    }
    match sandbox.fork(namespaces, pid_of, &spec.cgroup)? {
        Forked::Parent { pid, pidfd } => Ok(Launch { pid, handle: pidfd, socket: ours, stdio: shim }),
        Forked::Child => run(sandbox, spec, baggage),
    }
}

/// Whether all that a container needs of the machine's mounts can be opened before the fork. Mounts whose ids are mapped
/// and those of images are made in the child, and devices may lie on a filesystem of their own.
fn may_leave_mounts(sandbox: &Sandbox, spec: &ContainerSpec) -> bool {
    let of_images = spec.mounts.iter().any(|mount| mount.image.is_some());
    sandbox.bare_mounts.is_some() && sandbox.users.is_none() && !of_images && spec.devices.is_empty()
}

/// The child's whole life before exec.
fn run(sandbox: &Sandbox, spec: &ContainerSpec, baggage: Baggage) -> ! {
    let Baggage { root, binds, shm, stdio, socket } = baggage;
    let failure = match build(sandbox, spec, root, binds, shm) {
        Ok(built) => {
            let stdio = Stdio { pipes: stdio, terminal: built.terminal, null: built.null };
            identity::become_program(
                &spec.process,
                stdio,
                sandbox.users.as_ref().map(UserNamespace::to_start),
                &mut Reporter(&socket),
            )
        }
        Err(error) => error.into(),
    };
    identity::send_report(&socket, &Report::Failed(failure), None);
    process::exit_now(128)
}

fn build(
    sandbox: &Sandbox,
    spec: &ContainerSpec,
    root: Option<Tree>,
    binds: Vec<Bind>,
    shm: Option<Tree>,
) -> Result<rootfs::Built> {
    rustix::process::umask(Mode::empty());
    if root.is_some() {
        sandbox.enter_mounts()?;
    }
    sandbox.join_cgroup(&spec.cgroup)?;
    if !spec.host_cgroup_namespace {
        process::unshare(namespace::CGROUP)?;
    }
    set_oom_score(spec.process.oom_score_adj);
    rustix::process::setsid().context(|| "start a session")?;
    let users = sandbox.users.as_ref();
    if let Some(users) = users {
        // ID-mapped layers take new files from ids of the namespace only.
        process::own_files_as(users.to_start().outer_user(0)?, users.outer_group(0)?)?;
        capability::raise()?;
    }
    let parts = Parts { mount_point: &sandbox.mount_point, root, binds, shm, cgroups: &sandbox.cgroups, users };
    let built = rootfs::build(spec, parts)?;
    mount::pivot_into(&sandbox.mount_point)?;
    Ok(built)
}

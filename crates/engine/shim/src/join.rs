//! Starts a further process in a running container (exec).
//!
//! The child joins the container's namespaces by the descriptor of its first process, so a reused number cannot lead
//! it astray, and is confined like the first one.

use crate::identity::{self, Report, Reporter, Stdio};
use crate::launch::Launch;
use crate::prepare::{ChildStdio, ShimStdio, set_oom_score};
use crate::protocol::{ExecSpec, Failure};
use crate::rootfs::open_null;
use crate::sandbox::Sandbox;
use crate::user_namespace::UserNamespace;
use pintle_linux::path::{Dir, Scope, open_directory};
use pintle_linux::process::{self, Forked, namespace};
use pintle_linux::{Context, Error, Result, pty};
use rustix::fs::OFlags;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// The container to join.
pub struct Target<'a> {
    pub first: BorrowedFd<'a>,
    pub cgroup: &'a str,
}

/// Forks a process into a container. `descriptors` are its stdin, stdout and stderr, as many as the spec names.
pub fn container(
    sandbox: &Sandbox,
    target: &Target<'_>,
    spec: &ExecSpec,
    descriptors: Vec<OwnedFd>,
) -> std::result::Result<Launch, Failure> {
    let mut given = descriptors.into_iter();
    let mut next = |wanted: bool| if wanted && !spec.process.terminal { given.next() } else { None };
    let stdio = ChildStdio { stdin: next(spec.stdin), stdout: next(spec.stdout), stderr: next(spec.stderr) };
    let (ours, theirs) = UnixStream::pair().context(|| "make a socket pair")?;
    ours.set_nonblocking(true).context(|| "make a socket non-blocking")?;
    match sandbox.fork(0, Some(target.first), target.cgroup)? {
        Forked::Parent { pid, pidfd } => Ok(Launch { pid, handle: pidfd, socket: ours, stdio: ShimStdio::default() }),
        Forked::Child => run(sandbox, target, spec, stdio, &theirs),
    }
}

fn run(sandbox: &Sandbox, target: &Target<'_>, spec: &ExecSpec, pipes: ChildStdio, socket: &UnixStream) -> ! {
    let failure = match enter(sandbox, target, spec) {
        Ok((null, terminal)) => {
            let stdio = Stdio { pipes, terminal, null };
            identity::become_program(
                &spec.process,
                stdio,
                sandbox.users.as_ref().map(UserNamespace::to_join),
                &mut Reporter(socket),
            )
        }
        Err(error) => error.into(),
    };
    identity::send_report(socket, &Report::Failed(failure), None);
    process::exit_now(128)
}

fn enter(sandbox: &Sandbox, target: &Target<'_>, spec: &ExecSpec) -> Result<(OwnedFd, Option<pty::Terminal>)> {
    sandbox.join_cgroup(target.cgroup)?;
    set_oom_score(spec.process.oom_score_adj);
    rustix::process::setsid().context(|| "start a session")?;
    let shared = namespace::MOUNT | namespace::IPC | namespace::UTS | namespace::NETWORK | namespace::CGROUP;
    process::enter(target.first, shared)?;
    let root = open_directory(Path::new("/"))?;
    let inside = Dir::new(&root, Scope::NoLinks);
    let dev = inside.open(Path::new("/dev"), OFlags::PATH | OFlags::DIRECTORY)?;
    let null = open_null(&dev, "null")?;
    let terminal = if spec.process.terminal { Some(open_terminal(&inside)?) } else { None };
    if let (Some(terminal), Some((columns, rows))) = (&terminal, spec.process.terminal_size) {
        pty::resize(&terminal.controller, columns, rows)?;
    }
    Ok((null, terminal))
}

/// A terminal of what is really a devpts.
pub fn open_terminal(inside: &Dir<'_>) -> Result<pty::Terminal> {
    let devpts = inside.open(Path::new("/dev/pts"), OFlags::PATH | OFlags::DIRECTORY)?;
    let filesystem = rustix::fs::fstatfs(&devpts).context(|| "ask the filesystem of /dev/pts")?;
    if filesystem.f_type != libc::DEVPTS_SUPER_MAGIC {
        return Err(Error::invalid("open a terminal in /dev/pts", "it is no devpts"));
    }
    pty::open(devpts.as_fd())
}

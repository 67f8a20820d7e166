//! Runs a further process in a container.

use crate::bundle::{self, Process, read_json, without_nulls};
use crate::child::{Word, own_stdio, say};
use crate::create::{fork_into, hear, write_pid_file};
use crate::lifecycle::wait_in_foreground;
use crate::state::{Container, Status};
use crate::{Error, Result, console, process as program, refuse};
use pintle_linux::cgroup::Cgroups;
use pintle_linux::path::{Dir, Scope, open_directory};
use pintle_linux::process::{self, Forked, PidFd, namespace};
use pintle_linux::{Context, pty};
use pintle_shim::identity::{self, Stdio, Witness};
use pintle_shim::prepare::set_oom_score;
use pintle_shim::protocol::{Failure, ProcessSpec};
use pintle_shim::user_namespace::UserNamespace;
use pintle_shim::{join, rootfs};
use rustix::fs::OFlags;
use std::io::BufReader;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// What a caller asks for.
#[derive(Debug, Default)]
pub struct Request<'a> {
    pub root: PathBuf,
    pub id: &'a str,
    /// A file with the process; else it is the container's, with what follows.
    pub process: Option<&'a str>,
    pub args: &'a [String],
    pub env: &'a [String],
    pub cwd: Option<&'a str>,
    /// `uid[:gid]`.
    pub user: Option<&'a str>,
    pub groups: Vec<u32>,
    pub capabilities: &'a [String],
    pub terminal: bool,
    pub no_new_privileges: bool,
    pub console_socket: Option<&'a str>,
    pub pid_file: Option<&'a str>,
    pub detach: bool,
    pub preserved: u32,
}

/// Runs it; the exit code for this command.
pub fn exec(request: &Request<'_>) -> Result<i32> {
    let container = Container::open(&request.root, request.id)?;
    let cgroups = Cgroups::detect()?;
    match container.status(&cgroups) {
        Status::Created | Status::Running => {}
        Status::Paused => return refuse("cannot exec in a paused container (use --ignore-paused to override)"),
        _ => return refuse("cannot exec in a stopped container"),
    }
    let config = container.config()?;
    let described = describe(request, config.process()?)?;
    let spec = program::translate(&described, &config, request.preserved)?;
    if spec.terminal && request.console_socket.is_none() && request.detach {
        return refuse("cannot allocate tty if runc will detach without setting console socket");
    }
    let (console, receiver) = match (spec.terminal, request.console_socket) {
        (true, Some(path)) => (Some(console::connect(path)?), None),
        (true, None) => {
            let (theirs, ours) = UnixStream::pair().context(|| "make a socket pair")?;
            (Some(theirs), Some(ours))
        }
        (false, _) => (None, None),
    };
    let first = PidFd::open(container.record.pid).context(|| "open the container's process")?;
    let (socket, theirs) = UnixStream::pair().context(|| "make a socket pair")?;
    let users = match config.namespace("user") {
        Some(_) => Some(UserNamespace::of_process(container.record.pid)?),
        None => None,
    };
    let directory = match cgroups.hierarchies()[0].v2 {
        true => Some(cgroups.open_v2(&container.record.cgroup)?),
        false => None,
    };
    let first = first.as_fd().try_clone_to_owned().context(|| "keep a descriptor")?;
    let (pid, handle) = match fork_into(0, Some(&first), directory.as_ref())? {
        Forked::Parent { pid, pidfd } => (pid, pidfd),
        Forked::Child => {
            let witness = Messenger { socket: theirs, console };
            process::exit_now(run(&container, &spec, &first, users.as_ref(), &cgroups, witness))
        }
    };
    drop((theirs, console, container));
    if let Some(Word::Failed(failure)) = hear(&mut BufReader::new(&socket))? {
        return refuse(format!("exec failed: {failure}"));
    }
    if let Some(path) = request.pid_file {
        write_pid_file(path, pid)?;
    }
    let controller = receiver.map(|socket| console::receive(&socket)).transpose()?;
    if request.detach {
        return Ok(0);
    }
    wait_in_foreground(handle, controller)
}

fn describe(request: &Request<'_>, of_container: &Process) -> Result<Process> {
    if let Some(path) = request.process {
        let failed = |e: serde_json::Error| Error::new(format!("{path}: {e}"));
        let value = serde_json::from_slice(&read_json(Path::new(path))?).map_err(failed)?;
        return serde_json::from_value(without_nulls(value)).map_err(failed);
    }
    let mut process = of_container.clone();
    process.args = request.args.to_vec();
    process.terminal = request.terminal;
    process.console_size = None;
    process.env.extend_from_slice(request.env);
    process.no_new_privileges |= request.no_new_privileges;
    if let Some(cwd) = request.cwd {
        process.cwd = PathBuf::from(cwd);
    }
    if let Some(user) = request.user {
        let (uid, gid) = user.split_once(':').unwrap_or((user, ""));
        let number =
            |text: &str| text.parse().map_err(|_| Error::new(format!("user {user:?}: give numbers, UID[:GID]")));
        process.user = bundle::User { uid: number(uid)?, ..process.user };
        if !gid.is_empty() {
            process.user.gid = number(gid)?;
        }
    }
    process.user.additional_gids.extend_from_slice(&request.groups);
    if let Some(sets) = &mut process.capabilities {
        for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
            set.extend_from_slice(request.capabilities);
        }
    }
    Ok(process)
}

/// Tells the command, by a socket that exec closes.
struct Messenger {
    socket: UnixStream,
    console: Option<UnixStream>,
}

impl Witness for Messenger {
    fn before_privilege_goes(&mut self, controller: Option<OwnedFd>) -> std::result::Result<Option<OwnedFd>, Failure> {
        if let (Some(controller), Some(console)) = (controller, self.console.take()) {
            console::send(&console, controller.as_fd())?;
        }
        Ok(None)
    }
}

fn run(
    container: &Container,
    spec: &ProcessSpec,
    first: &OwnedFd,
    users: Option<&UserNamespace>,
    cgroups: &Cgroups,
    mut witness: Messenger,
) -> i32 {
    let failure = match enter(container, spec, first, cgroups) {
        Ok(stdio) => identity::become_program(spec, stdio, users.map(UserNamespace::to_join), &mut witness),
        Err(error) => Failure::other(error.to_string()),
    };
    say(&witness.socket, &Word::Failed(failure));
    255
}

fn enter(container: &Container, spec: &ProcessSpec, first: &OwnedFd, cgroups: &Cgroups) -> Result<Stdio> {
    if !cgroups.hierarchies()[0].v2 {
        cgroups.attach(&container.record.cgroup, 0)?;
    }
    set_oom_score(spec.oom_score_adj);
    rustix::process::setsid().context(|| "start a session")?;
    let all = namespace::MOUNT | namespace::IPC | namespace::UTS | namespace::NETWORK | namespace::CGROUP;
    process::enter(first.as_fd(), all)?;
    let root = open_directory(Path::new("/"))?;
    let inside = Dir::new(&root, Scope::NoLinks);
    let dev = inside.open(Path::new("/dev"), OFlags::PATH | OFlags::DIRECTORY)?;
    let null = rootfs::open_null(&dev, "null")?;
    let terminal = if spec.terminal { Some(join::open_terminal(&inside)?) } else { None };
    if let (Some(terminal), Some((columns, rows))) = (&terminal, spec.terminal_size) {
        pty::resize(&terminal.controller, columns, rows)?;
    }
    Ok(Stdio { pipes: own_stdio(terminal.is_none())?, terminal, null })
}

//! The forked child's life until it is the container's program.

use crate::bundle::{Config, Hook};
use crate::mounts::{self, Prepared};
use crate::{Error, Result, console, hooks, refuse};
use pintle_linux::cgroup::Cgroups;
use pintle_linux::mount::{self, Propagation, Tree};
use pintle_linux::process::{self, namespace};
use pintle_linux::{Context, capability, netns};
use pintle_shim::identity::{self, Stdio, Witness};
use pintle_shim::prepare::{ChildStdio, set_oom_score};
use pintle_shim::protocol::{Failure, ProcessSpec, Started};
use pintle_shim::rootfs::{self, Hidden, Root};
use pintle_shim::user_namespace::UserNamespace;
use rustix::fs::{FileType, Gid, Mode, OFlags, Uid};
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// What the child says to the command that forked it, a line of JSON each.
#[derive(Debug, Serialize, Deserialize)]
pub enum Word {
    /// It is in its namespaces and waits for a byte.
    InNamespaces,
    /// All is done but to execute.
    Created,
    Failed(Failure),
}

pub fn say(mut socket: &UnixStream, word: &Word) {
    let line = serde_json::to_string(word).unwrap_or_default();
    // When the command is gone there is nobody to tell.
    let _ = writeln!(socket, "{line}");
}

/// What the child takes along.
pub struct Baggage {
    pub config: Config,
    pub process: ProcessSpec,
    pub rootfs: PathBuf,
    pub mounts: Vec<Prepared>,
    pub cgroups: Cgroups,
    pub cgroup: String,
    /// Namespaces to join, and those that belong to the user namespace.
    pub join: Vec<(OwnedFd, u64)>,
    pub users: Option<UserNamespace>,
    pub console: Option<UnixStream>,
    pub listener: UnixListener,
    pub socket: UnixStream,
    pub no_pivot: bool,
    /// The state that hooks get; it has the process's number in the caller's namespace, which comes with the byte.
    pub state: serde_json::Value,
}

/// Goes on as the container. Returns only with what went wrong, after it was told.
pub fn run(baggage: Baggage) -> i32 {
    let Baggage { config, process, rootfs, mounts, cgroups, cgroup, join, users, .. } = baggage;
    let mut gate = Gate {
        socket: baggage.socket,
        listener: Some(baggage.listener),
        console: baggage.console,
        start: None,
        hooks: config.hooks.start_container.clone(),
        state: baggage.state,
    };
    let place = Place { config: &config, process: &process, rootfs: &rootfs, cgroups: &cgroups, cgroup: &cgroup };
    let built = enter_namespaces(&place, &join, users.as_ref(), &mut gate)
        .and_then(|()| build(&place, mounts, users.as_ref(), baggage.no_pivot, &gate.state));
    let failure = match built {
        Ok(stdio) => identity::become_program(&process, stdio, users.as_ref().map(UserNamespace::to_start), &mut gate),
        Err(Error::Failure(failure)) => failure,
        Err(error) => Failure::other(error.to_string()),
    };
    gate.failed(failure);
    1
}

struct Place<'a> {
    config: &'a Config,
    process: &'a ProcessSpec,
    rootfs: &'a Path,
    cgroups: &'a Cgroups,
    cgroup: &'a str,
}

/// Between `create` and `start`.
struct Gate {
    socket: UnixStream,
    listener: Option<UnixListener>,
    console: Option<UnixStream>,
    /// The connection of `start`.
    start: Option<UnixStream>,
    hooks: Vec<Hook>,
    state: serde_json::Value,
}

impl Gate {
    fn failed(&self, failure: Failure) {
        match &self.start {
            Some(start) => say(start, &Word::Failed(failure)),
            None => say(&self.socket, &Word::Failed(failure)),
        }
    }

    fn wait(&mut self, controller: Option<OwnedFd>) -> Result<()> {
        if let Some(controller) = controller {
            let Some(socket) = self.console.take() else {
                return refuse("cannot allocate tty without a console socket");
            };
            console::send(&socket, controller.as_fd())?;
        }
        let Some(listener) = self.listener.take() else { return refuse("started already") };
        say(&self.socket, &Word::Created);
        let (stream, _) = listener.accept().context(|| "wait for the start")?;
        let mut byte = [0];
        (&stream).read_exact(&mut byte).context(|| "wait for the start")?;
        self.start = Some(stream);
        hooks::run("startContainer", &self.hooks, &self.state)
    }
}

impl Witness for Gate {
    fn before_privilege_goes(&mut self, controller: Option<OwnedFd>) -> std::result::Result<Option<OwnedFd>, Failure> {
        match self.wait(controller) {
            Ok(()) => Ok(None),
            Err(Error::Failure(failure)) => Err(failure),
            Err(error) => Err(Failure::other(error.to_string())),
        }
    }

    fn ready(&mut self, _: Started, _: Option<OwnedFd>) {}
}

fn enter_namespaces(
    place: &Place<'_>,
    join: &[(OwnedFd, u64)],
    users: Option<&UserNamespace>,
    gate: &mut Gate,
) -> Result<()> {
    let config = place.config;
    rustix::process::umask(Mode::empty());
    if !place.cgroups.hierarchies()[0].v2 {
        place.cgroups.attach(place.cgroup, 0)?;
    }
    set_oom_score(place.process.oom_score_adj);
    rustix::process::setsid().context(|| "start a session")?;
    for (fd, kind) in join {
        process::enter(fd.as_fd(), *kind)?;
    }
    if config.has_new("cgroup") {
        process::unshare(namespace::CGROUP)?;
    }
    if config.has_new("network") {
        netns::loopback_up()?;
    }
    if !config.hostname.is_empty() {
        rustix::system::sethostname(config.hostname.as_bytes()).context(|| "set the host name")?;
    }
    if !config.domainname.is_empty() {
        rustix::system::setdomainname(config.domainname.as_bytes()).context(|| "set the domain name")?;
    }
    for (name, value) in &config.linux.sysctl {
        set_sysctl(name, value, config)?;
    }
    say(&gate.socket, &Word::InNamespaces);
    let mut pid = [0; 4];
    (&gate.socket).read_exact(&mut pid).context(|| "wait for the runtime's hooks")?;
    gate.state["pid"] = i32::from_ne_bytes(pid).into();
    if let Some(users) = users {
        // New files in the root are those of the container's root.
        process::own_files_as(users.to_start().outer_user(0)?, users.outer_group(0)?)?;
        capability::raise()?;
    }
    Ok(())
}

/// A parameter of a namespace that the container has for itself; others are the machine's, and refused.
fn set_sysctl(name: &str, value: &str, config: &Config) -> Result<()> {
    let name = name.replace('/', ".");
    let of_ipc = ["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."].iter().any(|p| name.starts_with(p));
    let of_uts = ["kernel.hostname", "kernel.domainname"].contains(&name.as_str());
    let has = |kind: &str| config.namespace(kind).is_some();
    let allowed = name.starts_with("net.") && has("network") || of_ipc && has("ipc") || of_uts && has("uts");
    if !allowed || name.split('.').any(str::is_empty) {
        return refuse(format!("sysctl {name:?} is not in a separate kernel namespace"));
    }
    let path = Path::new("/proc/sys").join(name.replace('.', "/"));
    std::fs::write(&path, value).context(|| format!("write {value:?} to {}", path.display()))?;
    Ok(())
}

/// Builds the root, makes it the root, and opens the program's stdio.
fn build(
    place: &Place<'_>,
    prepared: Vec<Prepared>,
    users: Option<&UserNamespace>,
    no_pivot: bool,
    state: &serde_json::Value,
) -> Result<Stdio> {
    let linux = &place.config.linux;
    // As runc: without a word the root gets what is mounted on the host, and gives nothing back.
    let spread = linux.rootfs_propagation.trim_start_matches('r');
    let at_first = if spread == "private" { Propagation::Private } else { Propagation::Slave };
    mount::propagate_all(at_first)?;
    let tree = Tree::clone_of_path(place.rootfs, true)?;
    tree.attach_at(place.rootfs)?;
    let root = Root::open(place.rootfs, Vec::new(), users)?;
    let mounted = mounts::attach(prepared, &root, place.cgroup, place.cgroups)?;
    let null = devices(place, &root, mounted.dev_is_bound)?;
    let terminal = match (place.process.terminal, &mounted.devpts) {
        (false, _) => None,
        (true, Some(devpts)) => Some(root.terminal(devpts, place.process.terminal_size)?),
        (true, None) => return refuse("a terminal needs a devpts at /dev/pts"),
    };
    hooks::run("createContainer", &place.config.hooks.create_container, state)?;
    let hidden = Hidden { masked: &linux.masked_paths, readonly: &linux.readonly_paths };
    root.hide(&hidden, mounted.proc.as_ref(), mounted.sys.as_ref(), &null)?;
    if place.config.root.as_ref().is_some_and(|root| root.readonly) {
        root.protect()?;
    }
    if no_pivot {
        mount::move_into(place.rootfs)?;
    } else {
        mount::pivot_into(place.rootfs)?;
    }
    match spread {
        "shared" => tree.propagate(Propagation::Shared, false)?,
        "unbindable" => tree.propagate(Propagation::Unbindable, false)?,
        _ => {}
    }
    Ok(Stdio { pipes: own_stdio(terminal.is_none())?, terminal, null })
}

/// The caller's stdio goes on to the program.
pub fn own_stdio(wanted: bool) -> Result<ChildStdio> {
    if !wanted {
        return Ok(ChildStdio::default());
    }
    let duplicate = |number: i32| {
        // SAFETY: stdio is open in this process until the program replaces it.
        #[allow(unsafe_code)]
        let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
        rustix::io::fcntl_dupfd_cloexec(fd, 3).ok()
    };
    Ok(ChildStdio { stdin: duplicate(0), stdout: duplicate(1), stderr: duplicate(2) })
}

/// /dev with what every container has and what the configuration adds. Returns the container's /dev/null.
fn devices(place: &Place<'_>, root: &Root<'_>, is_bound: bool) -> Result<OwnedFd> {
    let dev = match mounts::directory(root, "/dev") {
        Some(dev) => dev,
        None => root.dir().make_dir(Path::new("/dev"), 0o755)?,
    };
    if is_bound {
        return Ok(rootfs::open_null(dev.as_fd(), "null")?);
    }
    for device in &place.config.linux.devices {
        let kind = match device.kind.as_str() {
            "c" | "u" => FileType::CharacterDevice,
            "b" => FileType::BlockDevice,
            "p" => FileType::Fifo,
            other => return refuse(format!("device {}: unknown type {other:?}", device.path.display())),
        };
        let (Some(parent), Some(name)) = (device.path.parent(), device.path.file_name()) else {
            return refuse(format!("device {}: it has no name", device.path.display()));
        };
        let parent = root.dir().make_dir(parent, 0o755)?;
        let number = rustix::fs::makedev(device.major, device.minor);
        let mode = device.file_mode.unwrap_or(0o666) & 0o7777;
        match rootfs::make_node(parent.as_fd(), &name.to_string_lossy(), kind, mode, number) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => continue,
            other => other?,
        }
        let owner = (device.uid.map(Uid::from_raw), device.gid.map(Gid::from_raw));
        rustix::fs::chownat(&parent, name, owner.0, owner.1, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
            .context(|| format!("give {} to its user", device.path.display()))?;
    }
    let opened = rustix::fs::openat(&dev, ".", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let dev = opened.context(|| "open /dev")?;
    Ok(rootfs::usual_devices(dev.as_fd())?)
}

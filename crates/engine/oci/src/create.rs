//! Makes a container: its directory, its cgroup, and the process that will be its program.

use crate::bundle::{Config, read_json};
use crate::child::{self, Baggage, Word};
use crate::log::timestamp;
use crate::state::{Container, Record, Status, document, process_start};
use crate::{Error, Result, console, hooks, mounts, process as program, refuse, resources};
use pintle_linux::cgroup::Cgroups;
use pintle_linux::id_map::{IdMappings, IdRange};
use pintle_linux::process::{self, Forked, namespace};
use pintle_linux::{Context, Result as LinuxResult};
use pintle_shim::user_namespace::{Helper, UserNamespace};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a caller asks for beside the bundle.
#[derive(Debug, Default)]
pub struct Request<'a> {
    pub root: PathBuf,
    pub id: &'a str,
    pub bundle: PathBuf,
    pub pid_file: Option<&'a str>,
    pub console_socket: Option<&'a str>,
    pub no_pivot: bool,
    pub preserved: u32,
    /// The caller stays and is the terminal.
    pub foreground: bool,
}

/// A container that waits for its start.
pub struct Created {
    pub container: Container,
    pub handle: OwnedFd,
    /// In the foreground the terminal's controlling end.
    pub controller: Option<OwnedFd>,
}

/// The types of namespaces with their flags, in the order in which they are joined.
const NAMESPACES: [(&str, u64); 6] = [
    ("cgroup", namespace::CGROUP),
    ("ipc", namespace::IPC),
    ("uts", namespace::UTS),
    ("network", namespace::NETWORK),
    ("pid", namespace::PID),
    ("mount", namespace::MOUNT),
];
/// Those that belong to a new user namespace, if there is one.
const OF_USERS: u64 = namespace::IPC | namespace::UTS | namespace::NETWORK;

/// Creates a container. Nothing stays of one that fails.
pub fn create(request: &Request<'_>) -> Result<Created> {
    let bundle = std::fs::canonicalize(&request.bundle)
        .map_err(|e| Error::new(format!("bundle {}: {e}", request.bundle.display())))?;
    let bytes = read_json(&bundle.join("config.json"))?;
    let config = Config::parse(&bytes)?;
    let rootfs = config.root_path(&bundle);
    let rootfs = std::fs::canonicalize(&rootfs).map_err(|e| Error::new(format!("rootfs {}: {e}", rootfs.display())))?;
    let terminal = config.process()?.terminal;
    if terminal && request.console_socket.is_none() && !request.foreground {
        return refuse("cannot allocate tty if runc will detach without setting console socket");
    }
    if !terminal && request.console_socket.is_some() {
        return refuse("cannot use console socket if runc will not detach or allocate tty");
    }
    let record = Record {
        id: request.id.to_owned(),
        cgroup: resources::path(&config, request.id),
        created: timestamp(),
        annotations: config.annotations.clone(),
        oci_version: config.oci_version.clone(),
        bundle,
        rootfs,
        ..Record::default()
    };
    let container = Container::create(&request.root, record, &bytes)?;
    let directory = container.directory.clone();
    let cgroup = container.record.cgroup.clone();
    let cgroups = Cgroups::detect()?;
    let existed = cgroups.exists(&cgroup);
    let made = fill(request, config, container, &cgroups);
    if made.is_err() {
        // The first error is the one that helps.
        let _ = cgroups.kill_all(&cgroup, Duration::from_secs(2));
        if !existed {
            let _ = cgroups.remove(&cgroup);
        }
        let _ = std::fs::remove_dir_all(directory);
    }
    made
}

fn fill(request: &Request<'_>, config: Config, mut container: Container, cgroups: &Cgroups) -> Result<Created> {
    let spec = program::translate(config.process()?, &config, request.preserved)?;
    let prepared = mounts::prepare(&config, &container.record.bundle)?;
    cgroups.create(&container.record.cgroup, &resources::limits(&config)?)?;
    let (users, helper) = user_namespace(&config)?;
    let (socket, theirs) = UnixStream::pair().context(|| "make a socket pair")?;
    let listener = UnixListener::bind(container.start_socket())
        .map_err(|e| Error::new(format!("listen for the start in {}: {e}", container.directory.display())))?;
    let (console, receiver) = match (spec.terminal, request.console_socket) {
        (true, Some(path)) => (Some(console::connect(path)?), None),
        (true, None) => {
            let (theirs, ours) = UnixStream::pair().context(|| "make a socket pair")?;
            (Some(theirs), Some(ours))
        }
        (false, _) => (None, None),
    };
    let plan = Plan::new(&config, helper.as_ref())?;
    let hooks = config.hooks.clone();
    let baggage = Baggage {
        process: spec,
        rootfs: container.record.rootfs.clone(),
        mounts: prepared,
        cgroups: cgroups.clone(),
        cgroup: container.record.cgroup.clone(),
        join: plan.join,
        users,
        console,
        listener,
        socket: theirs,
        no_pivot: request.no_pivot,
        state: document(&container.record, Status::Creating),
        config,
    };
    let (pid, handle) = fork(plan.new, plan.pid.as_ref(), baggage)?;
    let guard = KillOnDrop(Some(handle));
    container.record.pid = pid;
    container.record.start_time = process_start(pid).map_or(0, |(start, _)| start);
    container.save()?;
    let state = document(&container.record, Status::Creating);
    accompany(&socket, pid, || {
        hooks::run("prestart", &hooks.prestart, &state)?;
        hooks::run("createRuntime", &hooks.create_runtime, &state)
    })?;
    drop(helper);
    let controller = receiver.map(|socket| console::receive(&socket)).transpose()?;
    if let Some(path) = request.pid_file {
        write_pid_file(path, pid)?;
    }
    Ok(Created { container, handle: guard.keep()?, controller })
}

/// A process that ends with an error of its creation.
struct KillOnDrop(Option<OwnedFd>);

impl KillOnDrop {
    fn keep(mut self) -> Result<OwnedFd> {
        self.0.take().ok_or_else(|| Error::new("the process is gone"))
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(handle) = &self.0 {
            // It has ended by itself.
            let _ = process::signal(handle.as_fd(), libc::SIGKILL);
            let _ = rustix::process::waitid(
                rustix::process::WaitId::PidFd(handle.as_fd()),
                rustix::process::WaitIdOptions::EXITED,
            );
        }
    }
}

/// Hears the child until it is created; `meanwhile` runs while it waits in its namespaces.
fn accompany(socket: &UnixStream, pid: i32, meanwhile: impl FnOnce() -> Result<()>) -> Result<()> {
    let mut lines = BufReader::new(socket);
    let mut meanwhile = Some(meanwhile);
    loop {
        match hear(&mut lines)? {
            Some(Word::InNamespaces) => {
                if let Some(meanwhile) = meanwhile.take() {
                    meanwhile()?;
                }
                let mut socket = socket;
                socket.write_all(&pid.to_ne_bytes()).context(|| "let the container go on")?;
            }
            Some(Word::Created) => return Ok(()),
            Some(Word::Failed(failure)) => {
                return refuse(format!("unable to start container process: {failure}"));
            }
            None => return refuse("the container's process ended before it was created"),
        }
    }
}

/// The next word; nothing at the end.
pub fn hear(lines: &mut impl BufRead) -> Result<Option<Word>> {
    let mut line = String::new();
    lines.read_line(&mut line).context(|| "hear the container's process")?;
    if line.is_empty() {
        return Ok(None);
    }
    serde_json::from_str(&line).map(Some).map_err(|e| Error::new(format!("unreadable word of the child: {e}")))
}

/// Which namespaces are made, and which joined.
struct Plan {
    new: u64,
    pid: Option<OwnedFd>,
    join: Vec<(OwnedFd, u64)>,
}

impl Plan {
    fn new(config: &Config, helper: Option<&Helper>) -> Result<Self> {
        let mut plan = Self { new: 0, pid: None, join: Vec::new() };
        if let Some(helper) = helper {
            let with = of_users(config);
            if with != 0 {
                plan.join.push((helper.handle().try_clone_to_owned().context(|| "keep a descriptor")?, with));
            }
        }
        for (kind, flag) in NAMESPACES {
            let Some(path) = config.namespace(kind) else { continue };
            if path.as_os_str().is_empty() {
                // A cgroup namespace is made once the process is in its cgroup.
                let later = flag == namespace::CGROUP || helper.is_some() && flag & OF_USERS != 0;
                plan.new |= if later { 0 } else { flag };
                continue;
            }
            let file = File::open(path).map_err(|e| Error::new(format!("{kind} namespace {}: {e}", path.display())))?;
            match flag {
                namespace::PID => plan.pid = Some(file.into()),
                _ => plan.join.push((file.into(), flag)),
            }
        }
        Ok(plan)
    }
}

fn of_users(config: &Config) -> u64 {
    let new = NAMESPACES.iter().filter(|(kind, flag)| flag & OF_USERS != 0 && config.has_new(kind));
    new.fold(0, |flags, (_, flag)| flags | flag)
}

fn user_namespace(config: &Config) -> Result<(Option<UserNamespace>, Option<Helper>)> {
    let Some(path) = config.namespace("user") else { return Ok((None, None)) };
    if !path.as_os_str().is_empty() {
        return Ok((Some(UserNamespace::at(path)?), None));
    }
    let ranges = |list: &[crate::bundle::IdMapping]| {
        list.iter().map(|m| IdRange { inside: m.inside, outside: m.outside, size: m.size }).collect()
    };
    let mappings = IdMappings { users: ranges(&config.linux.uid_mappings), groups: ranges(&config.linux.gid_mappings) };
    let (users, helper) = UserNamespace::make(mappings, of_users(config))?;
    Ok((Some(users), Some(helper)))
}

/// Forks the container's process. The parent's own pid namespace stays what it is.
fn fork(new: u64, pid_namespace: Option<&OwnedFd>, baggage: Baggage) -> Result<(i32, OwnedFd)> {
    let directory = match baggage.cgroups.hierarchies()[0].v2 {
        true => Some(baggage.cgroups.open_v2(&baggage.cgroup)?),
        false => None,
    };
    match fork_into(new, pid_namespace, directory.as_ref())? {
        Forked::Parent { pid, pidfd } => Ok((pid, pidfd)),
        Forked::Child => process::exit_now(child::run(baggage)),
    }
}

/// Forks into new namespaces, a pid namespace to join, and a version 2 cgroup.
pub fn fork_into(new: u64, pid_namespace: Option<&OwnedFd>, cgroup: Option<&OwnedFd>) -> LinuxResult<Forked> {
    let home = File::open("/proc/self/ns/pid").context(|| "open the pid namespace")?;
    if let Some(target) = pid_namespace {
        process::enter(target.as_fd(), namespace::PID)?;
    }
    // SAFETY: this program has one thread.
    #[allow(unsafe_code)]
    let forked = unsafe { process::fork(new, cgroup.map(AsFd::as_fd)) }.context(|| "fork");
    if pid_namespace.is_some() && !matches!(forked, Ok(Forked::Child)) {
        process::enter(home.as_fd(), namespace::PID)?;
    }
    forked
}

/// Writes the number so that a reader sees all of it or nothing.
pub fn write_pid_file(path: &str, pid: i32) -> Result<()> {
    let path = Path::new(path);
    let new = path.with_file_name(format!(".{}", path.file_name().unwrap_or_default().to_string_lossy()));
    std::fs::write(&new, pid.to_string())
        .and_then(|()| std::fs::rename(&new, path))
        .map_err(|e| Error::new(format!("write the pid file {}: {e}", path.display())))
}

//! Turns a forked child, already in its container's namespaces and root, into the program that it is to be.
//!
//! The order matters: who the user is comes from the container's own files; filters and limits that need privilege
//! come before the privilege goes; nothing of the host may be open when the program starts (CVE-2024-21626).

use crate::prepare::ChildStdio;
use crate::protocol::{Failure, FailureKind, ProcessSpec, Started};
use crate::user_namespace::Entry;
use crate::users::{self, Identity};
use pintle_linux::frame::{Frame, Sender};
use pintle_linux::{Context, Result, capability, process, pty, seccomp};
use rustix::fs::{Gid, Mode, OFlags, Uid};
use std::ffi::{CString, OsStr};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// The most that is read of a container's /etc/passwd and /etc/group, in bytes.
const MAX_DATABASE: u64 = 4 << 20;
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the child tells the shim before it executes.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub enum Report {
    /// All is set; if the socket now closes without another word, the program runs. `pid` is not filled in.
    Ready(Started),
    Failed(Failure),
}

/// What the one who waits for a program hears of its start, and may do meanwhile.
pub trait Witness {
    /// Everything that needs privilege is done, and the program is there; next the privilege goes. Gets the
    /// terminal's controlling end, and returns it when it is to come with `ready`.
    fn before_privilege_goes(&mut self, controller: Option<OwnedFd>) -> std::result::Result<Option<OwnedFd>, Failure> {
        Ok(controller)
    }

    /// All is set: what follows is the program, or a failure.
    fn ready(&mut self, _started: Started, _controller: Option<OwnedFd>) {}
}

/// Tells the shim by a socket that exec closes.
pub struct Reporter<'a>(pub &'a UnixStream);

impl Witness for Reporter<'_> {
    fn ready(&mut self, started: Started, controller: Option<OwnedFd>) {
        send_report(self.0, &Report::Ready(started), controller);
    }
}

pub fn send_report(socket: &UnixStream, report: &Report, descriptor: Option<OwnedFd>) {
    let mut sender = Sender::default();
    let bytes = serde_json::to_vec(report).unwrap_or_default();
    sender.push(Frame { bytes, descriptors: descriptor.into_iter().collect() });
    // When the shim is gone there is nobody to tell.
    let _ = sender.flush(socket.as_fd());
}

/// Stdio of the program: pipes, or a terminal whose controlling end goes to the shim.
pub struct Stdio {
    pub pipes: ChildStdio,
    pub terminal: Option<pty::Terminal>,
    /// The container's /dev/null.
    pub null: OwnedFd,
}

/// Becomes the program. Returns only with what went wrong.
pub fn become_program(
    spec: &ProcessSpec,
    stdio: Stdio,
    users: Option<Entry<'_>>,
    witness: &mut dyn Witness,
) -> Failure {
    match try_become(spec, stdio, users, witness) {
        Ok(never) => match never {},
        Err(failure) => failure,
    }
}

fn try_become(
    spec: &ProcessSpec,
    stdio: Stdio,
    users: Option<Entry<'_>>,
    witness: &mut dyn Witness,
) -> std::result::Result<std::convert::Infallible, Failure> {
    rustix::process::umask(Mode::from_raw_mode(spec.umask.unwrap_or(0o022)));
    let identity = identify(spec)?;
    let seccomp = spec.seccomp.as_deref().map(decode_program).transpose()?;
    let environment = environment(spec, &identity);
    let owner = match &users {
        Some(users) => (users.outer_user(identity.uid)?, users.outer_group(identity.gid)?),
        None => (identity.uid, identity.gid),
    };
    let controller = place_stdio(stdio, owner)?;
    for (resource, soft, hard) in &spec.limits {
        process::set_limit(*resource, *soft, *hard)?;
    }
    if let Some(users) = users {
        users.enter()?;
    }
    enter_directory(&spec.cwd)?;
    process::reset_signals();
    find_program(spec, &environment)?;
    let controller = witness.before_privilege_goes(controller)?;
    drop_privileges(spec, &identity, seccomp.as_deref())?;
    // Again as the user: a directory that it may not enter is an error, and one outside of the root a breach.
    check_directory()?;
    let program = find_program(spec, &environment)?;
    process::close_on_exec_from(3 + spec.kept_descriptors)?;
    let started = Started { pid: 0, uid: identity.uid, gid: identity.gid, groups: identity.groups };
    witness.ready(started, controller);
    execute(&program, spec, &environment)
}

fn identify(spec: &ProcessSpec) -> std::result::Result<Identity, Failure> {
    let (passwd, group) = (database("/etc/passwd"), database("/etc/group"));
    let mut identity = users::resolve(&spec.user, &passwd, &group, !spec.only_given_groups)?;
    identity.groups.extend_from_slice(&spec.groups);
    for name in &spec.named_groups {
        identity.groups.push(users::find_group(name, &group)?);
    }
    if !spec.exact && !identity.groups.contains(&identity.gid) {
        identity.groups.insert(0, identity.gid);
    }
    let mut seen = std::collections::HashSet::new();
    identity.groups.retain(|gid| seen.insert(*gid));
    Ok(identity)
}

/// Reads a file of the image, which may be anything: only a regular one counts, and no more than its beginning.
fn database(path: &str) -> String {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let Ok(fd) = rustix::fs::open(path, flags, Mode::empty()) else { return String::new() };
    let file = std::fs::File::from(fd);
    if !file.metadata().is_ok_and(|m| m.is_file()) {
        return String::new();
    }
    let mut bytes = Vec::new();
    // What cannot be read counts as empty: then names are not found, and that is told.
    let _ = file.take(MAX_DATABASE).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The specified variables, with PATH and HOME when they are missing.
pub fn environment(spec: &ProcessSpec, identity: &Identity) -> Vec<CString> {
    let has = |name: &str| spec.env.iter().any(|v| v.split_once('=').is_some_and(|(n, _)| n == name));
    let mut variables = spec.env.clone();
    if !spec.exact && !has("PATH") {
        variables.push(format!("PATH={DEFAULT_PATH}"));
    }
    if !has("HOME") {
        let home = if identity.home.is_empty() { "/" } else { &identity.home };
        variables.push(format!("HOME={home}"));
    }
    variables.into_iter().filter_map(|v| CString::new(v).ok()).collect()
}

fn enter_directory(cwd: &Path) -> std::result::Result<(), Failure> {
    let cwd = if cwd.as_os_str().is_empty() { Path::new("/") } else { cwd };
    if !cwd.exists() {
        // An image may name a directory that no layer holds; the root is ours alone here.
        let _ = std::fs::create_dir_all(cwd);
    }
    rustix::process::chdir(cwd).map_err(|e| {
        let error = std::io::Error::from(e);
        Failure::other(format!(
            "chdir to cwd ({:?}) set in config.json failed: {}",
            cwd.display().to_string(),
            words(&error)
        ))
    })?;
    check_directory()
}

/// The kernel names a directory outside of the root `(unreachable)…`, or does not name it at all.
fn check_directory() -> std::result::Result<(), Failure> {
    match rustix::process::getcwd(Vec::new()) {
        Ok(path) if path.to_bytes().starts_with(b"/") => Ok(()),
        _ => Err(Failure::other("current working directory is outside of container mount namespace root")),
    }
}

/// Puts stdio in place, owned by the user so that /dev/stdout can be opened again. Returns the controlling end.
fn place_stdio(stdio: Stdio, (uid, gid): (u32, u32)) -> Result<Option<OwnedFd>> {
    let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    if let Some(terminal) = stdio.terminal {
        rustix::fs::fchown(&terminal.user, owner.0, None).context(|| "give the terminal to its user")?;
        pty::make_controlling(&terminal.user)?;
        for number in 0..=2 {
            process::place_stdio(terminal.user.as_fd(), number)?;
        }
        return Ok(Some(terminal.controller));
    }
    let pipes = [stdio.pipes.stdin, stdio.pipes.stdout, stdio.pipes.stderr];
    for (number, pipe) in (0..).zip(pipes) {
        match pipe {
            Some(pipe) => {
                // Sockets and files of others may refuse; then only reopening does not work.
                let _ = rustix::fs::fchown(&pipe, owner.0, owner.1);
                process::place_stdio(pipe.as_fd(), number)?;
            }
            None => process::place_stdio(stdio.null.as_fd(), number)?,
        }
    }
    Ok(None)
}

/// With no-new-privileges the filter can come last; without, it needs the privilege that goes.
fn drop_privileges(spec: &ProcessSpec, identity: &Identity, filter: Option<&[u64]>) -> Result<()> {
    if spec.no_new_privileges {
        rustix::thread::set_no_new_privs(true).context(|| "set no-new-privileges")?;
    } else if let Some(filter) = filter {
        seccomp::install(filter)?;
    }
    capability::limit(spec.capabilities)?;
    capability::keep_over_user_change()?;
    process::become_user(identity.uid, identity.gid, &identity.groups)?;
    match &spec.capability_sets {
        Some(sets) => capability::apply_sets(sets)?,
        None => capability::apply(spec.capabilities)?,
    }
    match filter {
        Some(filter) if spec.no_new_privileges => seccomp::install(filter),
        _ => Ok(()),
    }
}

fn decode_program(text: &str) -> std::result::Result<Vec<u64>, Failure> {
    let broken = || Failure::other("the seccomp program is broken");
    if text.is_empty() || !text.len().is_multiple_of(16) || !text.is_ascii() {
        return Err(broken());
    }
    let digits = |chunk: &[u8]| std::str::from_utf8(chunk).ok().and_then(|t| u64::from_str_radix(t, 16).ok());
    text.as_bytes().chunks(16).map(|chunk| digits(chunk).map(u64::from_be).ok_or_else(broken)).collect()
}

/// Looks the program up as execvp(3) does, with the errors that runc's users know.
pub fn find_program(spec: &ProcessSpec, environment: &[CString]) -> std::result::Result<CString, Failure> {
    let Some(name) = spec.args.first() else {
        return Err(Failure::new(FailureKind::NoProgram, "no command specified"));
    };
    if name.is_empty() {
        return Err(Failure::new(FailureKind::NoProgram, "exec: \"\": executable file not found in $PATH"));
    }
    let c_string =
        |bytes: &[u8]| CString::new(bytes).map_err(|_| Failure::other(format!("exec: {name:?}: invalid argument")));
    if name.contains('/') {
        check_program(Path::new(name), name)?;
        return c_string(name.as_bytes());
    }
    let path = environment.iter().find_map(|v| v.to_bytes().strip_prefix(b"PATH=")).unwrap_or_default();
    for directory in path.split(|byte| *byte == b':') {
        let directory = if directory.is_empty() { Path::new(".") } else { Path::new(OsStr::from_bytes(directory)) };
        let candidate = directory.join(name);
        if check_program(&candidate, name).is_ok() {
            return c_string(candidate.as_os_str().as_bytes());
        }
    }
    Err(Failure::new(FailureKind::NoProgram, format!("exec: {name:?}: executable file not found in $PATH")))
}

fn check_program(path: &Path, name: &str) -> std::result::Result<(), Failure> {
    let metadata = std::fs::metadata(path).map_err(|e| {
        let kind = match e.kind() {
            std::io::ErrorKind::PermissionDenied => FailureKind::NotExecutable,
            _ => FailureKind::NoProgram,
        };
        Failure::new(kind, format!("exec: {name:?}: stat {}: {}", path.display(), words(&e)))
    })?;
    if metadata.is_dir() {
        return Err(Failure::new(FailureKind::NotExecutable, format!("exec: {name:?}: is a directory")));
    }
    rustix::fs::access(path, rustix::fs::Access::EXEC_OK)
        .map_err(|_| Failure::new(FailureKind::NotExecutable, format!("exec: {name:?}: permission denied")))
}

// flow: pod 14/16
fn execute(
    program: &CString,
    spec: &ProcessSpec,
    environment: &[CString],
) -> std::result::Result<std::convert::Infallible, Failure> {
    let args: Vec<CString> = spec.args.iter().filter_map(|a| CString::new(a.as_bytes()).ok()).collect();
    if args.len() != spec.args.len() {
        return Err(Failure::other("an argument contains a zero byte"));
    }
    let error = process::exec(program, &args, environment);
    let kind = match error.kind() {
        std::io::ErrorKind::NotFound => FailureKind::NoProgram,
        std::io::ErrorKind::PermissionDenied => FailureKind::NotExecutable,
        _ if error.raw_os_error() == Some(libc::ENOEXEC) => FailureKind::NotExecutable,
        _ => FailureKind::Other,
    };
    Err(Failure::new(kind, format!("exec {}: {}", program.to_string_lossy(), words(&error))))
}

/// The kernel's words without Rust's number behind them, as Go programs print them.
fn words(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

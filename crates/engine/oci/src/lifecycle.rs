//! What happens to a container after it was created: start, signals, pause, new limits, removal.

use crate::bundle::{Resources, without_nulls};
use crate::child::Word;
use crate::console::Relay;
use crate::create::hear;
use crate::state::{Container, Status, document};
use crate::{Error, Result, hooks, refuse, resources};
use pintle_linux::Context;
use pintle_linux::cgroup::Cgroups;
use pintle_linux::process::{self, PidFd};
use rustix::event::{PollFd, PollFlags};
use rustix::process::{WaitId, WaitIdOptions};
use std::io::{BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// The longest that processes may take to end after SIGKILL.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest document with new limits, in bytes.
const MAX_LIMITS: u64 = 1 << 20;

/// Lets the created program run.
pub fn start(container: &Container, cgroups: &Cgroups) -> Result<()> {
    match container.status(cgroups) {
        Status::Created => {}
        Status::Stopped => return refuse("cannot start a container that has stopped"),
        Status::Running | Status::Paused => return refuse("cannot start an already running container"),
        Status::Creating => return refuse("cannot start a container that is being created"),
    }
    let mut stream = UnixStream::connect(container.start_socket())
        .map_err(|e| Error::new(format!("the container's process does not wait for its start: {e}")))?;
    stream.write_all(&[1]).context(|| "start the container's process")?;
    let heard = hear(&mut BufReader::new(&stream))?;
    // Its absence is what "running" means.
    std::fs::remove_file(container.directory.join("start")).context(|| "remove the start socket")?;
    if let Some(Word::Failed(failure)) = heard {
        return refuse(format!("unable to start container process: {failure}"));
    }
    let config = container.config()?;
    let state = document(&container.record, Status::Running);
    let hooked = hooks::run("poststart", &config.hooks.poststart, &state);
    if hooked.is_err() {
        // As runc: a container whose hooks fail does not go on.
        let _ = cgroups.kill_all(&container.record.cgroup, PATIENCE);
    }
    hooked
}

/// Sends a signal to the first process, or to all.
pub fn kill(container: &Container, signal: &str, all: bool, cgroups: &Cgroups) -> Result<()> {
    let Some(number) = pintle_linux::signal::parse(signal) else {
        return refuse(format!("unknown signal {signal:?}"));
    };
    let status = container.status(cgroups);
    if all {
        return Ok(cgroups.signal_all(&container.record.cgroup, number)?);
    }
    if matches!(status, Status::Stopped | Status::Creating) {
        return refuse("container not running");
    }
    let handle = PidFd::open(container.record.pid).map_err(|_| Error::new("container not running"))?;
    // Between the look and this the number may have gone to another process.
    if container.status(cgroups) == Status::Stopped {
        return refuse("container not running");
    }
    handle.kill(number).map_err(|e| Error::new(format!("send signal {number}: {e}")))?;
    if number == libc::SIGKILL && status == Status::Paused {
        cgroups.freeze(&container.record.cgroup, false)?;
    }
    Ok(())
}

/// Removes a container that has ended, or with `force` any.
pub fn delete(container: Container, force: bool, cgroups: &Cgroups) -> Result<()> {
    let status = container.status(cgroups);
    if !matches!(status, Status::Stopped | Status::Creating | Status::Created) && !force {
        let (id, status) = (&container.record.id, serde_json::json!(status));
        let shown = status.as_str().unwrap_or_default();
        return refuse(format!("cannot delete container {id} that is not stopped: {shown}"));
    }
    let cgroup = container.record.cgroup.clone();
    if cgroups.exists(&cgroup) {
        cgroups.kill_all(&cgroup, PATIENCE)?;
        cgroups.remove(&cgroup)?;
    }
    let config = container.config();
    let state = document(&container.record, Status::Stopped);
    container.forget()?;
    match config {
        // What runs after the end cannot change it any more: it is told, and the container is gone.
        Ok(config) => hooks::run("poststop", &config.hooks.poststop, &state),
        Err(_) => Ok(()),
    }
}

pub fn pause(container: &Container, paused: bool, cgroups: &Cgroups) -> Result<()> {
    match (container.status(cgroups), paused) {
        (Status::Running | Status::Created, true) | (Status::Paused, false) => {
            Ok(cgroups.freeze(&container.record.cgroup, paused)?)
        }
        (_, true) => refuse("container not running or created"),
        (_, false) => refuse("container not paused"),
    }
}

/// Changes limits to those of a document; `-` is stdin.
pub fn update(container: &Container, document: Option<&str>, flags: Resources, cgroups: &Cgroups) -> Result<()> {
    if container.status(cgroups) == Status::Stopped {
        return refuse("container not running");
    }
    let resources = match document {
        None => flags,
        Some(path) => {
            let mut bytes = Vec::new();
            let read = match path {
                "-" => std::io::stdin().take(MAX_LIMITS).read_to_end(&mut bytes),
                path => std::fs::File::open(path).and_then(|file| file.take(MAX_LIMITS).read_to_end(&mut bytes)),
            };
            read.map_err(|e| Error::new(format!("read the limits {path}: {e}")))?;
            let failed = |e: serde_json::Error| Error::new(format!("limits {path}: {e}"));
            serde_json::from_value(without_nulls(serde_json::from_slice(&bytes).map_err(failed)?)).map_err(failed)?
        }
    };
    cgroups.update(&container.record.cgroup, &resources::changes(&resources))?;
    Ok(())
}

/// Waits for a child of this command, passes signals on to it, and joins terminals. Its exit code.
pub fn wait_in_foreground(handle: OwnedFd, controller: Option<OwnedFd>) -> Result<i32> {
    let passed: Vec<i32> = (1..32).filter(|s| ![libc::SIGKILL, libc::SIGSTOP, libc::SIGURG].contains(s)).collect();
    let signals = process::signal_descriptor(&passed)?;
    let mut relay = controller.map(Relay::new);
    loop {
        let mut fds = vec![PollFd::new(&handle, PollFlags::IN), PollFd::new(&signals, PollFlags::IN)];
        fds.extend(relay.iter().flat_map(Relay::watched));
        match rustix::event::poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return refuse(format!("wait for the process: {e}")),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        if let Some(open) = &mut relay
            && !open.copy(ready[2], ready[3])
        {
            relay = None;
        }
        if ready[1] {
            pass_signal(&signals, &handle, relay.as_ref());
        }
        // A terminal is read to its end first.
        if ready[0] && !ready.get(2).copied().unwrap_or(false) {
            break;
        }
    }
    drop(relay);
    let status = rustix::process::waitid(WaitId::PidFd(handle.as_fd()), WaitIdOptions::EXITED)
        .context(|| "wait for the process")?;
    let status = status.ok_or_else(|| Error::new("the process is not a child of this command"))?;
    Ok(status.exit_status().or(status.terminating_signal().map(|signal| 128 + signal)).unwrap_or(255))
}

fn pass_signal(signals: &OwnedFd, handle: &OwnedFd, relay: Option<&Relay>) {
    let mut info = [0_u8; size_of::<libc::signalfd_siginfo>()];
    if rustix::io::read(signals, &mut info[..]).is_err() {
        return;
    }
    match i32::from_ne_bytes([info[0], info[1], info[2], info[3]]) {
        libc::SIGCHLD => {}
        libc::SIGWINCH if relay.is_some() => {
            if let Some(relay) = relay {
                relay.resize();
            }
        }
        // It has ended meanwhile.
        signal => drop(process::signal(handle.as_fd(), signal)),
    }
}

/// The container with this name below a root.
pub fn find(root: &Path, id: &str) -> Result<(Container, Cgroups)> {
    Ok((Container::open(root, id)?, Cgroups::detect()?))
}

//! Says that a server, an agent or an engine runs here, as long as its process lives, and finds out whether one does.
//!
//! The file `pintle.lock` of the run directory is locked by the process (flock(2)) and names it. The kernel unlocks it
//! however the process ends, so that what the file says is believed only while it is locked.

use crate::cluster::Cluster;
use anyhow::{Context, Result, bail};
use pintle_cli::status::Role;
use rustix::process::Pid;
use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

const FILE: &str = "pintle.lock";
/// The file has a word and two numbers.
const MAX_BYTES: u64 = 64;
const ATTEMPTS: usize = 20;
const PAUSE: Duration = Duration::from_millis(5);

/// Kept by the process that runs.
#[derive(Debug)]
pub(crate) struct Presence {
    _locked: File,
}

/// A process that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Present {
    pub(crate) role: Role,
    pub(crate) pid: Pid,
    /// When it said so first, in seconds since 1970.
    pub(crate) since: i64,
}

fn path(run_dir: &Path) -> PathBuf {
    run_dir.join(FILE)
}

/// Says that this process is it.
///
/// # Errors
/// When another one is.
pub(crate) fn claim(cluster: &Cluster, role: Role) -> Result<Presence> {
    claim_in(&cluster.settings.run_dir(), role)
}

fn claim_in(run_dir: &Path, role: Role) -> Result<Presence> {
    let path = path(run_dir);
    let open = File::options().create(true).truncate(false).read(true).write(true).open(&path);
    let mut file = open.with_context(|| format!("open {}", path.display()))?;
    match lock(&file, run_dir) {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => match find(run_dir) {
            Some(other) => bail!(
                "{} {} runs with the run directory {} already",
                other.role.name(),
                other.pid.as_raw_nonzero(),
                run_dir.display()
            ),
            None => bail!("another process has locked {}", path.display()),
        },
        Err(TryLockError::Error(error)) => return Err(error).with_context(|| format!("lock {}", path.display())),
    }
    let now = pintle_clock::system().now().as_second();
    let text = format!("{} {} {now}\n", role.name(), std::process::id());
    let written = file.set_len(0).and_then(|()| file.write_all(text.as_bytes()));
    written.with_context(|| format!("write {}", path.display()))?;
    Ok(Presence { _locked: file })
}

/// Who only looks holds the lock for a moment, too.
fn lock(file: &File, run_dir: &Path) -> Result<(), TryLockError> {
    for _ in 0..ATTEMPTS {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if find(run_dir).is_none() => std::thread::park_timeout(PAUSE),
            other => return other,
        }
    }
    file.try_lock()
}

/// The process that runs with this run directory, if one does.
pub(crate) fn find(run_dir: &Path) -> Option<Present> {
    let file = File::open(path(run_dir)).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => {}
        _ => return None,
    }
    let mut text = String::new();
    file.take(MAX_BYTES).read_to_string(&mut text).ok()?;
    parse(&text)
}

fn parse(text: &str) -> Option<Present> {
    let mut words = text.split_whitespace();
    let role = words.next()?;
    let role = [Role::Server, Role::Agent, Role::Engine].into_iter().find(|known| known.name() == role)?;
    let pid = words.next()?.parse().ok().filter(|pid: &i32| *pid > 0).and_then(Pid::from_raw)?;
    Some(Present { role, pid, since: words.next()?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_runs_is_found_until_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(find(folder.path()), None);
        let presence = claim_in(folder.path(), Role::Agent).unwrap();
        let found = find(folder.path()).unwrap();
        assert_eq!((found.role, found.pid), (Role::Agent, rustix::process::getpid()));
        let refused = claim_in(folder.path(), Role::Server).unwrap_err().to_string();
        assert!(refused.starts_with(&format!("agent {} runs", std::process::id())), "{refused}");
        drop(presence);
        assert_eq!(find(folder.path()), None);
        claim_in(folder.path(), Role::Server).unwrap();
    }

    #[test]
    fn what_makes_no_sense_is_nobody() {
        for bad in ["", "server", "server x 1", "king 1 1", "server -1 1", "server 0 1", "server 1"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
        assert_eq!(parse("server 7 9\n").map(|found| found.since), Some(9));
    }
}

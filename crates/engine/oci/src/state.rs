//! What is kept of a container between commands, and how it is now.

use crate::bundle::{Config, read_json};
use crate::{Error, Result, refuse};
use pintle_linux::cgroup::Cgroups;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// As long as runc's.
const MAX_ID: usize = 1024;

/// The content of `state.json`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    pub id: String,
    /// 0 until the process is there.
    pub pid: i32,
    /// Clock ticks after boot, so that another process with its number is not taken for it.
    pub start_time: u64,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    pub cgroup: String,
    pub created: String,
    pub annotations: BTreeMap<String, String>,
    pub oci_version: String,
}

/// runtime.md, "State".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Creating,
    Created,
    Running,
    Stopped,
    /// An extension that runc has.
    Paused,
}

/// A container's directory, locked for this command.
pub struct Container {
    pub directory: PathBuf,
    pub record: Record,
    handle: OwnedFd,
}

impl Container {
    /// Makes the directory of a new one.
    pub fn create(root: &Path, record: Record, config: &[u8]) -> Result<Self> {
        check_id(&record.id)?;
        let directory = root.join(&record.id);
        let mut builder = std::fs::DirBuilder::new();
        builder.mode(0o700).recursive(true).create(root).map_err(|e| failed("create", root, &e))?;
        match std::fs::DirBuilder::new().mode(0o711).create(&directory) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                return refuse("container with given ID already exists");
            }
            Err(e) => return Err(failed("create", &directory, &e)),
        }
        let handle = lock(&directory)?;
        let container = Self { directory, record, handle };
        container.write("config.json", config)?;
        container.save()?;
        Ok(container)
    }

    /// Finds one, and waits until no other command changes it.
    pub fn open(root: &Path, id: &str) -> Result<Self> {
        check_id(id)?;
        let directory = root.join(id);
        if !directory.is_dir() {
            return refuse("container does not exist");
        }
        let handle = lock(&directory)?;
        let bytes = match std::fs::read(directory.join("state.json")) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return refuse("container does not exist"),
            Err(e) => return Err(failed("read the state in", &directory, &e)),
        };
        let record = serde_json::from_slice(&bytes)
            .map_err(|e| Error::new(format!("{} is broken: {e}", directory.join("state.json").display())))?;
        Ok(Self { directory, record, handle })
    }

    pub fn save(&self) -> Result<()> {
        let bytes = serde_json::to_vec(&self.record).map_err(|e| Error::new(e.to_string()))?;
        self.write("state.json", &bytes)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let (new, path) = (self.directory.join(format!("{name}.new")), self.directory.join(name));
        std::fs::write(&new, bytes).and_then(|()| std::fs::rename(&new, &path)).map_err(|e| failed("write", &path, &e))
    }

    /// The configuration that it was created with.
    pub fn config(&self) -> Result<Config> {
        Config::parse(&read_json(&self.directory.join("config.json"))?)
    }

    /// The start socket by a name that is always short enough for an address.
    pub fn start_socket(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/start", self.handle.as_raw_fd()))
    }

    pub fn status(&self, cgroups: &Cgroups) -> Status {
        let record = &self.record;
        if record.pid == 0 {
            return Status::Creating;
        }
        if !is_alive(record.pid, record.start_time) {
            return Status::Stopped;
        }
        if self.directory.join("start").exists() {
            return Status::Created;
        }
        match cgroups.is_frozen(&record.cgroup) {
            true => Status::Paused,
            false => Status::Running,
        }
    }

    /// Lets other commands at it, while this one only looks.
    pub fn unlock(&self) {
        // A lock that cannot be given back ends with this command.
        let _ = rustix::fs::flock(&self.handle, rustix::fs::FlockOperation::Unlock);
    }

    /// Takes everything away that was kept.
    pub fn forget(self) -> Result<()> {
        std::fs::remove_dir_all(&self.directory).map_err(|e| failed("remove", &self.directory, &e))
    }
}

/// The container's process has a copy of the descriptor, which would keep the lock.
impl Drop for Container {
    fn drop(&mut self) {
        self.unlock();
    }
}

/// The state as the specification has it, for hooks and `state`.
pub fn document(record: &Record, status: Status) -> serde_json::Value {
    let mut state = serde_json::json!({
        "ociVersion": record.oci_version,
        "id": record.id,
        "status": status,
        "pid": if status == Status::Stopped { 0 } else { record.pid },
        "bundle": record.bundle,
    });
    if !record.annotations.is_empty() {
        state["annotations"] = serde_json::json!(record.annotations);
    }
    state
}

/// When a process started, and whether it still is more than a zombie (proc_pid_stat(5)).
pub fn process_start(pid: i32) -> Option<(u64, bool)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in brackets and may contain anything.
    let mut fields = text.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    let start = fields.nth(18)?.parse().ok()?;
    Some((start, !matches!(state, "Z" | "X" | "x")))
}

pub fn is_alive(pid: i32, start_time: u64) -> bool {
    process_start(pid).is_some_and(|(start, alive)| alive && start == start_time)
}

/// Names of the containers below a root.
pub fn names(root: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(root) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed("list", root, &e)),
    };
    let is_container = |entry: &std::fs::DirEntry| entry.path().join("state.json").is_file();
    let mut names: Vec<String> =
        entries.flatten().filter(is_container).map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

fn check_id(id: &str) -> Result<()> {
    let good = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
    if id.is_empty() || id.len() > MAX_ID || !id.chars().all(good) || id == "." || id == ".." {
        return refuse(format!("invalid container ID format: {id:?}"));
    }
    Ok(())
}

fn lock(directory: &Path) -> Result<OwnedFd> {
    let file = std::fs::File::open(directory).map_err(|e| failed("open", directory, &e))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)
        .map_err(|e| failed("lock", directory, &e.into()))?;
    Ok(file.into())
}

fn failed(what: &str, path: &Path, error: &std::io::Error) -> Error {
    Error::new(format!("{what} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_lead_elsewhere_are_refused_and_one_is_taken_once() {
        let root = tempfile::tempdir().unwrap();
        for bad in ["", "..", "a/b", "a b", "é"] {
            assert!(Container::open(root.path(), bad).err().unwrap().to_string().contains("invalid"), "{bad}");
        }
        let record = Record { id: "c1".to_owned(), ..Record::default() };
        let made = Container::create(root.path(), record.clone(), b"{}").unwrap();
        let again = Container::create(root.path(), record, b"{}").err().unwrap();
        assert_eq!(again.to_string(), "container with given ID already exists");
        assert_eq!(names(root.path()).unwrap(), ["c1"]);
        made.forget().unwrap();
        assert_eq!(Container::open(root.path(), "c1").err().unwrap().to_string(), "container does not exist");
    }

    #[test]
    fn a_process_is_known_by_when_it_started() {
        let own = std::process::id().cast_signed();
        let (start, alive) = process_start(own).unwrap();
        assert!(alive && is_alive(own, start) && !is_alive(own, start + 1));
    }
}

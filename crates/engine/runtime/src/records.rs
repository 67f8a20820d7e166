//! What is kept of sandboxes and containers on the disk: one JSON file each, replaced atomically.
//!
//! A record says `Creating` before anything of the thing is made, so that whatever a crash leaves can be found. They
//! need not survive a power loss whole: the containers do not either, and an unreadable record counts as half made.

use crate::ids::is_id;
use crate::options::{ContainerOptions, SandboxOptions};
use crate::ports::SnapshotMounts;
use pintle_cri::{ContainerConfig, ContainerUser, PodSandboxConfig};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SandboxPhase {
    #[default]
    Creating,
    Ready,
    /// Stopped, or its shim is gone.
    NotReady,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SandboxRecord {
    pub id: String,
    pub phase: SandboxPhase,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    pub runtime_handler: String,
    pub ips: Vec<IpAddr>,
    pub config: PodSandboxConfig,
    #[serde(default)]
    pub options: SandboxOptions,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerPhase {
    #[default]
    Creating,
    Created,
    Running,
    Exited,
}

/// What a container takes from its image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageDefaults {
    pub id: String,
    /// `repository@digest` when it has one, else the id.
    pub reference: String,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub env: Vec<String>,
    pub working_dir: String,
    pub user: String,
    pub stop_signal: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ContainerRecord {
    pub id: String,
    pub sandbox_id: String,
    pub phase: ContainerPhase,
    pub created_at: i64,
    pub started_at: i64,
    pub finished_at: i64,
    pub pid: i32,
    pub exit_code: i32,
    /// Empty until it ended.
    pub reason: String,
    pub message: String,
    pub user: Option<ContainerUser>,
    pub cgroup: String,
    /// Absolute; empty is none.
    pub log_path: String,
    pub image: ImageDefaults,
    pub snapshot: SnapshotMounts,
    /// Of the images that it mounts, in the order of those mounts.
    #[serde(default)]
    pub image_mounts: Vec<SnapshotMounts>,
    pub config: ContainerConfig,
    #[serde(default)]
    pub options: ContainerOptions,
}

/// A directory of records, one folder per id.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

const FILE: &str = "record.json";

impl Folder {
    pub fn open(path: PathBuf) -> io::Result<Self> {
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    /// The folder of one id.
    pub fn of(&self, id: &str) -> PathBuf {
        self.0.join(id)
    }

    pub fn save<T: Serialize>(&self, id: &str, record: &T) -> io::Result<()> {
        let folder = self.of(id);
        let bytes = serde_json::to_vec(record)?;
        let new = folder.join("record.json.new");
        match std::fs::write(&new, &bytes) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                std::fs::create_dir_all(&folder)?;
                std::fs::write(&new, &bytes)?;
            }
            other => other?,
        }
        std::fs::rename(new, folder.join(FILE))
    }

    /// Removes everything of an id. Succeeds when it is not there.
    pub fn remove(&self, id: &str) -> io::Result<()> {
        remove_tree(&self.of(id))
    }

    /// All ids; each with its record, or nothing when that cannot be read.
    pub fn load<T: DeserializeOwned>(&self) -> io::Result<Vec<(String, Option<T>)>> {
        let mut all = Vec::new();
        for entry in std::fs::read_dir(&self.0)? {
            let entry = entry?;
            let Some(id) = entry.file_name().to_str().filter(|name| is_id(name)).map(str::to_owned) else { continue };
            let record = std::fs::read(entry.path().join(FILE)).ok();
            all.push((id, record.and_then(|bytes| serde_json::from_slice(&bytes).ok())));
        }
        Ok(all)
    }
}

pub fn remove_tree(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::new_id;

    #[test]
    fn records_come_back_and_broken_ones_are_told() {
        let temp = tempfile::tempdir().unwrap();
        let folder = Folder::open(temp.path().join("sandboxes")).unwrap();
        let (whole, broken) = (new_id(), new_id());
        folder.save(&whole, &SandboxRecord { id: whole.clone(), created_at: 7, ..Default::default() }).unwrap();
        std::fs::create_dir(folder.of(&broken)).unwrap();
        std::fs::write(folder.of(&broken).join(FILE), "{\"id\"").unwrap();
        std::fs::create_dir(temp.path().join("sandboxes/not-an-id")).unwrap();
        let mut loaded = folder.load::<SandboxRecord>().unwrap();
        loaded.sort_by_key(|(_, record)| record.is_none());
        assert_eq!(loaded.len(), 2);
        assert_eq!(loaded[0].1.as_ref().unwrap().created_at, 7);
        assert!(loaded[1].1.is_none() && loaded[1].0 == broken);
        folder.remove(&broken).unwrap();
        folder.remove(&broken).unwrap();
    }
}

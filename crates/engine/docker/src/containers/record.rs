//! What is kept of a container on the disk: one JSON file, replaced atomically, beside its logs and files.

use crate::error::{DockerError, Result};
use crate::model::{Config, EndpointSettings, Health, HostConfig, PortBinding};
use pintle_runtime::SnapshotMounts;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    #[default]
    Created,
    Running,
    Paused,
    /// It has ended and will be started again by its policy.
    Restarting,
    Removing,
    Exited,
    Dead,
}

impl Status {
    pub fn text(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Removing => "removing",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }

    /// As the Engine counts it: also while it is paused or about to be started again.
    pub fn is_running(self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::Restarting)
    }
}

/// The state of a container, times in nanoseconds since the epoch, 0 for never.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    pub status: Status,
    pub oom_killed: bool,
    pub pid: i32,
    pub exit_code: i32,
    pub error: String,
    pub started_at: i64,
    pub finished_at: i64,
    pub health: Option<Health>,
}

/// Something mounted into a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct MountPoint {
    /// `bind`, `volume`, `tmpfs`, `image`.
    #[serde(rename = "Type")]
    pub kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    pub source: String,
    pub destination: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub driver: String,
    pub mode: String,
    #[serde(rename = "RW")]
    pub writable: bool,
    pub propagation: String,
}

/// What the daemon alone knows of a mount.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeptMount {
    pub point: MountPoint,
    /// The image's files are not copied into the empty volume.
    pub no_copy: bool,
    /// Below the source.
    pub sub_path: String,
    /// What is mounted below the source stays away.
    pub non_recursive: bool,
    /// What is mounted below stays writable in a read-only mount.
    pub shallow_readonly: bool,
    pub create_source: bool,
    /// Of a tmpfs, as mount(8) takes them.
    pub tmpfs_options: Vec<String>,
}

/// Everything that outlives the daemon.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    pub id: String,
    /// Without the leading slash.
    pub name: String,
    /// Nanoseconds since the epoch.
    pub created: i64,
    pub config: Config,
    pub host: HostConfig,
    /// Connections by the network's name.
    pub networks: BTreeMap<String, EndpointSettings>,
    pub image_id: String,
    pub program: String,
    pub args: Vec<String>,
    pub mounts: Vec<KeptMount>,
    pub state: State,
    pub restart_count: u32,
    /// Somebody stopped it, so its policy does not start it again.
    pub stopped_by_hand: bool,
    /// The runtime's sandbox, from before it is made until it has been removed.
    pub sandbox: Option<String>,
    /// Its writable layer on those of the image.
    pub layer: SnapshotMounts,
    /// What is published, while it runs.
    pub ports: BTreeMap<String, Option<Vec<PortBinding>>>,
    /// Its removal takes the volumes that were made for it.
    pub removes_volumes: bool,
    /// Nothing of it is visible before this is true.
    pub complete: bool,
}

impl Record {
    /// The key of its writable layer in the image store.
    pub fn snapshot_key(&self) -> String {
        snapshot_key(&self.id)
    }

    /// What `docker ps` calls it.
    pub fn short_id(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }
}

/// See [`Record::snapshot_key`].
pub fn snapshot_key(id: &str) -> String {
    format!("docker-{id}")
}

const FILE: &str = "config.json";

/// The folders of all containers.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// # Errors
    /// When the directory cannot be made.
    pub fn open(path: PathBuf) -> Result<Self> {
        let made = std::fs::create_dir_all(&path);
        made.map_err(|e| DockerError::io(format_args!("create {}", path.display()), e))?;
        Ok(Self(path))
    }

    /// The folder of one container.
    pub fn of(&self, id: &str) -> PathBuf {
        self.0.join(id)
    }

    /// Replaces the record; its folder is made when it is not there.
    pub fn save(&self, record: &Record) -> Result<()> {
        let folder = self.of(&record.id);
        let write = || -> std::io::Result<()> {
            let bytes = serde_json::to_vec(record)?;
            let new = folder.join("config.json.new");
            match std::fs::write(&new, &bytes) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                    std::fs::create_dir_all(&folder)?;
                    std::fs::write(&new, &bytes)?;
                }
                other => other?,
            }
            std::fs::rename(&new, folder.join(FILE))
        };
        write().map_err(|e| DockerError::io(format_args!("save the record of container {}", record.id), e))
    }

    /// Removes all of one container; succeeds when it is not there.
    pub fn remove(&self, id: &str) -> Result<()> {
        match std::fs::remove_dir_all(self.of(id)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(DockerError::io(format_args!("remove the folder of container {id}"), e))
            }
            _ => Ok(()),
        }
    }

    /// Every id, with its record where that can be read.
    pub fn load(&self) -> Result<Vec<(String, Option<Record>)>> {
        let failed = |e| DockerError::io(format_args!("list {}", self.0.display()), e);
        let mut all = Vec::new();
        for entry in std::fs::read_dir(&self.0).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Ok(id) = entry.file_name().into_string() else { continue };
            let record = read(&entry.path().join(FILE)).filter(|r| r.id == id);
            all.push((id, record));
        }
        Ok(all)
    }
}

fn read(path: &Path) -> Option<Record> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_and_half_written_ones_are_told() {
        let temp = tempfile::tempdir().unwrap();
        let folder = Folder::open(temp.path().join("containers")).unwrap();
        folder.save(&Record { id: "a".into(), name: "one".into(), ..Record::default() }).unwrap();
        std::fs::create_dir(folder.of("b")).unwrap();
        std::fs::write(folder.of("b").join(FILE), "{\"id\":").unwrap();
        let mut all = folder.load().unwrap();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(all[0].1.as_ref().unwrap().name, "one");
        assert!(all[1].1.is_none());
        folder.remove("b").unwrap();
        folder.remove("b").unwrap();
        assert_eq!(folder.load().unwrap().len(), 1);
    }
}

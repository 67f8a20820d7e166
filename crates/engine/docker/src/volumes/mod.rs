//! Volumes: directories that outlive containers, made by the driver `local`.
//!
//! A volume is a folder of `data_dir/volumes` with its record (`volume.json`) and what is in it (`_data`). One with
//! options is mounted on `_data` while a container is about to use it, and stays mounted until it is removed or the
//! machine restarts. Which containers use a volume is the callers' knowledge. A volume appears and goes as a whole: what
//! is being made or removed has a name that begins with a dot, and is cleaned at the next start. All calls block.

mod options;
mod seed;

pub use seed::fill;

use crate::error::{DockerError, Result};
use options::MountPlan;
use parking_lot::Mutex;
use pintle_clock::Clock;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

type Texts = BTreeMap<String, String>;

/// The label of volumes that were made for one container.
pub const ANONYMOUS: &str = "com.docker.volume.anonymous";
const RECORD: &str = "volume.json";
const DATA: &str = "_data";
/// Larger records are not ours.
const MAX_RECORD: u64 = 1 << 20;

/// A new volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CreateRequest {
    pub name: String,
    pub driver: String,
    pub driver_opts: Option<Texts>,
    pub labels: Option<Texts>,
    pub cluster_volume_spec: Option<Value>,
    /// The container that takes the volume with it when it goes; empty for none.
    #[serde(skip)]
    pub made_for: String,
}

/// A volume that exists.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Volume {
    pub name: String,
    /// Nanoseconds since the epoch.
    pub created: i64,
    pub options: Option<Texts>,
    pub labels: Option<Texts>,
    /// The container that it was made for; empty for none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub made_for: String,
    #[serde(skip)]
    pub mountpoint: PathBuf,
}

impl Volume {
    pub fn is_anonymous(&self) -> bool {
        self.labels.as_ref().is_some_and(|labels| labels.contains_key(ANONYMOUS))
    }

    /// The JSON of `docker volume inspect`.
    pub fn to_json(&self) -> Value {
        let seconds = jiff::Timestamp::from_nanosecond(i128::from(self.created)).unwrap_or_default().as_second();
        let created = jiff::Timestamp::from_second(seconds).unwrap_or_default().to_string();
        json!({
            "CreatedAt": created,
            "Driver": "local",
            "Labels": self.labels,
            "Mountpoint": self.mountpoint,
            "Name": self.name,
            "Options": self.options,
            "Scope": "local",
        })
    }

    /// Bytes of the files in it.
    pub fn size(&self) -> u64 {
        seed::size_of(&self.mountpoint)
    }
}

/// See the module's documentation.
pub struct Volumes {
    folder: PathBuf,
    clock: Arc<dyn Clock>,
    /// By name.
    all: Mutex<BTreeMap<String, Volume>>,
}

/// The words and status of an unknown volume.
pub fn not_found(name: &str) -> DockerError {
    DockerError::not_found(format!("get {name}: no such volume"))
}

impl Volumes {
    /// Reads the records; half-made and half-removed volumes are removed.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn open(folder: PathBuf, clock: Arc<dyn Clock>) -> Result<Self> {
        let failed = |e| DockerError::io(format_args!("open {}", folder.display()), e);
        fs::create_dir_all(&folder).map_err(failed)?;
        let mut all = BTreeMap::new();
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if name.starts_with('.') {
                fs::remove_dir_all(entry.path()).map_err(failed)?;
                continue;
            }
            match read(&entry.path(), &name) {
                Some(volume) => {
                    all.insert(name, volume);
                }
                None => tracing::warn!(volume = name, "a volume without a record is left alone"),
            }
        }
        Ok(Self { folder, clock, all: Mutex::new(all) })
    }

    /// Makes a volume, or returns the one that has the name already; true when it is new.
    ///
    /// # Errors
    /// 400 for a name or options that cannot be, 404 for another driver, 409 when it exists with other options.
    pub fn create(&self, request: &CreateRequest) -> Result<(Volume, bool)> {
        let name = if request.name.is_empty() { crate::containers::new_id() } else { request.name.clone() };
        if request.cluster_volume_spec.is_some() {
            return Err(DockerError::new(
                503,
                "This node is not a swarm manager. Use \"docker swarm init\" or \"docker \
                                              swarm join\" to connect this node to swarm and try again.",
            ));
        }
        check_driver(&name, &request.driver)?;
        check_name(&name).map_err(|e| DockerError::new(e.status, format!("create {name}: {}", e.message)))?;
        let options = request.driver_opts.clone().filter(|o| !o.is_empty());
        let mut all = self.all.lock();
        if let Some(known) = all.get(&name) {
            if options.is_some() && options != known.options {
                return Err(DockerError::conflict(format!("create {name}: conflict: volume name must be unique")));
            }
            return Ok((known.clone(), false));
        }
        MountPlan::read(options.as_ref().unwrap_or(&Texts::new()))
            .map_err(|e| DockerError::new(e.status, format!("create {name}: {}", e.message)))?;
        let mut labels = request.labels.clone();
        if request.name.is_empty() {
            labels.get_or_insert_default().insert(ANONYMOUS.to_owned(), String::new());
        }
        let created = i64::try_from(self.clock.unix_nanos()).unwrap_or(i64::MAX);
        let mountpoint = self.folder.join(&name).join(DATA);
        let made_for = request.made_for.clone();
        let volume = Volume { name: name.clone(), created, options, labels, made_for, mountpoint };
        self.write(&volume)?;
        all.insert(name, volume.clone());
        Ok((volume, true))
    }

    /// # Errors
    /// 404 when there is none.
    pub fn get(&self, name: &str) -> Result<Volume> {
        self.all.lock().get(name).cloned().ok_or_else(|| not_found(name))
    }

    /// All volumes, by name.
    pub fn list(&self) -> Vec<Volume> {
        self.all.lock().values().cloned().collect()
    }

    /// The names of those that were made for a container.
    pub fn made_for(&self, container: &str) -> Vec<String> {
        let all = self.all.lock();
        all.values().filter(|v| v.made_for == container).map(|v| v.name.clone()).collect()
    }

    /// Mounts what the options say, and returns the directory to use.
    ///
    /// # Errors
    /// 404 when there is none, and when the mount fails.
    pub fn prepare(&self, name: &str) -> Result<PathBuf> {
        let all = self.all.lock();
        let volume = all.get(name).ok_or_else(|| not_found(name))?;
        let plan = MountPlan::read(volume.options.as_ref().unwrap_or(&Texts::new()))?;
        plan.mount(&volume.mountpoint)?;
        Ok(volume.mountpoint.clone())
    }

    /// Removes a volume with what is in it. The caller knows that nobody uses it.
    ///
    /// # Errors
    /// 404 when there is none.
    pub fn remove(&self, name: &str) -> Result<Volume> {
        let mut all = self.all.lock();
        let volume = all.get(name).cloned().ok_or_else(|| not_found(name))?;
        if volume.options.is_some() {
            options::unmount(&volume.mountpoint)?;
        }
        let (folder, aside) = (self.folder.join(name), self.hidden());
        let failed = |e: io::Error| DockerError::io(format_args!("remove {name}: remove {}", folder.display()), e);
        // From here it is no volume any more, whatever happens next.
        match fs::rename(&folder, &aside) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
        all.remove(name);
        drop(all);
        match fs::remove_dir_all(&aside) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed(e)),
            _ => Ok(volume),
        }
    }

    /// A path that is no volume's.
    fn hidden(&self) -> PathBuf {
        self.folder.join(format!(".{}", crate::containers::new_id()))
    }

    fn write(&self, volume: &Volume) -> Result<()> {
        let new = self.hidden();
        let steps = || -> io::Result<()> {
            fs::create_dir_all(new.join(DATA))?;
            fs::write(new.join(RECORD), serde_json::to_vec(volume)?)?;
            fs::rename(&new, self.folder.join(&volume.name))
        };
        steps().map_err(|e| DockerError::io(format_args!("create {}", volume.name), e))
    }
}

fn check_driver(name: &str, driver: &str) -> Result<()> {
    if matches!(driver, "" | "local" | "default") {
        return Ok(());
    }
    Err(DockerError::not_found(format!(
        "create {name}: error looking up volume plugin {driver}: plugin \"{driver}\" not found"
    )))
}

/// What Docker allows as a name, which is also what is safe as a folder.
fn check_name(name: &str) -> Result<()> {
    let mut letters = name.chars();
    let first = letters.next().is_some_and(|c| c.is_ascii_alphanumeric());
    let rest = letters.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    if name.len() == 1 {
        return Err(DockerError::invalid(
            "volume name is too short, names should be at least two alphanumeric characters",
        ));
    }
    if first && rest && name.len() <= 255 {
        return Ok(());
    }
    Err(DockerError::invalid(format!(
        "\"{name}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are \
         allowed. If you intended to pass a host directory, use absolute path"
    )))
}

fn read(folder: &Path, name: &str) -> Option<Volume> {
    let path = folder.join(RECORD);
    if fs::symlink_metadata(&path).ok()?.len() > MAX_RECORD {
        return None;
    }
    let mut volume: Volume = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    volume.mountpoint = folder.join(DATA);
    (volume.name == name).then_some(volume)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> CreateRequest {
        CreateRequest { name: name.into(), ..CreateRequest::default() }
    }

    #[test]
    fn volumes_live_and_go() {
        let temp = tempfile::tempdir().unwrap();
        let open = || Volumes::open(temp.path().join("volumes"), pintle_clock::system()).unwrap();
        let volumes = open();
        let (made, new) = volumes.create(&named("v1")).unwrap();
        assert!(new && !volumes.create(&named("v1")).unwrap().1);
        assert!(made.mountpoint.is_dir() && made.labels.is_none());
        let (anonymous, _) = volumes.create(&named("")).unwrap();
        assert!(anonymous.is_anonymous() && anonymous.name.len() == 64);
        fs::write(made.mountpoint.join("f"), "12345").unwrap();
        let again = open();
        assert_eq!(again.get("v1").unwrap(), made);
        assert_eq!(again.prepare("v1").unwrap(), made.mountpoint);
        again.remove("v1").unwrap();
        assert_eq!(again.remove("v1").unwrap_err().message, "get v1: no such volume");
        assert_eq!(open().list().len(), 1);
        let own = CreateRequest { made_for: "c1".into(), ..named("own") };
        volumes.create(&own).unwrap();
        assert_eq!((open().made_for("c1"), open().made_for("c2")), (vec!["own".to_owned()], Vec::new()));
    }

    #[test]
    fn what_was_half_made_or_half_removed_goes() {
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path().join("volumes");
        let half = folder.join(".half");
        fs::create_dir_all(half.join(DATA)).unwrap();
        fs::write(half.join(RECORD), "{}").unwrap();
        fs::create_dir_all(folder.join("strange").join(DATA)).unwrap();
        let volumes = Volumes::open(folder.clone(), pintle_clock::system()).unwrap();
        assert!(volumes.list().is_empty() && !half.exists());
        // What has lost its record may hold what somebody needs.
        assert!(folder.join("strange").exists());
    }

    #[test]
    fn names_and_drivers_are_checked() {
        let temp = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(temp.path().join("volumes"), pintle_clock::system()).unwrap();
        for bad in ["../x", "a/b", ".a", "-a", "bad name", "a", "ä1", &"a".repeat(256)] {
            assert_eq!(volumes.create(&named(bad)).unwrap_err().status, 400, "{bad}");
        }
        let other = CreateRequest { driver: "nope".into(), ..named("x") };
        assert_eq!(
            volumes.create(&other).unwrap_err().message,
            "create x: error looking up volume plugin nope: plugin \"nope\" not found"
        );
        let options = Some(BTreeMap::from([("zz".to_owned(), "1".to_owned())]));
        let error = volumes.create(&CreateRequest { driver_opts: options, ..named("xy") }).unwrap_err();
        assert_eq!(error.message, "create xy: invalid option: \"zz\"");
    }
}

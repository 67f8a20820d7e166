//! Containers: their records, how they are found, and one file for each thing that is done to them.

mod attach;
mod base_layer;
mod changes;
mod connect;
mod copy;
mod create;
mod defaults;
mod ending;
mod files;
mod filter;
mod inspect;
mod kill;
mod links;
mod list;
mod logging;
mod mounts;
mod names;
mod pause;
mod processes;
mod prune;
mod recover;
mod remove;
mod rename;
mod restart;
mod spec;
mod start;
mod stats;
mod stop;
mod tar_in;
mod tar_out;
mod times;
mod update;
mod validate;
mod volume_use;
mod wait;

pub mod record;

pub use attach::{AttachWanted, Attached};
pub use changes::Change;
pub use copy::{PathStat, Source, extract_in, path_in};
pub use create::{CreateRequest, Created, new_id};
pub use filter::{Filters, check_names, glob, has_label, pattern_fits};
pub use inspect::Inspected;
pub use list::{ListOptions, Port, Summary, status_text};
pub use processes::Top;
pub use record::{KeptMount, MountPoint, Record, State, Status};
pub use remove::RemoveOptions;
pub use stats::{Sample, Traffic};
pub use stop::StopOptions;
pub use tar_in::ExtractOptions;
pub use times::{ago, human, rfc3339};
pub use update::Update;
pub use wait::{Condition, Waited, Waiting};

pub(crate) use base_layer::make as make_base_layer;
pub(crate) use kill::not_running;
pub(crate) use links::parse as parse_link;
pub(crate) use logging::details as log_details;
pub(crate) use spec::log_name;

use crate::daemon::Daemon;
use crate::error::{DockerError, Result};
use attach::Pending;
use parking_lot::{Mutex, RwLock};
use pintle_image::SnapshotForm;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// How often a container has ended, and how the last time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ends {
    pub exits: u64,
    pub code: i32,
    pub error: String,
    pub removed: bool,
}

/// A container that exists.
pub struct Container {
    pub id: String,
    record: Mutex<Record>,
    /// Held by what changes it as a whole: starting, taking apart, removing. Never while waiting for its end.
    pub(crate) changing: tokio::sync::Mutex<()>,
    pub(crate) ends: watch::Sender<Ends>,
    /// Clients that wait for it to start.
    pub(crate) attaching: Mutex<Vec<Pending>>,
    /// What tests its health while it runs.
    pub(crate) tester: Mutex<Option<AbortHandle>>,
    /// What starts it again after a pause.
    pub(crate) restarter: Mutex<Option<AbortHandle>>,
    /// Exec instances that have not ended.
    pub(crate) execs: Mutex<BTreeSet<String>>,
}

impl Container {
    fn new(record: Record) -> Arc<Self> {
        Arc::new(Self {
            id: record.id.clone(),
            record: Mutex::new(record),
            changing: tokio::sync::Mutex::new(()),
            ends: watch::Sender::default(),
            attaching: Mutex::default(),
            tester: Mutex::default(),
            restarter: Mutex::default(),
            execs: Mutex::default(),
        })
    }

    /// A copy of its record.
    pub fn record(&self) -> Record {
        self.record.lock().clone()
    }

    /// Looks at its record without a copy.
    pub fn look<T>(&self, at: impl FnOnce(&Record) -> T) -> T {
        at(&self.record.lock())
    }

    pub fn status(&self) -> Status {
        self.record.lock().state.status
    }

    pub fn name(&self) -> String {
        self.record.lock().name.clone()
    }
}

/// Whether a network mode is the default network.
fn is_default(mode: &str) -> bool {
    matches!(mode, "" | "default" | "bridge")
}

/// All containers, by id and by name.
pub(crate) struct Containers {
    pub folder: record::Folder,
    all: RwLock<HashMap<String, Arc<Container>>>,
    /// Which id has a name; also those of containers that are being made.
    names: Mutex<HashMap<String, String>>,
}

impl Containers {
    pub fn open(path: PathBuf) -> Result<Self> {
        Ok(Self { folder: record::Folder::open(path)?, all: RwLock::default(), names: Mutex::default() })
    }

    pub fn insert(&self, container: &Arc<Container>) {
        self.all.write().insert(container.id.clone(), Arc::clone(container));
    }

    pub fn drop_out(&self, id: &str) {
        self.all.write().remove(id);
        self.names.lock().retain(|_, owner| owner != id);
    }

    pub fn list(&self) -> Vec<Arc<Container>> {
        self.all.read().values().cloned().collect()
    }

    /// Gives a name to an id, unless another has it; then that one's id comes back.
    pub fn take_name(&self, name: &str, id: &str) -> std::result::Result<(), String> {
        let mut names = self.names.lock();
        match names.get(name) {
            Some(owner) => Err(owner.clone()),
            None => {
                names.insert(name.to_owned(), id.to_owned());
                Ok(())
            }
        }
    }

    pub fn free_name(&self, name: &str) {
        self.names.lock().remove(name);
    }

    fn by_name(&self, name: &str) -> Option<Arc<Container>> {
        let id = self.names.lock().get(name).cloned()?;
        self.all.read().get(&id).cloned()
    }

    /// By id, by name, or by the beginning of an id that only one has.
    pub fn find(&self, wanted: &str) -> Result<Option<Arc<Container>>> {
        if let Some(found) = self.all.read().get(wanted) {
            return Ok(Some(Arc::clone(found)));
        }
        if let Some(found) = self.by_name(wanted.strip_prefix('/').unwrap_or(wanted)) {
            return Ok(Some(found));
        }
        let all = self.all.read();
        let mut matching = all.values().filter(|c| !wanted.is_empty() && c.id.starts_with(wanted));
        match (matching.next(), matching.next()) {
            (Some(_), Some(_)) => {
                Err(DockerError::invalid(format!("multiple IDs found with provided prefix: {wanted}")))
            }
            (first, _) => Ok(first.cloned()),
        }
    }
}

impl Daemon {
    /// A container by id, name, or the beginning of its id.
    ///
    /// # Errors
    /// 404 when there is none, 400 when several ids begin so.
    pub fn container(&self, wanted: &str) -> Result<Arc<Container>> {
        let found = self.containers.find(wanted)?;
        found.ok_or_else(|| DockerError::not_found(format!("No such container: {wanted}")))
    }

    /// What Docker calls the form of the containers' layers; the usual one where it can't be found out now.
    pub fn storage_driver(&self) -> &'static str {
        self.images.snapshot_form().unwrap_or(SnapshotForm::Overlay).driver()
    }

    /// All containers, the newest first.
    pub fn all_containers(&self) -> Vec<Arc<Container>> {
        let mut all = self.containers.list();
        all.sort_by_cached_key(|c| std::cmp::Reverse(c.look(|r| (r.created, r.id.clone()))));
        all
    }

    /// Changes a record and saves it, both under its lock, so that no older state is written over a newer.
    pub(crate) fn change<T>(&self, container: &Container, change: impl FnOnce(&mut Record) -> T) -> Result<T> {
        let mut record = container.record.lock();
        let outcome = change(&mut record);
        if record.complete {
            self.containers.folder.save(&record)?;
        }
        Ok(outcome)
    }

    /// The same where there is nobody to tell of a full disk.
    pub(crate) fn note(&self, container: &Container, change: impl FnOnce(&mut Record)) {
        if let Err(error) = self.change(container, change) {
            tracing::warn!(container = %container.id, %error, "the state of a container is not saved");
        }
    }

    /// Tells of something that happened to a container: its labels, image and name are told too.
    pub(crate) fn tell_of(&self, container: &Container, action: &str, more: &[(&str, &str)]) {
        let mut attributes: BTreeMap<String, String> = container.look(|record| {
            let labels = record.config.labels().map(|(k, v)| (k.clone(), v.clone()));
            let own = [("image", record.config.image.clone()), ("name", record.name.clone())];
            labels.chain(own.map(|(k, v)| (k.to_owned(), v))).collect()
        });
        attributes.extend(more.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        self.events.tell("container", action, &container.id, attributes);
    }
}

//! The index: what images there are, in one file that changes in one step, and which of them the disk has whole.
//!
//! An image is listed when its files are written, while the kernel still brings them to the disk: to wait for that would
//! take longer than unpacking them, and would wait for the files of everybody else, too. Until then the record names
//! the boot of the machine that it was written under. The end of the program loses nothing of it; after an end of the
//! machine the store makes such images anew from their blobs, or gives them up ([`Index::cut_off`]).

use crate::record::{ImageRecord, Images, read_index};
use crate::{At, ImageError, Result};
use parking_lot::{Condvar, Mutex};
use std::collections::HashSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) struct Index {
    root: PathBuf,
    /// Which boot of the machine this is; where the kernel does not say, nothing is left for later.
    boot: Option<String>,
    /// Held by who changes the images, while the disk takes the file: those who look need not wait for that.
    turn: Mutex<()>,
    state: Mutex<State>,
    settled: Condvar,
}

struct State {
    images: Images,
    /// Images that the disk may not have whole.
    settling: HashSet<String>,
    /// A thread is at it.
    at_work: bool,
    /// The store is closed: its directory may belong to another one.
    closed: bool,
}

impl Index {
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let images = read_index(&root.join("images.json"))?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|id| id.trim().to_owned());
        let state = State { images, settling: HashSet::new(), at_work: false, closed: false };
        let (turn, settled) = Default::default();
        Ok(Self { root: root.to_owned(), boot, turn, state: Mutex::new(state), settled })
    }

    /// Looks at the images.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&Images) -> T) -> T {
        look(&self.state.lock().images)
    }

    /// Changes the images in one step: what `change` returns is given back, and all is kept as it was when it fails.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Images) -> Result<T>) -> Result<T> {
        let _turn = self.turn.lock();
        let mut changed = self.state.lock().images.clone();
        let result = change(&mut changed)?;
        if changed != self.state.lock().images {
            self.write(&changed)?;
            self.state.lock().images = changed;
        }
        Ok(result)
    }

    /// What the record of an image must say whose files were just written; waits for the disk where that can't be said.
    pub(crate) fn mark(&self) -> Result<Option<String>> {
        if self.boot.is_none() {
            self.sync()?;
        }
        Ok(self.boot.clone())
    }

    /// Images that were not known to be on the disk when the machine ended.
    pub(crate) fn cut_off(&self) -> Vec<ImageRecord> {
        let is_cut = |record: &&ImageRecord| record.settling.is_some() && record.settling != self.boot;
        self.with(|images| images.values().filter(is_cut).cloned().collect())
    }

    /// Sees to it that images which were marked reach the disk, without waiting for it.
    pub(crate) fn settle(self: &Arc<Self>) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        state.settling.extend(state.images.values().filter(|i| i.settling.is_some()).map(|i| i.id.clone()));
        if state.settling.is_empty() || state.at_work {
            return;
        }
        let index = Arc::clone(self);
        let work = std::thread::Builder::new().name("settle-images".into()).spawn(move || index.settle_all());
        // Without a thread the marks stay, and the next image brings another try.
        state.at_work = work.is_ok();
    }

    /// Waits until nothing is left to settle, or it failed.
    pub(crate) fn wait(&self) {
        let mut state = self.state.lock();
        while state.at_work {
            self.settled.wait(&mut state);
        }
    }

    pub(crate) fn close(&self) {
        let _turn = self.turn.lock();
        self.state.lock().closed = true;
    }

    fn settle_all(&self) {
        loop {
            let batch = std::mem::take(&mut self.state.lock().settling);
            let done = if batch.is_empty() { Ok(()) } else { self.sync().and_then(|()| self.unmark(&batch)) };
            if let Err(error) = &done {
                tracing::warn!(%error, "images are not known to be on the disk; it is tried again with the next one");
            }
            let mut state = self.state.lock();
            if done.is_err() || state.settling.is_empty() || state.closed {
                state.at_work = false;
                self.settled.notify_all();
                return;
            }
        }
    }

    fn unmark(&self, batch: &HashSet<String>) -> Result<()> {
        let _turn = self.turn.lock();
        let changed = {
            let state = self.state.lock();
            if state.closed {
                return Ok(());
            }
            let mut changed = state.images.clone();
            // One that was written once more meanwhile is in the next batch.
            for id in batch.difference(&state.settling) {
                if let Some(record) = changed.get_mut(id) {
                    record.settling = None;
                }
            }
            changed
        };
        self.write(&changed)?;
        self.state.lock().images = changed;
        Ok(())
    }

    /// Everything written so far survives a power cut.
    pub(crate) fn sync(&self) -> Result<()> {
        let directory = File::open(&self.root).at("open", &self.root)?;
        rustix::fs::syncfs(&directory).at("sync", &self.root)
    }

    fn write(&self, images: &Images) -> Result<()> {
        let path = self.root.join("images.json");
        let list: Vec<&ImageRecord> = images.values().collect();
        let bytes =
            serde_json::to_vec(&list).map_err(|e| ImageError::BadIndex { path: path.clone(), why: e.to_string() })?;
        let temporary = tempfile::NamedTempFile::new_in(self.root.join("ingest")).at("create a file in", &self.root)?;
        fs::write(temporary.path(), bytes).at("write", temporary.path())?;
        temporary.as_file().sync_all().at("sync", temporary.path())?;
        temporary.persist(&path).map_err(|e| e.error).at("rename to", &path)?;
        Ok(())
    }
}

//! Where the volumes behind claims are, of the pods on this node: for statistics, which tell of them by their claims.

use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

/// By the uid of the pod, then by the name that the pod has for the volume.
#[derive(Default)]
pub struct Claimed(Mutex<HashMap<String, BTreeMap<String, PathBuf>>>);

impl Claimed {
    pub fn note(&self, uid: &str, volume: &str, path: PathBuf) {
        self.0.lock().entry(uid.to_owned()).or_default().insert(volume.to_owned(), path);
    }

    pub fn forget(&self, uid: &str) {
        self.0.lock().remove(uid);
    }

    pub fn of(&self, uid: &str) -> BTreeMap<String, PathBuf> {
        self.0.lock().get(uid).cloned().unwrap_or_default()
    }
}

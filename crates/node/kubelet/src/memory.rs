//! What the actor of a pod remembers between two looks at the runtime. All of it may be lost in a restart.

use crate::backoff::Backoff;
use crate::container_status::{StartFailure, StartFailures};
use crate::host::Host;
use crate::probe::Verdicts;
use crate::volumes::Volumes;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::Notify;

/// Shared by an actor and the tasks that it runs.
pub struct Memory {
    pub host: Arc<Host>,
    /// Wakes the actor.
    pub wake: Arc<Notify>,
    /// Delays before containers are started again, by name.
    pub crashes: Mutex<Backoff>,
    /// Delays before images are pulled again, by image.
    pub pulls: Mutex<Backoff>,
    /// What the last pull of an image failed with.
    pub pull_errors: Mutex<HashMap<String, String>>,
    pub failures: Mutex<StartFailures>,
    pub verdicts: Mutex<Verdicts>,
    pub volumes: tokio::sync::Mutex<Volumes>,
}

impl Memory {
    pub fn new(host: Arc<Host>, wake: Arc<Notify>) -> Self {
        Self {
            host,
            wake,
            crashes: Mutex::default(),
            pulls: Mutex::default(),
            pull_errors: Mutex::default(),
            failures: Mutex::default(),
            verdicts: Mutex::default(),
            volumes: tokio::sync::Mutex::default(),
        }
    }

    pub fn fail(&self, container: &str, failure: StartFailure) {
        self.failures.lock().insert(container.to_owned(), failure);
    }

    pub fn succeed(&self, container: &str) {
        self.failures.lock().remove(container);
    }
}

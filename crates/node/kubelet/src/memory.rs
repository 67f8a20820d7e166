//! What the actor of a pod remembers between two looks at the runtime. All of it may be lost in a restart.

use crate::backoff::Backoff;
use crate::container_status::{StartFailure, StartFailures};
use crate::host::Host;
use crate::probe::Verdicts;
use crate::volumes::Volumes;
use parking_lot::Mutex;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::Pod;
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
    /// Why a container could not be given other resources the last time.
    pub resize_error: Mutex<Option<String>>,
    pub volumes: tokio::sync::Mutex<Volumes>,
    /// The pod's cgroup, and the generation of the pod whose limits it has.
    cgroup: Mutex<Option<(Option<i64>, String)>>,
}

impl Memory {
    pub fn new(host: Arc<Host>, wake: Arc<Notify>) -> Self {
        Self {
            crashes: Mutex::new(Backoff::up_to(host.settings.max_restart_period)),
            host,
            wake,
            pulls: Mutex::default(),
            pull_errors: Mutex::default(),
            failures: Mutex::default(),
            verdicts: Mutex::default(),
            resize_error: Mutex::default(),
            volumes: tokio::sync::Mutex::default(),
            cgroup: Mutex::default(),
        }
    }

    /// The cgroup for the pod's containers, made or changed only when the pod is new to it.
    pub fn cgroup_parent(&self, pod: &Pod) -> Result<String, String> {
        let mut cgroup = self.cgroup.lock();
        if let Some((generation, path)) = cgroup.as_ref()
            && *generation == pod.metadata.generation
        {
            return Ok(path.clone());
        }
        let path = self.host.cgroups.ensure(pod, self.host.placement.has_own_cpus(pod.uid()))?;
        *cgroup = Some((pod.metadata.generation, path.clone()));
        Ok(path)
    }

    /// The pod has other resources than before: its cgroup is to follow.
    pub fn resized(&self) {
        *self.cgroup.lock() = None;
    }

    pub fn fail(&self, container: &str, failure: StartFailure) {
        self.failures.lock().insert(container.to_owned(), failure);
    }

    pub fn succeed(&self, container: &str) {
        self.failures.lock().remove(container);
    }
}

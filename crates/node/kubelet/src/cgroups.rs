//! The cgroups of pods: `kubepods`, one below it for each class of pods, one for each pod.

use crate::resources::{Qos, of_pod, qos_class};
use pintle_cri::LinuxContainerResources;
use pintle_linux::cgroup;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::Pod;
use std::time::Duration;

/// How long processes that are left in a pod's cgroup may take to die.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

const CLASSES: [Qos; 3] = [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort];

/// Makes and removes the cgroups of pods.
pub trait Cgroups: Send + Sync + 'static {
    /// The parent for the pod's containers, made with the pod's limits; empty when cgroups are not managed.
    fn ensure(&self, pod: &Pod) -> Result<String, String>;
    /// Removes the cgroup of a pod, by uid, with what is left in it. Blocks.
    fn remove(&self, uid: &str) -> Result<(), String>;
    /// What a pod uses, by uid, or all pods together; nothing where cgroups are not managed or the pod has none.
    fn stats(&self, uid: Option<&str>) -> Option<cgroup::Stats>;
}

/// No cgroups: containers get their own limits only.
pub struct Unmanaged;

impl Cgroups for Unmanaged {
    fn ensure(&self, _: &Pod) -> Result<String, String> {
        Ok(String::new())
    }

    fn remove(&self, _: &str) -> Result<(), String> {
        Ok(())
    }

    fn stats(&self, _: Option<&str>) -> Option<cgroup::Stats> {
        None
    }
}

/// The machine's cgroups.
pub struct Managed {
    groups: cgroup::Cgroups,
    root: String,
}

impl Managed {
    /// Cgroups below `root`; `/` is each hierarchy's root.
    pub fn new(root: &str) -> Result<Self, String> {
        let groups = cgroup::Cgroups::detect().map_err(|e| e.to_string())?;
        let managed = Self { groups, root: root.trim_end_matches('/').to_owned() };
        for class in CLASSES {
            let limits = cgroup::Limits { cpu_shares: class_shares(class), ..Default::default() };
            managed.create(&managed.class_path(class), &limits)?;
        }
        Ok(managed)
    }

    fn class_path(&self, class: Qos) -> String {
        match class {
            Qos::Guaranteed => format!("{}/kubepods", self.root),
            Qos::Burstable => format!("{}/kubepods/burstable", self.root),
            Qos::BestEffort => format!("{}/kubepods/besteffort", self.root),
        }
    }

    fn path(&self, class: Qos, uid: &str) -> String {
        format!("{}/pod{uid}", self.class_path(class))
    }

    fn create(&self, path: &str, limits: &cgroup::Limits) -> Result<(), String> {
        let warnings = self.groups.create(path, limits).map_err(|e| e.to_string())?;
        for warning in warnings {
            tracing::debug!(warning, "a limit of a cgroup can't be applied on this machine");
        }
        Ok(())
    }
}

/// Weights of the classes against each other; the first is the whole of `kubepods`, left as it is.
fn class_shares(class: Qos) -> u64 {
    match class {
        Qos::Guaranteed => 0,
        Qos::Burstable => 1024,
        Qos::BestEffort => 2,
    }
}

impl Cgroups for Managed {
    fn ensure(&self, pod: &Pod) -> Result<String, String> {
        let path = self.path(qos_class(pod), pod.uid());
        self.create(&path, &limits(&of_pod(pod)))?;
        Ok(path)
    }

    fn remove(&self, uid: &str) -> Result<(), String> {
        for class in CLASSES {
            let path = self.path(class, uid);
            if !self.groups.exists(&path) {
                continue;
            }
            if self.groups.remove(&path).is_err() {
                self.groups.kill_all(&path, KILL_TIMEOUT).map_err(|e| e.to_string())?;
                self.groups.remove(&path).map_err(|e| e.to_string())?;
            }
        }
        Ok(())
    }

    fn stats(&self, uid: Option<&str>) -> Option<cgroup::Stats> {
        let paths: Vec<String> = match uid {
            Some(uid) => CLASSES.iter().map(|class| self.path(*class, uid)).collect(),
            None => vec![self.class_path(Qos::Guaranteed)],
        };
        let path = paths.into_iter().find(|path| self.groups.exists(path))?;
        self.groups.stats(&path).ok()
    }
}

fn limits(resources: &LinuxContainerResources) -> cgroup::Limits {
    cgroup::Limits {
        cpu_shares: u64::try_from(resources.cpu_shares).unwrap_or_default(),
        cpu_quota_us: resources.cpu_quota,
        cpu_period_us: u64::try_from(resources.cpu_period).unwrap_or_default(),
        memory_bytes: resources.memory_limit_in_bytes,
        ..Default::default()
    }
}

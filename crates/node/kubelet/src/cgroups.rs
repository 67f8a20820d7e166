//! The cgroups of pods: `kubepods` with all that the node has, one below it for each class of pods, one for each pod.
//!
//! Source: `pkg/kubelet/cm`. Of processors, the class of burstable pods weighs what its pods ask for together, that of
//! best-effort ones next to nothing.

use crate::huge_pages::{self, HugePages};
use crate::node::machine::Machine;
use crate::resources::{NO_QUOTA, Qos, milli_cpu_request, of_pod, qos_class, shares};
use parking_lot::Mutex;
use pintle_cri::LinuxContainerResources;
use pintle_linux::cgroup;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::Pod;
use std::collections::HashMap;
use std::time::Duration;

/// How long processes that are left in a pod's cgroup may take to die.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

const CLASSES: [Qos; 3] = [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort];

/// Makes and removes the cgroups of pods.
pub trait Cgroups: Send + Sync + 'static {
    /// The parent for the pod's containers, made with the pod's limits; empty when cgroups are not managed. A pod that
    /// has processors of its own uses them as it likes.
    fn ensure(&self, pod: &Pod, has_own_cpus: bool) -> Result<String, String>;
    /// Removes the cgroup of a pod, by uid, with what is left in it. Blocks.
    fn remove(&self, uid: &str) -> Result<(), String>;
    /// What a pod uses, by uid, or all pods together; nothing where cgroups are not managed or the pod has none.
    fn stats(&self, uid: Option<&str>) -> Option<cgroup::Stats>;
}

/// No cgroups: containers get their own limits only.
pub struct Unmanaged;

impl Cgroups for Unmanaged {
    fn ensure(&self, _: &Pod, _: bool) -> Result<String, String> {
        Ok(String::new())
    }

    fn remove(&self, _: &str) -> Result<(), String> {
        Ok(())
    }

    fn stats(&self, _: Option<&str>) -> Option<cgroup::Stats> {
        None
    }
}

/// What the burstable pods ask for: thousandths of a processor, by uid.
#[derive(Default)]
struct Burstable {
    requests: HashMap<String, u64>,
}

impl Burstable {
    fn shares(&self) -> u64 {
        shares_of(self.requests.values().sum())
    }

    /// Notes what a pod asks for, nothing for one that is gone; returns the weight of the class when it is another now.
    fn note(&mut self, uid: &str, request: Option<u64>) -> Option<u64> {
        let before = self.shares();
        match request {
            Some(request) => drop(self.requests.insert(uid.to_owned(), request)),
            None => drop(self.requests.remove(uid)),
        }
        Some(self.shares()).filter(|after| *after != before)
    }
}

fn shares_of(milli_cpu: u64) -> u64 {
    u64::try_from(shares(i64::try_from(milli_cpu).unwrap_or(i64::MAX))).unwrap_or_default()
}

/// The machine's cgroups.
pub struct Managed {
    groups: cgroup::Cgroups,
    root: String,
    huge_pages: Vec<HugePages>,
    burstable: Mutex<Burstable>,
}

impl Managed {
    /// Cgroups below `root`; `/` is each hierarchy's root. Pods share all that the machine has.
    pub fn new(root: &str, machine: &Machine) -> Result<Self, String> {
        let groups = cgroup::Cgroups::detect().map_err(|e| e.to_string())?;
        let root = root.trim_end_matches('/').to_owned();
        let managed = Self { groups, root, huge_pages: machine.huge_pages.clone(), burstable: Mutex::default() };
        for class in CLASSES {
            let limits = match class {
                Qos::Guaranteed => cgroup::Limits {
                    cpu_shares: shares_of(u64::from(machine.processors) * 1000),
                    memory_bytes: i64::try_from(machine.memory_bytes).unwrap_or_default(),
                    ..Default::default()
                },
                Qos::Burstable | Qos::BestEffort => cgroup::Limits { cpu_shares: shares_of(0), ..Default::default() },
            };
            managed.create(&managed.class_path(class), &limits)?;
        }
        Ok(managed)
    }

    /// The class of burstable pods weighs what they ask for.
    fn weigh(&self, uid: &str, request: Option<u64>) {
        let mut burstable = self.burstable.lock();
        let Some(cpu_shares) = burstable.note(uid, request) else { return };
        let limits = cgroup::Limits { cpu_shares, ..Default::default() };
        if let Err(error) = self.groups.update(&self.class_path(Qos::Burstable), &limits) {
            tracing::warn!(%error, "the weight of burstable pods can't be changed");
        }
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

impl Cgroups for Managed {
    fn ensure(&self, pod: &Pod, has_own_cpus: bool) -> Result<String, String> {
        let class = qos_class(pod);
        let path = self.path(class, pod.uid());
        let mut limits = limits(&of_pod(pod));
        limits.hugepages = huge_pages::on_machine(&limits.hugepages, &self.huge_pages);
        if has_own_cpus {
            limits.cpu_quota_us = NO_QUOTA;
        }
        self.create(&path, &limits)?;
        self.weigh(pod.uid(), (class == Qos::Burstable).then(|| milli_cpu_request(pod)));
        Ok(path)
    }

    fn remove(&self, uid: &str) -> Result<(), String> {
        self.weigh(uid, None);
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
        hugepages: resources.hugepage_limits.clone(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burstable_pods_weigh_what_they_ask_for() {
        let mut burstable = Burstable::default();
        for (uid, request, told) in [
            ("a", Some(0), None),
            ("a", Some(500), Some(512)),
            ("b", Some(1500), Some(2048)),
            ("b", Some(1500), None),
            ("a", None, Some(1536)),
            ("c", None, None),
            ("b", None, Some(2)),
        ] {
            assert_eq!(burstable.note(uid, request), told, "{uid} {request:?}");
        }
    }
}

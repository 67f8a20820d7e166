//! Measures what the node, its pods and their containers use, when somebody asks: nothing is measured in between.
//!
//! Containers are asked of the runtime, pods of their cgroups, the machine of /proc. Rates are those since the last
//! question; the sizes of directories are kept for a while, because counting them reads every entry.

pub mod disk_usage;
pub mod machine_use;
mod rates;

use crate::host::Host;
use crate::labels;
use crate::volumes::LOCAL_MARKS;
use disk_usage::DiskUse;
use machine_use::{Filesystem, Interface, MachineUse};
use parking_lot::Mutex;
use pintle_cri::{ContainerFilter, ContainerStats, CriResult};
use pintle_linux::cgroup;
use rates::Rates;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long the size of a directory is taken as true: longer for one that took long to count, but never longer than
/// upstream's aggregation period of volumes.
const SIZES_LAST: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(60)];
/// That many times as long as it took.
const SIZE_WORTH: u32 = 100;

/// Folders of volumes that end with their pod.
const EPHEMERAL_PLUGINS: [&str; 3] =
    ["kubernetes.io~empty-dir", "kubernetes.io~configmap", "kubernetes.io~downward-api"];

/// Processor and memory of one thing at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Nanoseconds since the epoch.
    pub at: i64,
    /// Core-nanoseconds since its start.
    pub cpu_nanos: u64,
    /// Billionths of a core, since the question before; nothing at the first.
    pub cpu_rate: Option<u64>,
    pub memory: u64,
    pub working_set: u64,
    pub rss: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
    /// Bytes; 0 is no limit.
    pub memory_limit: u64,
    pub processes: u64,
}

/// A container that runs.
#[derive(Clone, Debug, Default)]
pub struct ContainerUse {
    pub id: String,
    pub name: String,
    pub image: String,
    /// Nanoseconds since the epoch.
    pub started_at: i64,
    pub usage: Usage,
    pub root: DiskUse,
    pub log: DiskUse,
}

/// A volume of a pod.
#[derive(Clone, Debug, Default)]
pub struct VolumeUse {
    pub name: String,
    pub path: PathBuf,
    pub size: DiskUse,
    /// It is a directory on the node's own disk that ends with its pod.
    pub ephemeral: bool,
}

/// A pod with containers that run.
#[derive(Clone, Debug, Default)]
pub struct PodUse {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// Of its first container that runs; nanoseconds since the epoch.
    pub started_at: i64,
    pub usage: Usage,
    /// Sorted by name.
    pub containers: Vec<ContainerUse>,
    /// Empty on the host's network.
    pub interfaces: Vec<Interface>,
    /// Sorted by name.
    pub volumes: Vec<VolumeUse>,
}

impl PodUse {
    /// Writable layers, logs and volumes on the node's disk.
    pub fn ephemeral(&self) -> DiskUse {
        let mut total = DiskUse::default();
        self.containers.iter().for_each(|c| {
            total += c.root;
            total += c.log;
        });
        self.volumes.iter().filter(|v| v.ephemeral).for_each(|v| total += v.size);
        total
    }
}

/// One look at everything.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub machine: MachineUse,
    pub node: Usage,
    /// All pods together.
    pub all_pods: Option<Usage>,
    /// Sorted by namespace and name.
    pub pods: Vec<PodUse>,
}

/// Measures on demand.
pub struct Collector {
    host: Arc<Host>,
    rates: Mutex<Rates>,
    /// With the time until which they are taken as true.
    sizes: Mutex<HashMap<PathBuf, (Instant, DiskUse)>>,
}

impl Collector {
    pub fn new(host: Arc<Host>) -> Self {
        Self { host, rates: Mutex::default(), sizes: Mutex::default() }
    }

    /// Looks at everything; at disks and networks only when `whole`.
    pub async fn look(&self, whole: bool) -> CriResult<Snapshot> {
        let pods = self.gather(whole, |_| true).await?;
        let now = self.now();
        let mut snapshot = Snapshot { machine: self.machine(), pods, ..Default::default() };
        snapshot.node = self.of_machine(&snapshot.machine, now);
        snapshot.all_pods = self.host.cgroups.stats(None).map(|s| self.of_cgroup("pods", &s, now));
        self.rates.lock().forget_before(now);
        Ok(snapshot)
    }

    /// Looks at these pods only, by uid, with their disks.
    pub async fn of_pods(&self, uids: &HashSet<&str>) -> CriResult<Vec<PodUse>> {
        self.gather(true, |uid| uids.contains(uid)).await
    }

    /// The pods that run, sorted by namespace and name.
    async fn gather(&self, whole: bool, wanted: impl Fn(&str) -> bool) -> CriResult<Vec<PodUse>> {
        let list = self.host.runtime.list_container_stats(ContainerFilter::default()).await?;
        let mut pods: BTreeMap<(String, String, String), PodUse> = BTreeMap::new();
        for stats in list {
            let get = |key: &str| stats.labels.get(key).cloned();
            let identity = (get(labels::POD_NAMESPACE), get(labels::POD_NAME), get(labels::POD_UID));
            let (Some(namespace), Some(name), Some(uid)) = identity else { continue };
            if !wanted(&uid) {
                continue;
            }
            let key = (namespace.clone(), name.clone(), uid.clone());
            let pod = pods.entry(key).or_insert_with(|| PodUse { namespace, name, uid, ..Default::default() });
            self.add_container(pod, stats, whole).await;
        }
        let mut finished = Vec::with_capacity(pods.len());
        for (_, mut pod) in pods {
            self.finish(&mut pod, whole, self.now()).await;
            finished.push(pod);
        }
        Ok(finished)
    }

    /// The machine's own numbers; none of a machine that is only pretended.
    pub fn machine(&self) -> MachineUse {
        if self.host.hardware.is_real() { MachineUse::read() } else { MachineUse::default() }
    }

    fn now(&self) -> i64 {
        i64::try_from(self.host.clock.unix_nanos()).unwrap_or(i64::MAX)
    }

    fn of_machine(&self, machine: &MachineUse, at: i64) -> Usage {
        Usage {
            at,
            cpu_nanos: machine.cpu_nanos,
            cpu_rate: self.rates.lock().rate("node", at, machine.cpu_nanos),
            memory: machine.memory_usage,
            working_set: machine.memory_working_set,
            rss: machine.memory_rss,
            page_faults: machine.page_faults,
            major_page_faults: machine.major_page_faults,
            memory_limit: machine.memory_total,
            processes: 0,
        }
    }

    fn of_cgroup(&self, key: &str, stats: &cgroup::Stats, at: i64) -> Usage {
        Usage {
            at,
            cpu_nanos: stats.cpu_usage_nanos,
            cpu_rate: self.rates.lock().rate(key, at, stats.cpu_usage_nanos),
            memory: stats.memory_usage_bytes,
            working_set: stats.memory_working_set_bytes,
            rss: stats.memory_rss_bytes,
            page_faults: stats.page_faults,
            major_page_faults: stats.major_page_faults,
            memory_limit: stats.memory_limit_bytes,
            processes: stats.pids,
        }
    }

    async fn add_container(&self, pod: &mut PodUse, stats: ContainerStats, whole: bool) {
        // It may end meanwhile; then nothing is told of it.
        let Ok(status) = self.host.runtime.container_status(&stats.id).await else { return };
        let limit = u64::try_from(status.resources.memory_limit_in_bytes).unwrap_or(0);
        let usage = Usage {
            at: stats.timestamp,
            cpu_nanos: stats.cpu_usage_nanos,
            cpu_rate: self.rates.lock().rate(&stats.id, stats.timestamp, stats.cpu_usage_nanos),
            memory: stats.memory_usage_bytes,
            working_set: stats.memory_working_set_bytes,
            rss: stats.memory_rss_bytes,
            memory_limit: limit,
            processes: stats.pids,
            ..Default::default()
        };
        let log = if whole { self.log_of(pod, &stats.metadata.name).await } else { DiskUse::default() };
        if whole && pod.interfaces.is_empty() && status.pid > 0 && self.host.hardware.is_real() {
            pod.interfaces = machine_use::interfaces(&status.pid.to_string());
        }
        pod.containers.push(ContainerUse {
            id: stats.id,
            name: stats.metadata.name,
            image: status.image,
            started_at: status.started_at,
            usage,
            root: DiskUse { bytes: stats.writable_layer_bytes, inodes: stats.writable_layer_inodes },
            log,
        });
    }

    async fn log_of(&self, pod: &PodUse, container: &str) -> DiskUse {
        let dir = format!("{}_{}_{}", pod.namespace, pod.name, pod.uid);
        self.size(self.host.settings.log_dir.join(dir).join(container)).await
    }

    /// What is known once all containers of a pod are.
    async fn finish(&self, pod: &mut PodUse, whole: bool, now: i64) {
        pod.containers.sort_by(|a, b| a.name.cmp(&b.name));
        pod.started_at = pod.containers.iter().map(|c| c.started_at).filter(|at| *at > 0).min().unwrap_or_default();
        pod.usage = match self.host.cgroups.stats(Some(&pod.uid)) {
            Some(stats) => self.of_cgroup(&format!("pod/{}", pod.uid), &stats, now),
            None => sum(&pod.containers, now),
        };
        if whole {
            pod.volumes = self.volumes(&pod.uid).await;
        }
    }

    /// The volumes of a pod as they lie on the node, by plugin and name.
    pub async fn volumes(&self, uid: &str) -> Vec<VolumeUse> {
        if !crate::host::is_plain_name(uid) {
            return vec![];
        }
        let top = self.host.volumes_dir(uid);
        let device = device(&top);
        let claimed = self.claimed(uid).await.into_iter();
        let mut found: Vec<VolumeUse> = claimed.map(|(name, (path, disk))| of_claim(name, path, &disk)).collect();
        for plugin in children(&top).into_iter().filter(|path| !path.ends_with(LOCAL_MARKS)) {
            let ends_with_pod = plugin.file_name().is_some_and(|n| EPHEMERAL_PLUGINS.iter().any(|p| n == *p));
            for path in children(&plugin) {
                let Some(name) = path.file_name().and_then(|n| n.to_str()).map(str::to_owned) else { continue };
                if name.starts_with('.') {
                    continue;
                }
                // What is mounted there is memory, or somebody else's disk.
                let ephemeral = ends_with_pod && self::device(&path) == device;
                found.push(VolumeUse { name, size: self.size(path.clone()).await, path, ephemeral });
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found
    }

    /// The volumes behind claims by the names that the pod has for them: where they are, and what their whole filesystems
    /// hold. Those that are gone are left out.
    pub async fn claimed(&self, uid: &str) -> BTreeMap<String, (PathBuf, Filesystem)> {
        let claimed = self.host.claimed.of(uid);
        if claimed.is_empty() {
            return BTreeMap::new();
        }
        let look = move || {
            let found = claimed.into_iter().filter_map(|(name, path)| {
                let disk = machine_use::filesystem(&path)?;
                Some((name, (path, disk)))
            });
            Ok(found.collect())
        };
        self.host.hardware.blocking(look).await.unwrap_or_default()
    }

    /// The size of a directory, at most a minute old.
    pub async fn size(&self, dir: PathBuf) -> DiskUse {
        let now = Instant::now();
        if let Some((until, size)) = self.sizes.lock().get(&dir)
            && now < *until
        {
            return *size;
        }
        let path = dir.clone();
        let size = self.host.hardware.blocking(move || Ok(disk_usage::below(&path))).await.unwrap_or_default();
        let mut sizes = self.sizes.lock();
        let done = Instant::now();
        sizes.retain(|_, (until, _)| done < *until);
        let worth = ((done - now) * SIZE_WORTH).clamp(SIZES_LAST[0], SIZES_LAST[1]);
        sizes.insert(dir, (done + worth, size));
        size
    }
}

/// A volume behind a claim: what its whole filesystem holds, as upstream has it.
fn of_claim(name: String, path: PathBuf, disk: &Filesystem) -> VolumeUse {
    let size = DiskUse { bytes: disk.used, inodes: disk.inodes_used() };
    VolumeUse { name, path, size, ephemeral: false }
}

fn device(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    path.symlink_metadata().ok().map(|meta| meta.dev())
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}

/// A pod without a cgroup of its own uses what its containers use.
fn sum(containers: &[ContainerUse], at: i64) -> Usage {
    let mut total = Usage { at, ..Default::default() };
    for Usage { cpu_nanos, cpu_rate, memory, working_set, rss, processes, .. } in containers.iter().map(|c| c.usage) {
        total.cpu_nanos += cpu_nanos;
        total.cpu_rate = cpu_rate.map(|rate| total.cpu_rate.unwrap_or_default() + rate).or(total.cpu_rate);
        total.memory += memory;
        total.working_set += working_set;
        total.rss += rss;
        total.processes += processes;
    }
    total
}

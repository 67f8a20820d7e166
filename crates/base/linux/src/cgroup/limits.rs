//! Limits of a cgroup, and which files say so in each version.

use super::Hierarchy;
use crate::Context;
use std::collections::BTreeMap;
use std::path::Path;

/// What a cgroup may use. Zero and empty mean "not said": the kernel's value stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Limits {
    /// Relative weight, 1024 is normal.
    pub cpu_shares: u64,
    /// Microseconds of processor time in each period; negative is no limit.
    pub cpu_quota_us: i64,
    pub cpu_period_us: u64,
    /// Processors, as `0-2,5`.
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
    /// Bytes; negative is no limit.
    pub memory_bytes: i64,
    /// Bytes of memory and swap together; negative is no limit.
    pub memory_swap_bytes: i64,
    /// Bytes that are left to it when memory is short; negative is none.
    #[serde(default)]
    pub memory_reservation_bytes: i64,
    /// 0 to 100, how willingly its memory is swapped out. Version 1 only.
    #[serde(default)]
    pub memory_swappiness: Option<u64>,
    /// Bytes of the buffers of its TCP sockets. Version 1 only.
    #[serde(default)]
    pub kernel_tcp_bytes: i64,
    /// Its processes wait for memory instead of being killed. Version 1 only.
    #[serde(default)]
    pub oom_kill_disable: bool,
    /// Microseconds of each period for its real-time threads. Version 1 only.
    #[serde(default)]
    pub cpu_rt_runtime_us: i64,
    #[serde(default)]
    pub cpu_rt_period_us: u64,
    /// Reading and writing of block devices.
    #[serde(default)]
    pub block: BlockLimits,
    /// Processes and threads; negative is no limit.
    pub pids: i64,
    /// Bytes by page size (`2MB`, `1GB`).
    pub hugepages: Vec<(String, u64)>,
    /// Version 2 files and their values, written as they are.
    pub unified: BTreeMap<String, String>,
    /// Devices that may be used, all others may not; none leaves the parent's rules.
    pub devices: Option<Vec<DeviceRule>>,
}

/// How much a cgroup may read from and write to block devices.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct BlockLimits {
    /// 10 to 1000; 0 leaves it.
    pub weight: u64,
    pub device_weights: Vec<DeviceValue>,
    /// Bytes in a second.
    pub read_bytes: Vec<DeviceValue>,
    pub write_bytes: Vec<DeviceValue>,
    /// Operations in a second.
    pub read_operations: Vec<DeviceValue>,
    pub write_operations: Vec<DeviceValue>,
}

/// A number for a block device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DeviceValue {
    pub major: u32,
    pub minor: u32,
    pub value: u64,
}

impl DeviceValue {
    /// The number for the device that a file stands for.
    ///
    /// # Errors
    /// There is no such file, or it is no block device.
    pub fn of(path: &Path, value: u64) -> crate::Result<Self> {
        let status = rustix::fs::stat(path).context(|| format!("no such file or directory: {}", path.display()))?;
        if rustix::fs::FileType::from_raw_mode(status.st_mode) != rustix::fs::FileType::BlockDevice {
            return Err(crate::Error::invalid(format!("limit {}", path.display()), "is not a block device"));
        }
        let (major, minor) = (rustix::fs::major(status.st_rdev), rustix::fs::minor(status.st_rdev));
        Ok(Self { major, minor, value })
    }

    fn v1(&self) -> String {
        format!("{}:{} {}", self.major, self.minor, self.value)
    }

    fn v2(&self, key: &str) -> String {
        // Version 1 says "no limit" by 0.
        let value = if self.value == 0 { "max".to_owned() } else { self.value.to_string() };
        format!("{}:{} {key}={value}", self.major, self.minor)
    }
}

impl BlockLimits {
    fn v1(&self, writes: &mut Writes) {
        if self.weight > 0 {
            // Which of the two there is depends on the scheduler.
            writes.either(["blkio.bfq.weight", "blkio.weight"], &self.weight.to_string());
        }
        for device in &self.device_weights {
            writes.either(["blkio.bfq.weight_device", "blkio.weight_device"], &device.v1());
        }
        let throttles = [
            ("read_bps", &self.read_bytes),
            ("write_bps", &self.write_bytes),
            ("read_iops", &self.read_operations),
            ("write_iops", &self.write_operations),
        ];
        for (name, devices) in throttles {
            for device in devices {
                writes.must(&format!("blkio.throttle.{name}_device"), device.v1());
            }
        }
    }

    fn v2(&self, writes: &mut Writes) {
        if self.weight > 0 {
            let weight = io_weight(self.weight);
            writes.either(["io.bfq.weight", "io.weight"], &weight.to_string());
        }
        for device in &self.device_weights {
            let text = format!("{}:{} {}", device.major, device.minor, io_weight(device.value));
            writes.either(["io.bfq.weight", "io.weight"], &text);
        }
        let throttles = [
            ("rbps", &self.read_bytes),
            ("wbps", &self.write_bytes),
            ("riops", &self.read_operations),
            ("wiops", &self.write_operations),
        ];
        for (key, devices) in throttles {
            for device in devices {
                writes.must("io.max", device.v2(key));
            }
        }
    }
}

/// cgroup v2 weight (1 to 10000) of a v1 weight (10 to 1000), linear.
/// Source: opencontainers/cgroups, ConvertBlkIOToIOWeightValue.
fn io_weight(weight: u64) -> u64 {
    1 + (weight.clamp(10, 1000) - 10) * 9999 / 990
}

/// Allows the use of a device.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DeviceRule {
    /// `c`haracter, `b`lock, or `a`ll.
    pub kind: char,
    /// None is every number.
    pub major: Option<u32>,
    pub minor: Option<u32>,
    /// Of `r`ead, `w`rite, `m`knod.
    pub access: String,
}

impl DeviceRule {
    pub fn new(kind: char, major: Option<u32>, minor: Option<u32>, access: &str) -> Self {
        Self { kind, major, minor, access: access.to_owned() }
    }

    /// Everything, for privileged containers.
    pub fn everything() -> Self {
        Self::new('a', None, None, "rwm")
    }

    fn v1(&self) -> String {
        let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
        format!("{} {}:{} {}", self.kind, number(self.major), number(self.minor), self.access)
    }
}

/// One file to write.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FileWrite {
    pub file: String,
    pub value: String,
    pub need: Need,
}

/// What it means when the machine refuses a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// The cgroup cannot be as asked: an error.
    Must,
    /// Reported and passed over.
    May,
    /// Comes again later, or is better than nothing: nothing.
    Try,
    /// The next write does the same by another file, and is left out when this one succeeds.
    OrNext,
}

/// cgroup v2 weight (1 to 10000) of v1 shares (2 to 262144), so that 1024 becomes 100 and the ends meet.
/// Source: opencontainers/cgroups, ConvertCPUSharesToCgroupV2Value.
pub fn weight_from_shares(shares: u64) -> u64 {
    match shares {
        0 => 0,
        1 | 2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            10f64.powf((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0).ceil() as u64
        }
    }
}

impl Limits {
    /// What to write into the directory of this hierarchy, in order.
    pub(super) fn files(&self, hierarchy: &Hierarchy) -> Vec<FileWrite> {
        let mut writes = Writes(Vec::new());
        if hierarchy.v2 {
            self.cpu_v2(&mut writes);
            self.memory_v2(&mut writes);
            self.block.v2(&mut writes);
        } else {
            if hierarchy.has("cpu") {
                self.cpu_v1(&mut writes);
            }
            if hierarchy.has("memory") {
                self.memory_v1(&mut writes);
            }
            if hierarchy.has("devices") {
                self.devices_v1(&mut writes);
            }
            if hierarchy.has("blkio") {
                self.block.v1(&mut writes);
            }
        }
        if hierarchy.v2 || hierarchy.has("cpuset") {
            writes.text("cpuset.cpus", &self.cpuset_cpus);
            writes.text("cpuset.mems", &self.cpuset_mems);
        }
        if self.pids != 0 && (hierarchy.v2 || hierarchy.has("pids")) {
            writes.must("pids.max", max_or(self.pids));
        }
        if hierarchy.v2 || hierarchy.has("hugetlb") {
            self.huge_pages(hierarchy.v2, &mut writes);
        }
        if hierarchy.v2 {
            for (file, value) in self.unified.iter().filter(|(file, _)| !file.contains('/')) {
                writes.must(file, value.clone());
            }
        }
        writes.0
    }

    fn huge_pages(&self, v2: bool, writes: &mut Writes) {
        let suffix = if v2 { "max" } else { "limit_in_bytes" };
        for (size, bytes) in &self.hugepages {
            let (file, value) = (format!("hugetlb.{size}.{suffix}"), bytes.to_string());
            // Where they can't be counted, only those who were promised some are worth a word.
            if *bytes > 0 {
                writes.may(&file, value.clone());
            } else {
                writes.attempt(&file, value.clone());
            }
            // What is reserved counts as well, since Linux 5.7: else who maps too many is killed when it touches them.
            writes.attempt(&format!("hugetlb.{size}.rsvd.{suffix}"), value);
        }
    }

    fn cpu_v1(&self, writes: &mut Writes) {
        if self.cpu_shares > 0 {
            writes.must("cpu.shares", self.cpu_shares.to_string());
        }
        if self.cpu_period_us > 0 {
            writes.must("cpu.cfs_period_us", self.cpu_period_us.to_string());
        }
        if self.cpu_quota_us != 0 {
            writes.must("cpu.cfs_quota_us", self.cpu_quota_us.max(-1).to_string());
        }
        if self.cpu_rt_period_us > 0 {
            writes.must("cpu.rt_period_us", self.cpu_rt_period_us.to_string());
        }
        if self.cpu_rt_runtime_us != 0 {
            writes.must("cpu.rt_runtime_us", self.cpu_rt_runtime_us.to_string());
        }
    }

    fn cpu_v2(&self, writes: &mut Writes) {
        if self.cpu_shares > 0 {
            writes.must("cpu.weight", weight_from_shares(self.cpu_shares).to_string());
        }
        if self.cpu_quota_us != 0 || self.cpu_period_us > 0 {
            let period = if self.cpu_period_us > 0 { self.cpu_period_us } else { 100_000 };
            let quota = if self.cpu_quota_us > 0 { self.cpu_quota_us.to_string() } else { "max".to_owned() };
            writes.must("cpu.max", format!("{quota} {period}"));
        }
    }

    /// The limit with swap may never be below the one without: so the order depends on whether they grow. Writing
    /// the first of them twice serves both ways.
    fn memory_v1(&self, writes: &mut Writes) {
        let text = |bytes: i64| bytes.max(-1).to_string();
        if self.memory_bytes != 0 && self.memory_swap_bytes != 0 {
            writes.attempt("memory.limit_in_bytes", text(self.memory_bytes));
            writes.may("memory.memsw.limit_in_bytes", text(self.memory_swap_bytes));
        }
        if self.memory_bytes != 0 {
            writes.must("memory.limit_in_bytes", text(self.memory_bytes));
        }
        if self.memory_reservation_bytes != 0 {
            writes.must("memory.soft_limit_in_bytes", text(self.memory_reservation_bytes));
        }
        if let Some(swappiness) = self.memory_swappiness {
            writes.must("memory.swappiness", swappiness.to_string());
        }
        if self.kernel_tcp_bytes != 0 {
            writes.may("memory.kmem.tcp.limit_in_bytes", text(self.kernel_tcp_bytes));
        }
        if self.oom_kill_disable {
            writes.must("memory.oom_control", "1".to_owned());
        }
    }

    fn memory_v2(&self, writes: &mut Writes) {
        if self.memory_swap_bytes < 0 {
            writes.may("memory.swap.max", "max".to_owned());
        } else if self.memory_swap_bytes > 0 && self.memory_bytes > 0 {
            let swap = (self.memory_swap_bytes - self.memory_bytes).max(0);
            writes.may("memory.swap.max", swap.to_string());
        }
        if self.memory_bytes != 0 {
            writes.must("memory.max", max_or(self.memory_bytes));
        }
        if self.memory_reservation_bytes != 0 {
            writes.must("memory.low", max_or(self.memory_reservation_bytes));
        }
    }

    fn devices_v1(&self, writes: &mut Writes) {
        let Some(rules) = &self.devices else { return };
        writes.must("devices.deny", "a".to_owned());
        for rule in rules {
            writes.must("devices.allow", if rule.kind == 'a' { "a".to_owned() } else { rule.v1() });
        }
    }
}

fn max_or(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

struct Writes(Vec<FileWrite>);

impl Writes {
    fn must(&mut self, file: &str, value: String) {
        self.0.push(FileWrite { file: file.to_owned(), value, need: Need::Must });
    }

    fn may(&mut self, file: &str, value: String) {
        self.0.push(FileWrite { file: file.to_owned(), value, need: Need::May });
    }

    fn attempt(&mut self, file: &str, value: String) {
        self.0.push(FileWrite { file: file.to_owned(), value, need: Need::Try });
    }

    /// Of two files with the same meaning a machine has at most one.
    fn either(&mut self, [first, second]: [&str; 2], value: &str) {
        self.0.push(FileWrite { file: first.to_owned(), value: value.to_owned(), need: Need::OrNext });
        self.may(second, value.to_owned());
    }

    fn text(&mut self, file: &str, value: &str) {
        if !value.is_empty() {
            self.must(file, value.to_owned());
        }
    }
}

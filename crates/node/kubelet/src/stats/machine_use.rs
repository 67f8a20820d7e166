//! Reads what the whole machine uses: processors, memory, network devices, filesystems, processes.

use crate::container_config::read_bounded;
use std::path::Path;

const MAX_BYTES: u64 = 1 << 20;
/// The unit of processor times in /proc/stat: `USER_HZ` is 100 to user space on every architecture that runs containers.
const TICK_NANOS: u64 = 10_000_000;

/// Processor and memory of the machine. A value that can't be read is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MachineUse {
    /// Core-nanoseconds since the boot.
    pub cpu_nanos: u64,
    /// Seconds since the epoch.
    pub booted_at: i64,
    pub memory_total: u64,
    /// File pages and anonymous memory, as the root cgroup counts them.
    pub memory_usage: u64,
    /// Usage less inactive file pages.
    pub memory_working_set: u64,
    pub memory_rss: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
    pub swap_total: u64,
    pub swap_free: u64,
}

impl MachineUse {
    /// Capacity less working set: what eviction looks at.
    pub fn memory_available(&self) -> u64 {
        self.memory_total.saturating_sub(self.memory_working_set)
    }

    pub fn read() -> Self {
        let mut all = Self::default();
        all.take_meminfo(&text("/proc/meminfo"));
        all.take_stat(&text("/proc/stat"));
        let faults = text("/proc/vmstat");
        all.page_faults = field(&faults, "pgfault");
        all.major_page_faults = field(&faults, "pgmajfault");
        all
    }

    fn take_meminfo(&mut self, text: &str) {
        let bytes = |name: &str| field(text, name).saturating_mul(1024);
        self.memory_total = bytes("MemTotal:");
        self.memory_rss = bytes("AnonPages:");
        let files = bytes("Buffers:") + bytes("Cached:") + bytes("SwapCached:");
        self.memory_usage = files + self.memory_rss;
        self.memory_working_set = self.memory_usage.saturating_sub(bytes("Inactive(file):"));
        self.swap_total = bytes("SwapTotal:");
        self.swap_free = bytes("SwapFree:");
    }

    /// `cpu  user nice system idle iowait irq softirq steal guest guest_nice`; the guests' times are in the first two.
    fn take_stat(&mut self, text: &str) {
        let line = text.lines().find_map(|l| l.strip_prefix("cpu ")).unwrap_or_default();
        let ticks: Vec<u64> = line.split_whitespace().map(|n| n.parse().unwrap_or(0)).collect();
        let busy: u64 = ticks.iter().take(8).enumerate().filter(|(i, _)| !matches!(i, 3 | 4)).map(|(_, n)| n).sum();
        self.cpu_nanos = busy.saturating_mul(TICK_NANOS);
        self.booted_at = i64::try_from(field(text, "btime")).unwrap_or_default();
    }
}

/// Counters of a network device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub rx_bytes: u64,
    pub rx_errors: u64,
    pub tx_bytes: u64,
    pub tx_errors: u64,
}

/// Devices as a process sees them, without the loopback; `self` is this one.
pub fn interfaces(pid: &str) -> Vec<Interface> {
    devices(&text(&format!("/proc/{pid}/net/dev")))
}

fn devices(text: &str) -> Vec<Interface> {
    let device = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        let numbers: Vec<u64> = rest.split_whitespace().map(|n| n.parse().unwrap_or(0)).collect();
        let at = |i: usize| numbers.get(i).copied().unwrap_or(0);
        let (rx_bytes, rx_errors, tx_bytes, tx_errors) = (at(0), at(2), at(8), at(10));
        Some(Interface { name: name.trim().to_owned(), rx_bytes, rx_errors, tx_bytes, tx_errors })
    };
    text.lines().skip(2).filter_map(device).filter(|d| d.name != "lo").collect()
}

/// A filesystem. Bytes and inodes: all, and those that are free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filesystem {
    pub capacity: u64,
    pub available: u64,
    pub used: u64,
    pub inodes: u64,
    pub inodes_free: u64,
}

impl Filesystem {
    pub fn inodes_used(&self) -> u64 {
        self.inodes.saturating_sub(self.inodes_free)
    }
}

pub fn filesystem(path: &Path) -> Option<Filesystem> {
    let stat = rustix::fs::statvfs(path).ok()?;
    Some(Filesystem {
        capacity: stat.f_blocks * stat.f_frsize,
        available: stat.f_bavail * stat.f_frsize,
        used: stat.f_blocks.saturating_sub(stat.f_bfree) * stat.f_frsize,
        inodes: stat.f_files,
        inodes_free: stat.f_ffree,
    })
}

/// Process ids that the machine has, and those in use.
pub fn processes() -> (u64, u64) {
    let number = |path: &str| text(path).trim().parse::<u64>().ok();
    let limits = ["/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"];
    let max = limits.into_iter().filter_map(number).min().unwrap_or(0);
    // `0.20 0.18 0.12 1/80 11206`: the fourth field counts what runs and what exists.
    let loads = text("/proc/loadavg");
    let used = loads.split_whitespace().nth(3).and_then(|f| f.split('/').nth(1)?.parse().ok()).unwrap_or(0);
    (max, used)
}

fn text(path: &str) -> String {
    read_bounded(Path::new(path), MAX_BYTES).unwrap_or_default()
}

/// The number behind a name at the start of a line.
fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|l| l.strip_prefix(name).filter(|rest| rest.starts_with(' ')));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_understood() {
        let mut all = MachineUse::default();
        all.take_meminfo(
            "MemTotal: 1000 kB\nMemFree: 1 kB\nBuffers: 10 kB\nCached: 200 kB\nSwapCached: 0 kB\n\
             Inactive(file): 50 kB\nAnonPages: 300 kB\nSwapTotal: 7 kB\nSwapFree: 5 kB\n",
        );
        assert_eq!((all.memory_usage, all.memory_working_set), (510 << 10, 460 << 10));
        assert_eq!(all.memory_available(), 540 << 10);
        all.take_stat("cpu  1 2 3 400 500 6 7 8 1 1\ncpu0 1 1\nbtime 1700000000\n");
        assert_eq!((all.cpu_nanos, all.booted_at), (27 * TICK_NANOS, 1_700_000_000));
        let text =
            "Inter-| \n face |\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0:5 4 3 0 0 0 0 0 6 1 2 0 0 0 0 0\n";
        let eth0 = Interface { name: "eth0".into(), rx_bytes: 5, rx_errors: 3, tx_bytes: 6, tx_errors: 2 };
        assert_eq!(devices(text), [eth0]);
    }
}

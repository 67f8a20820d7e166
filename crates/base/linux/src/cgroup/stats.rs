//! Reads what a cgroup uses.

use super::layout::Layout;
use crate::{Context, Result};
use std::fs;
use std::path::Path;

/// Use of a cgroup at one moment. A value that this machine does not count is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Core-nanoseconds since the cgroup was made.
    pub cpu_usage_nanos: u64,
    pub memory_usage_bytes: u64,
    /// Usage less inactive file pages, which the kernel can take back at once.
    pub memory_working_set_bytes: u64,
    pub memory_rss_bytes: u64,
    /// 0 is no limit.
    pub memory_limit_bytes: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
    pub pids: u64,
}

/// Version 1 says "no limit" with a number near the end of the range.
const V1_UNLIMITED: u64 = 1 << 62;

pub(super) fn read(layout: &Layout, relative: &str) -> Result<Stats> {
    let mut stats = Stats::default();
    if layout.hierarchies()[0].v2 {
        read_v2(&layout.hierarchies()[0].mount.join(relative), &mut stats)?;
    } else {
        read_v1(layout, relative, &mut stats)?;
    }
    if let Some(dir) = layout.directory("pids", relative) {
        stats.pids = number(&dir.join("pids.current")).unwrap_or(0);
    }
    Ok(stats)
}

fn read_v1(layout: &Layout, relative: &str, stats: &mut Stats) -> Result<()> {
    if let Some(dir) = layout.directory("cpuacct", relative) {
        stats.cpu_usage_nanos = number(&dir.join("cpuacct.usage"))?;
    }
    let Some(dir) = layout.directory("memory", relative) else { return Ok(()) };
    let table = read_table(&dir.join("memory.stat"))?;
    let inactive = field(&table, "total_inactive_file");
    stats.memory_usage_bytes = number(&dir.join("memory.usage_in_bytes"))?;
    stats.memory_working_set_bytes = stats.memory_usage_bytes.saturating_sub(inactive);
    stats.memory_rss_bytes = field(&table, "total_rss");
    stats.page_faults = field(&table, "total_pgfault");
    stats.major_page_faults = field(&table, "total_pgmajfault");
    let limit = number(&dir.join("memory.limit_in_bytes")).unwrap_or(0);
    stats.memory_limit_bytes = if limit >= V1_UNLIMITED { 0 } else { limit };
    Ok(())
}

fn read_v2(dir: &Path, stats: &mut Stats) -> Result<()> {
    let cpu = read_table(&dir.join("cpu.stat"))?;
    stats.cpu_usage_nanos = field(&cpu, "usage_usec").saturating_mul(1000);
    let Ok(table) = read_table(&dir.join("memory.stat")) else { return Ok(()) };
    let inactive = field(&table, "inactive_file");
    stats.memory_usage_bytes = number(&dir.join("memory.current"))?;
    stats.memory_working_set_bytes = stats.memory_usage_bytes.saturating_sub(inactive);
    stats.memory_rss_bytes = field(&table, "anon");
    stats.page_faults = field(&table, "pgfault");
    stats.major_page_faults = field(&table, "pgmajfault");
    stats.memory_limit_bytes = number(&dir.join("memory.max")).unwrap_or(0);
    Ok(())
}

/// Counts processes killed by the kernel for want of memory; a cgroup without the controller has none.
pub(super) fn oom_kills(layout: &Layout, relative: &str) -> Result<u64> {
    let Some(dir) = layout.directory("memory", relative) else { return Ok(0) };
    let file = if layout.hierarchies()[0].v2 { "memory.events" } else { "memory.oom_control" };
    match read_table(&dir.join(file)) {
        Ok(table) => Ok(field(&table, "oom_kill")),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(e) => Err(e),
    }
}

/// `max` has no number: callers take it as an error or as 0.
fn number(path: &Path) -> Result<u64> {
    let text = fs::read_to_string(path).context(|| format!("read {}", path.display()))?;
    let bad = |_| std::io::Error::new(std::io::ErrorKind::InvalidData, "not a number");
    text.trim().parse().map_err(bad).context(|| format!("read {}", path.display()))
}

fn read_table(path: &Path) -> Result<String> {
    fs::read_to_string(path).context(|| format!("read {}", path.display()))
}

/// The value of a line `name value`.
fn field(table: &str, name: &str) -> u64 {
    let value = table.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|v| v.trim().parse().ok()).unwrap_or(0)
}

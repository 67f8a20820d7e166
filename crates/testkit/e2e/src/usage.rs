//! What a process uses of the machine.

use anyhow::{Context, Result};
use std::time::Duration;

/// Proportional set size in bytes: the process's share of the memory.
pub fn memory(pid: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).context("Pss")?;
    let kibibytes: u64 = line.split_whitespace().next().and_then(|n| n.parse().ok()).context("a number of KiB")?;
    Ok(kibibytes * 1024)
}

/// Processor time of user and system, in steps of 10 ms; source: proc(5), `/proc/PID/stat`.
pub fn processor_time(pid: u32) -> Result<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let field = |at: usize| fields.get(at).and_then(|n| n.parse::<u64>().ok()).context("a number of ticks");
    Ok(Duration::from_millis((field(11)? + field(12)?) * 10))
}

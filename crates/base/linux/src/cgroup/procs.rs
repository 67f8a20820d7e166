//! Lists and kills the processes of a cgroup.

use super::layout::Layout;
use crate::{Error, Result, process};
use std::fs;
use std::io::{Error as IoError, ErrorKind};
use std::path::Path;
use std::time::{Duration, Instant};

pub(super) fn list(layout: &Layout, relative: &str) -> Result<Vec<i32>> {
    let mut pids = Vec::new();
    if let Some(dir) = layout.directory("pids", relative).or_else(|| layout.directory("memory", relative)) {
        collect(&dir, &mut pids)?;
    }
    Ok(pids)
}

fn collect(dir: &Path, pids: &mut Vec<i32>) -> Result<()> {
    match fs::read_to_string(dir.join("cgroup.procs")) {
        Ok(text) => pids.extend(text.lines().filter_map(|l| l.parse::<i32>().ok()).filter(|pid| *pid > 0)),
        // Gone, or going: the kernel answers ENODEV for a file that was opened before its cgroup went.
        Err(e) if e.kind() == ErrorKind::NotFound || e.raw_os_error() == Some(libc::ENODEV) => return Ok(()),
        Err(e) => return Err(Error::new(format!("read cgroup.procs of {}", dir.display()), e)),
    }
    let Ok(entries) = fs::read_dir(dir) else { return Ok(()) };
    for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
        collect(&entry.path(), pids)?;
    }
    Ok(())
}

pub(super) fn kill_all(layout: &Layout, relative: &str, timeout: Duration) -> Result<()> {
    let deadline = Instant::now() + timeout;
    let first = &layout.hierarchies()[0];
    let kill = first.mount.join(relative).join("cgroup.kill");
    // Linux 5.14: one write kills the whole tree, also what forks meanwhile.
    let at_once = first.v2 && fs::write(&kill, "1").is_ok();
    loop {
        let pids = list(layout, relative)?;
        let handles: Vec<process::PidFd> = pids.iter().filter_map(|pid| process::PidFd::open(*pid).ok()).collect();
        if handles.is_empty() {
            return Ok(());
        }
        if !at_once {
            for handle in &handles {
                // A process that has ended meanwhile is what we want.
                let _ = handle.kill(libc::SIGKILL);
            }
            if let Some(freezer) = layout.v1("freezer") {
                thaw(&freezer.mount.join(relative));
            }
        }
        for handle in &handles {
            let left = deadline.saturating_duration_since(Instant::now());
            if !handle.wait(left).unwrap_or(true) {
                let why = IoError::new(ErrorKind::TimedOut, "some processes did not end");
                return Err(Error::new(format!("kill all processes of cgroup /{relative}"), why));
            }
        }
        // A zombie whose parent has not reaped it stays listed on version 1: everything killable is dead then.
        if Instant::now() >= deadline || handles.len() == pids.len() && !first.v2 && same(layout, relative, &pids) {
            return Ok(());
        }
    }
}

/// On version 1 what is frozen does not die before it may go on.
fn thaw(dir: &Path) {
    // It is gone, or was never frozen: who is not gone in time is told of.
    let _ = fs::write(dir.join("freezer.state"), "THAWED");
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
        thaw(&entry.path());
    }
}

pub(super) fn signal_all(layout: &Layout, relative: &str, signal: i32) -> Result<()> {
    // A process that forks meanwhile is met on the second pass; only SIGKILL needs it, and twice does no harm to that.
    let passes = if signal == libc::SIGKILL { 2 } else { 1 };
    for _ in 0..passes {
        for pid in list(layout, relative)? {
            if let Ok(process) = process::PidFd::open(pid) {
                // It has ended meanwhile.
                let _ = process.kill(signal);
            }
        }
    }
    Ok(())
}

/// Whether exactly the processes that were just seen to end are still listed.
fn same(layout: &Layout, relative: &str, pids: &[i32]) -> bool {
    list(layout, relative).is_ok_and(|now| now.iter().all(|pid| pids.contains(pid)))
}

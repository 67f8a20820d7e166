//! What is told of containers and of this runtime: state, list, ps, events, features.

use crate::log::timestamp;
use crate::state::{Container, Status, document, names};
use crate::{Error, Result, refuse};
use pintle_linux::cgroup::{Cgroups, Stats};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

/// The container's state, with what runc adds to it.
pub fn state(container: &Container, cgroups: &Cgroups) -> String {
    let status = container.status(cgroups);
    let mut state = document(&container.record, status);
    state["rootfs"] = json!(container.record.rootfs);
    state["created"] = json!(container.record.created);
    state["owner"] = json!("");
    pretty(&state)
}

/// All containers as a table or as JSON.
pub fn list(root: &Path, format: &str, quiet: bool) -> Result<String> {
    let cgroups = Cgroups::detect()?;
    let mut rows = Vec::new();
    for name in names(root)? {
        // One that was deleted meanwhile is not listed.
        let Ok(container) = Container::open(root, &name) else { continue };
        let mut row = document(&container.record, container.status(&cgroups));
        row["rootfs"] = json!(container.record.rootfs);
        row["created"] = json!(container.record.created);
        row["owner"] = json!("root");
        rows.push(row);
    }
    if quiet {
        return Ok(rows.iter().filter_map(|row| row["id"].as_str()).fold(String::new(), |text, id| text + id + "\n"));
    }
    match format {
        "json" => Ok(format!("{}\n", Value::from(rows))),
        "table" => Ok(table(&rows)),
        other => refuse(format!("invalid format option {other:?}: give table or json")),
    }
}

fn table(rows: &[Value]) -> String {
    let columns = ["id", "pid", "status", "bundle", "created", "owner"];
    let cell = |row: &Value, column: &str| row[column].as_str().map_or_else(|| row[column].to_string(), str::to_owned);
    let width = |column: &str| rows.iter().map(|row| cell(row, column).len()).chain([column.len()]).max().unwrap_or(0);
    let widths = columns.map(|column| width(column).max(9) + 3);
    let mut text = String::new();
    let mut line = |cells: Vec<String>| {
        let padded: String = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}", padded.trim_end());
    };
    line(columns.map(str::to_uppercase).to_vec());
    for row in rows {
        line(columns.iter().map(|column| cell(row, column)).collect());
    }
    text
}

/// The container's processes: their numbers as JSON, or the lines that ps(1) has of them.
pub fn processes(container: &Container, format: &str, options: &[String], cgroups: &Cgroups) -> Result<String> {
    let mut pids = cgroups.processes(&container.record.cgroup)?;
    pids.sort_unstable();
    match format {
        "json" => return Ok(format!("{}\n", json!(pids))),
        "table" => {}
        other => return refuse(format!("invalid format option {other:?}: give table or json")),
    }
    let all = ["-ef".to_owned()];
    let options = if options.is_empty() { &all } else { options };
    let output =
        std::process::Command::new("ps").args(options).output().map_err(|e| Error::new(format!("run ps: {e}")))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let Some(column) = header.split_whitespace().position(|name| name == "PID") else {
        return refuse("couldn't find PID field in ps output");
    };
    let is_ours = |line: &&str| {
        let pid = line.split_whitespace().nth(column).and_then(|text| text.parse::<i32>().ok());
        pid.is_some_and(|pid| pids.contains(&pid))
    };
    Ok(std::iter::once(header).chain(lines.filter(is_ours)).fold(String::new(), |text, line| text + line + "\n"))
}

/// Tells what the container uses, once or every so often until it ends.
pub fn events(container: &Container, once: bool, every: Duration, mut tell: impl FnMut(String)) -> Result<()> {
    let cgroups = Cgroups::detect()?;
    let record = &container.record;
    if container.status(&cgroups) == Status::Stopped {
        return refuse("container not running");
    }
    let handle = pintle_linux::process::PidFd::open(record.pid).map_err(|_| Error::new("container not running"))?;
    let mut kills = cgroups.oom_kills(&record.cgroup)?;
    loop {
        let stats = cgroups.stats(&record.cgroup)?;
        tell(event("stats", &record.id, Some(statistics(&stats))));
        if once || handle.wait(every).map_err(|e| Error::new(format!("wait for the container: {e}")))? {
            return Ok(());
        }
        let now = cgroups.oom_kills(&record.cgroup)?;
        if now > kills {
            tell(event("oom", &record.id, None));
            kills = now;
        }
    }
}

fn event(kind: &str, id: &str, data: Option<Value>) -> String {
    let mut event = json!({ "type": kind, "id": id });
    if let Some(data) = data {
        event["data"] = data;
    }
    format!("{event}\n")
}

fn statistics(stats: &Stats) -> Value {
    json!({
        "cpu": { "usage": { "total": stats.cpu_usage_nanos, "kernel": 0, "user": 0 }, "throttling": {} },
        "cpuset": {},
        "memory": {
            "usage": { "limit": stats.memory_limit_bytes, "usage": stats.memory_usage_bytes, "failcnt": 0 },
            "raw": { "rss": stats.memory_rss_bytes, "pgfault": stats.page_faults, "pgmajfault": stats.major_page_faults },
        },
        "pids": { "current": stats.pids },
        "blkio": {},
        "hugetlb": {},
        "network_interfaces": null,
    })
}

/// What this runtime does (features.md of the specification).
pub fn features() -> String {
    let capabilities: Vec<String> =
        pintle_linux::capability::names().iter().map(|name| format!("CAP_{name}")).collect();
    pretty(&json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.2.0",
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": [
            "async", "atime", "bind", "defaults", "dev", "diratime", "exec", "iversion", "noatime", "nodev",
            "nodiratime", "noexec", "noiversion", "nomand", "norelatime", "nostrictatime", "nosuid", "private",
            "ratime", "rbind", "rdev", "rdiratime", "relatime", "rexec", "rnoatime", "rnodev", "rnodiratime",
            "rnoexec", "rnorelatime", "rnosuid", "ro", "rprivate", "rrelatime", "rro", "rrw", "rshared", "rslave",
            "rstrictatime", "rsuid", "runbindable", "rw", "shared", "silent", "slave", "strictatime", "suid",
            "unbindable",
        ],
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"],
            "capabilities": capabilities,
            "cgroup": { "v1": true, "v2": true, "systemd": false, "systemdUser": false, "rdma": false },
            "seccomp": {
                "enabled": true,
                "actions": [
                    "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS",
                    "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_TRAP",
                ],
                "operators": [
                    "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ",
                    "SCMP_CMP_NE",
                ],
                "archs": ["SCMP_ARCH_X86", "SCMP_ARCH_X86_64"],
            },
            "apparmor": { "enabled": false },
            "selinux": { "enabled": false },
            "intelRdt": { "enabled": false },
            "mountExtensions": { "idmap": { "enabled": false } },
        },
        "annotations": { "pintle.version": env!("CARGO_PKG_VERSION"), "pintle.reportedAt": timestamp() },
    }))
}

pub fn pretty(value: &Value) -> String {
    // A tree of values always has a text.
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

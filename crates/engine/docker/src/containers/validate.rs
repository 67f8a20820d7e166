//! Refuses settings that Docker refuses, in its words.

use super::Container;
use crate::daemon::Daemon;
use crate::error::{DockerError, Result};
use crate::model::{Config, HealthConfig, HostConfig, RestartPolicy};
use pintle_linux::capability::Capabilities;
use std::sync::Arc;

const MIN_MEMORY: i64 = 6 << 20;
const MILLISECOND: i64 = 1_000_000;

type Check = fn(&Config, &HostConfig) -> Result<()>;

/// In this order, so that the first mistake told is the one that Docker tells first.
const CHECKS: [Check; 14] = [
    modes,
    paths,
    variables,
    health,
    stop_signal,
    removal,
    restart,
    capabilities,
    memory,
    processors,
    block_io,
    others,
    ports,
    storage,
];

/// Checks all settings; what is allowed but of no effect comes back as warnings.
pub(super) fn check(config: &Config, host: &HostConfig) -> Result<Vec<String>> {
    CHECKS.iter().try_for_each(|check| check(config, host))?;
    let mut warnings = Vec::new();
    if host.oom_kill_disable == Some(true) && host.memory == 0 {
        warnings.push(
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the system \
             running out of resources."
                .to_owned(),
        );
    }
    if host.network_mode == "host" && host.port_bindings.as_ref().is_some_and(|p| !p.is_empty()) {
        warnings.push("Published ports are discarded when using host network mode".to_owned());
    }
    if host.mounts.iter().flatten().any(|mount| mount.kind == "image") {
        warnings.push("Image mount is an experimental feature".to_owned());
    }
    if host.kernel_memory != 0 {
        warnings.push("Specifying a kernel memory limit is deprecated and will be removed.".to_owned());
    }
    Ok(warnings)
}

fn bad<T>(message: impl Into<String>) -> Result<T> {
    Err(DockerError::invalid(message))
}

fn modes(config: &Config, host: &HostConfig) -> Result<()> {
    let network = host.network_mode.as_str();
    let joins = network.starts_with("container:");
    if !config.hostname.is_empty() && host.uts_mode == "host" {
        return bad("conflicting options: hostname and the UTS mode");
    }
    if joins && !config.hostname.is_empty() {
        return bad("conflicting options: hostname and the network mode");
    }
    if host.uts_mode == "host" && !config.domainname.is_empty() {
        return bad("conflicting options: domainname and the UTS mode");
    }
    let given = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|l| !l.is_empty());
    if (joins || network == "host") && given(&host.links) {
        let kind = if joins { "container" } else { "host" };
        return bad(format!(
            "conflicting options: {kind} type network can't be used with links. This would result in undefined behavior"
        ));
    }
    if joins && given(&host.dns) {
        return bad("conflicting options: dns and the network mode");
    }
    if joins && given(&host.extra_hosts) {
        return bad("conflicting options: custom host-to-IP mapping and the network mode");
    }
    if joins && (host.port_bindings.as_ref().is_some_and(|p| !p.is_empty()) || host.publish_all_ports) {
        return bad("conflicting options: port publishing and the container type network mode");
    }
    if joins && config.exposed_ports.as_ref().is_some_and(|p| !p.is_empty()) {
        return bad("conflicting options: port exposing and the container type network mode");
    }
    let known = |mode: &str, own: &[&str]| {
        own.contains(&mode) || mode.strip_prefix("container:").is_some_and(|other| !other.is_empty())
    };
    if !known(&host.ipc_mode, &["", "none", "private", "shareable", "host"]) {
        return bad(format!("invalid IPC mode: {}", host.ipc_mode));
    }
    if !known(&host.pid_mode, &["", "host"]) {
        return bad(format!("invalid PID mode: {}", host.pid_mode));
    }
    if !matches!(host.uts_mode.as_str(), "" | "host") {
        return bad(format!("invalid UTS mode: {}", host.uts_mode));
    }
    if !matches!(host.cgroupns_mode.as_str(), "" | "host" | "private") {
        return bad(format!("invalid cgroup namespace mode: {}", host.cgroupns_mode));
    }
    if !matches!(host.userns_mode.as_str(), "" | "host") {
        return bad(format!("invalid user namespace mode: {}", host.userns_mode));
    }
    Ok(())
}

fn storage(_: &Config, host: &HostConfig) -> Result<()> {
    let Some(name) = host.storage_opt.iter().flatten().map(|(name, _)| name).next() else { return Ok(()) };
    let message = if name == "size" {
        "--storage-opt is supported only for overlay over xfs with 'pquota' mount option".to_owned()
    } else {
        format!("unknown option {name}")
    };
    Err(DockerError::internal(message))
}

fn paths(config: &Config, _: &HostConfig) -> Result<()> {
    let directory = &config.working_dir;
    if !directory.is_empty() && !directory.starts_with('/') {
        return bad(format!("the working directory '{directory}' is invalid, it needs to be an absolute path"));
    }
    Ok(())
}

fn variables(config: &Config, _: &HostConfig) -> Result<()> {
    for variable in config.env.iter().flatten() {
        if variable.is_empty() || variable.starts_with('=') {
            return bad(format!("invalid environment variable: {variable}"));
        }
    }
    Ok(())
}

fn health(config: &Config, _: &HostConfig) -> Result<()> {
    let Some(HealthConfig { interval, timeout, start_period, start_interval, retries, test, .. }) = &config.healthcheck
    else {
        return Ok(());
    };
    let times = [
        ("Interval", interval),
        ("Timeout", timeout),
        ("StartPeriod", start_period),
        ("StartInterval", start_interval),
    ];
    for (name, value) in times {
        if *value != 0 && *value < MILLISECOND {
            return bad(format!("{name} in Healthcheck cannot be less than 1ms"));
        }
    }
    if *retries < 0 {
        return bad("Retries in Healthcheck cannot be negative");
    }
    match test.first().map(String::as_str) {
        None | Some("" | "NONE" | "CMD" | "CMD-SHELL") => Ok(()),
        Some(other) => bad(format!("Unknown Healthcheck type {other}")),
    }
}

fn stop_signal(config: &Config, _: &HostConfig) -> Result<()> {
    if config.stop_signal.is_empty() || pintle_linux::signal::parse(&config.stop_signal).is_some() {
        return Ok(());
    }
    bad(format!("invalid signal: {}", config.stop_signal))
}

fn removal(_: &Config, host: &HostConfig) -> Result<()> {
    let restarts = !matches!(host.restart_policy.name.as_str(), "" | "no");
    if host.auto_remove && restarts {
        return bad("can't create 'AutoRemove' container with restart policy");
    }
    Ok(())
}

fn restart(_: &Config, host: &HostConfig) -> Result<()> {
    restart_policy(&host.restart_policy)
}

pub(super) fn restart_policy(policy: &RestartPolicy) -> Result<()> {
    let (name, count) = (policy.name.as_str(), policy.maximum_retry_count);
    match name {
        "" | "no" | "always" | "unless-stopped" if count != 0 => {
            let what = if count < 0 { " and cannot be negative" } else { "" };
            bad(format!("invalid restart policy: maximum retry count can only be used with 'on-failure'{what}"))
        }
        "" | "no" | "always" | "unless-stopped" => Ok(()),
        "on-failure" if count < 0 => bad("invalid restart policy: maximum retry count cannot be negative"),
        "on-failure" => Ok(()),
        other => bad(format!(
            "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or \
             'unless-stopped'"
        )),
    }
}

fn capabilities(_: &Config, host: &HostConfig) -> Result<()> {
    for (field, names) in [("CapAdd", &host.cap_add), ("CapDrop", &host.cap_drop)] {
        for name in names.iter().flatten() {
            let upper = name.trim().to_ascii_uppercase();
            let full = if upper == "ALL" || upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
            let short = full.strip_prefix("CAP_").unwrap_or(&full);
            if Capabilities::parse([short]).is_err() {
                return bad(format!("invalid {field}: unknown capability: \"{full}\""));
            }
        }
    }
    Ok(())
}

/// Bounds of memory, also of those that are changed later.
pub(super) fn memory(_: &Config, host: &HostConfig) -> Result<()> {
    let (limit, swap, reservation) = (host.memory, host.memory_swap, host.memory_reservation);
    if limit > 0 && limit < MIN_MEMORY {
        return bad("Minimum memory limit allowed is 6MB");
    }
    if limit > 0 && swap > 0 && swap < limit {
        return bad("Minimum memoryswap limit should be larger than memory limit, see usage");
    }
    if limit == 0 && swap > 0 {
        return bad("You should always set the Memory limit when using Memoryswap limit, see usage");
    }
    if let Some(swappiness) = host.memory_swappiness.filter(|s| !(-1..=100).contains(s)) {
        return bad(format!("Invalid value: {swappiness}, valid memory swappiness range is 0-100"));
    }
    if reservation > 0 && reservation < MIN_MEMORY {
        return bad("Minimum memory reservation allowed is 6MB");
    }
    if limit > 0 && reservation > 0 && limit < reservation {
        return bad("Minimum memory limit can not be less than memory reservation limit, see usage");
    }
    if host.kernel_memory > 0 && host.kernel_memory < MIN_MEMORY {
        return bad("Minimum kernel memory limit allowed is 6MB");
    }
    Ok(())
}

/// Bounds of processor time.
pub(super) fn processors(_: &Config, host: &HostConfig) -> Result<()> {
    if host.nano_cpus > 0 && host.cpu_period > 0 {
        return bad("Conflicting options: Nano CPUs and CPU Period cannot both be set");
    }
    if host.nano_cpus > 0 && host.cpu_quota > 0 {
        return bad("Conflicting options: Nano CPUs and CPU Quota cannot both be set");
    }
    let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let most = i64::try_from(count).unwrap_or(i64::MAX).saturating_mul(1_000_000_000);
    if host.nano_cpus < 0 || host.nano_cpus > most {
        return bad(format!("range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available"));
    }
    if host.cpu_shares < 0 {
        return bad(format!("invalid CPU shares ({}): value must be a positive integer", host.cpu_shares));
    }
    if host.cpu_period != 0 && !(1000..=1_000_000).contains(&host.cpu_period) {
        return bad("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)");
    }
    if host.cpu_quota > 0 && host.cpu_quota < 1000 {
        return bad("CPU cfs quota can not be less than 1ms (i.e. 1000)");
    }
    for (what, label, text, available) in [
        ("cpus", "CPUs", &host.cpuset_cpus, "/sys/devices/system/cpu/online"),
        ("mems", "memory nodes", &host.cpuset_mems, "/sys/devices/system/node/online"),
    ] {
        let Some(wanted) = numbers(text) else {
            return bad(format!("Invalid value {text} for cpuset {what}"));
        };
        let online = std::fs::read_to_string(available).unwrap_or_else(|_| "0".to_owned());
        let have = numbers(online.trim()).unwrap_or_default();
        if !wanted.iter().all(|n| have.contains(n)) {
            let online = online.trim();
            return bad(format!("Requested {label} are not available - requested {text}, available: {online}"));
        }
    }
    Ok(())
}

/// `0-2,5` as its numbers, at most a thousand.
fn numbers(text: &str) -> Option<Vec<u32>> {
    let mut all = Vec::new();
    for part in text.split(',').filter(|p| !p.is_empty()) {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to) = (from.trim().parse::<u32>().ok()?, to.trim().parse::<u32>().ok()?);
        if to < from || to - from > 1000 {
            return None;
        }
        all.extend(from..=to);
    }
    Some(all)
}

pub(super) fn block_io(_: &Config, host: &HostConfig) -> Result<()> {
    if host.blkio_weight != 0 && !(10..=1000).contains(&host.blkio_weight) {
        return bad("Range of blkio weight is from 10 to 1000");
    }
    Ok(())
}

fn others(config: &Config, host: &HostConfig) -> Result<()> {
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        return bad(format!("Invalid value {}, range for oom score adj is [-1000, 1000]", host.oom_score_adj));
    }
    if host.shm_size < 0 {
        return bad("SHM size can not be less than 0");
    }
    if !matches!(host.isolation.as_str(), "" | "default") {
        return bad(format!("invalid isolation '{}' on linux", host.isolation));
    }
    if !matches!(host.runtime.as_str(), "" | "runc" | "pintle" | "io.containerd.runc.v2") {
        return bad(format!("unknown or invalid runtime name: {}", host.runtime));
    }
    let host_network = host.network_mode == "host";
    for name in host.sysctls.iter().flatten().map(|(name, _)| name) {
        if host_network && name.starts_with("net.") {
            return bad(format!("sysctl '{name}' not allowed in host network namespace"));
        }
    }
    for entry in host.extra_hosts.iter().flatten() {
        if !entry.split_once([':', '=']).is_some_and(|(name, address)| !name.is_empty() && !address.is_empty()) {
            return bad(format!("bad format for add-host: \"{entry}\""));
        }
    }
    log(host)?;
    match config.stop_timeout {
        Some(timeout) if timeout < -1 => bad(format!("invalid stop timeout: {timeout}")),
        _ => Ok(()),
    }
}

/// The drivers that there are, with the options that each knows.
fn log(host: &HostConfig) -> Result<()> {
    let known: &[&str] = match host.log_config.kind.as_str() {
        "" | "json-file" => &["max-size", "max-file", "compress", "labels", "labels-regex", "env", "env-regex", "tag"],
        "local" => &["max-size", "max-file", "compress"],
        "none" => &[],
        other => return bad(format!("logger: no log driver named '{other}' is registered")),
    };
    let kind = if host.log_config.kind.is_empty() { "json-file" } else { &host.log_config.kind };
    let options = &host.log_config.config;
    if kind == "none" {
        return Ok(());
    }
    let mode = options.get("mode").map(String::as_str).unwrap_or_default();
    if !matches!(mode, "" | "blocking" | "non-blocking") {
        return bad(format!("logger: logging mode not supported: {mode}"));
    }
    if let Some(size) = options.get("max-buffer-size") {
        if mode != "non-blocking" {
            return bad("logger: max-buffer-size option is only supported with 'mode=non-blocking'");
        }
        if bytes(size).is_none() {
            return bad(format!("error parsing option max-buffer-size: invalid size: '{size}'"));
        }
    }
    for key in options.keys() {
        if !known.contains(&key.as_str()) && !matches!(key.as_str(), "mode" | "max-buffer-size") {
            return bad(format!("unknown log opt '{key}' for {kind} log driver"));
        }
    }
    Ok(())
}

fn ports(_: &Config, host: &HostConfig) -> Result<()> {
    for (port, bindings) in host.port_bindings.iter().flatten() {
        let number = port.split('/').next().unwrap_or_default();
        if number.parse::<u16>().is_err() {
            return bad(format!("invalid port specification: \"{port}\""));
        }
        for binding in bindings.iter().flatten() {
            let ok = binding.host_port.split('-').all(|part| part.is_empty() || part.parse::<u16>().is_ok());
            if !ok {
                return bad(format!("invalid port specification: \"{}\"", binding.host_port));
            }
        }
    }
    Ok(())
}

/// The container that another joins.
pub(super) fn joined(daemon: &Daemon, wanted: &str, what: &str) -> Result<Arc<Container>> {
    let found = daemon.containers.find(wanted)?;
    // Not "not found", by which a client would think that the image is missing.
    found.ok_or_else(|| {
        let what = match what {
            "network" => "joining network namespace of container".to_owned(),
            other => format!("failed to join {other} namespace"),
        };
        DockerError::internal(format!("{what}: No such container: {wanted}"))
    })
}

/// Bytes of `10m`, `1g`, `512`.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let factor: u64 = match unit.trim().trim_end_matches("ib").trim_end_matches('b') {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// The number of a limit (getrlimit(2)).
pub(super) fn rlimit(name: &str) -> Option<u32> {
    let names = [
        "cpu",
        "fsize",
        "data",
        "stack",
        "core",
        "rss",
        "nproc",
        "nofile",
        "memlock",
        "as",
        "locks",
        "sigpending",
        "msgqueue",
        "nice",
        "rtprio",
        "rttime",
    ];
    names.iter().position(|n| *n == name).and_then(|n| u32::try_from(n).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(host: HostConfig) -> String {
        check(&Config::default(), &host).err().map(|e| e.message).unwrap_or_default()
    }

    #[test]
    fn mistakes_are_told_in_dockers_words() {
        let default = HostConfig::default;
        assert_eq!(told(default()), "");
        assert_eq!(told(HostConfig { memory: 1024, ..default() }), "Minimum memory limit allowed is 6MB");
        let swap = HostConfig { memory: 20 << 20, memory_swap: 10 << 20, ..default() };
        assert_eq!(told(swap), "Minimum memoryswap limit should be larger than memory limit, see usage");
        assert!(told(HostConfig { nano_cpus: 9_999_000_000_000, ..default() }).starts_with("range of CPUs is from"));
        let caps = HostConfig { cap_add: Some(vec!["nope".into()]), ..default() };
        assert_eq!(told(caps), "invalid CapAdd: unknown capability: \"CAP_NOPE\"");
        let policy = RestartPolicy { name: "sometimes".into(), maximum_retry_count: 0 };
        assert!(told(HostConfig { restart_policy: policy, ..default() }).contains("unknown policy 'sometimes'"));
        assert!(told(HostConfig { cpuset_cpus: "0-9999999".into(), ..default() }).starts_with("Invalid value"));
        assert!(told(HostConfig { pid_mode: "x".into(), ..default() }).contains("invalid PID mode: x"));
    }

    #[test]
    fn sizes_are_read() {
        for (text, expected) in
            [("10m", Some(10 << 20)), ("1g", Some(1 << 30)), ("5", Some(5)), ("x", None), ("", None)]
        {
            assert_eq!(bytes(text), expected, "{text:?}");
        }
    }
}

//! Turns a container's record into what the runtime runs.

use super::record::Record;
use super::{logging, validate};
use crate::daemon::Daemon;
use crate::error::{DockerError, Result};
use crate::go_format::quote_all;
use crate::model::ThrottleDevice;
use pintle_cri::{
    ContainerConfig, ContainerMetadata, ContainerSecurityContext, Device, LinuxContainerResources, Mount,
    MountPropagation, NamespaceMode, NamespaceOption, PodSandboxConfig, PodSandboxMetadata, SeccompProfile,
};
use pintle_linux::cgroup::{BlockLimits, DeviceRule, DeviceValue, Limits};
use pintle_runtime::options::{
    CgroupNamespace, ContainerOptions, LogFormat, Network, Owner, SandboxFiles, SandboxOptions, Tmpfs,
};
use std::path::{Path, PathBuf};

/// The search path of a container whose image has none.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const CPU_PERIOD_US: u64 = 100_000;
/// What a tmpfs has unless its options say otherwise.
const TMPFS_DEFAULTS: [&str; 3] = ["noexec", "nosuid", "nodev"];

/// The sandbox of a container.
pub(super) fn sandbox(
    daemon: &Daemon,
    record: &Record,
    files: SandboxFiles,
) -> Result<(PodSandboxConfig, SandboxOptions)> {
    let host = &record.host;
    let own_name = host.uts_mode != "host";
    let config = PodSandboxConfig {
        metadata: PodSandboxMetadata {
            name: record.id.clone(),
            uid: record.id.clone(),
            namespace: "docker".to_owned(),
            attempt: 0,
        },
        hostname: if own_name { record.config.hostname.clone() } else { String::new() },
        log_directory: daemon.containers.folder.of(&record.id).to_string_lossy().into_owned(),
        cgroup_parent: cgroup_parent(daemon, record),
        sysctls: host.sysctls.clone().unwrap_or_default(),
        namespaces: namespaces(record),
        privileged: host.privileged,
        ..PodSandboxConfig::default()
    };
    let options = SandboxOptions {
        owner: Owner::Docker,
        network: network(daemon, record)?,
        shm_bytes: u64::try_from(host.shm_size).unwrap_or_default(),
        domainname: record.config.domainname.clone(),
        host_uts: !own_name,
        shareable_ipc: host.ipc_mode == "shareable",
        ipc_of: joined(daemon, &host.ipc_mode, "IPC")?,
        no_shm: host.ipc_mode == "none",
        files: Some(files),
        ..SandboxOptions::default()
    };
    Ok((config, options))
}

fn cgroup_parent(daemon: &Daemon, record: &Record) -> String {
    match record.host.cgroup_parent.trim_end_matches('/') {
        "" => daemon.config.cgroup_parent.clone(),
        parent if parent.starts_with('/') => parent.to_owned(),
        parent => format!("/{parent}"),
    }
}

fn namespaces(record: &Record) -> NamespaceOption {
    let mode = |text: &str, own| if text == "host" { NamespaceMode::Node } else { own };
    NamespaceOption {
        network: mode(&record.host.network_mode, NamespaceMode::Pod),
        pid: mode(&record.host.pid_mode, NamespaceMode::Container),
        ipc: mode(&record.host.ipc_mode, NamespaceMode::Pod),
    }
}

fn network(daemon: &Daemon, record: &Record) -> Result<Network> {
    let Some(other) = record.host.network_mode.strip_prefix("container:") else { return Ok(Network::Unconnected) };
    let other = validate::joined(daemon, other, "network")?;
    if other.id == record.id {
        return Err(DockerError::internal("cannot join own network namespace"));
    }
    let (state, sandbox, name) = other.look(|r| (r.state.status, r.sandbox.clone(), r.name.clone()));
    match sandbox.filter(|_| state.is_running()) {
        Some(sandbox) => Ok(Network::Sandbox(sandbox)),
        None => Err(DockerError::conflict(format!(
            "cannot join network namespace of a non running container: container {name} is {}",
            state.text()
        ))),
    }
}

/// The running container that `container:NAME` means.
fn joined(daemon: &Daemon, mode: &str, what: &str) -> Result<Option<String>> {
    let Some(other) = mode.strip_prefix("container:") else { return Ok(None) };
    let other = validate::joined(daemon, other, what)?;
    let name = mode.trim_start_matches("container:");
    if !other.status().is_running() {
        return Err(DockerError::internal(format!("failed to join {what} namespace: container {name} is not running")));
    }
    if what == "IPC" && !other.look(|r| r.host.ipc_mode == "shareable") {
        return Err(DockerError::internal(format!(
            "failed to join IPC namespace: container {name}: non-shareable IPC (hint: use IpcMode:shareable for the donor \
             container)"
        )));
    }
    Ok(Some(other.id.clone()))
}

/// The container itself.
pub(super) fn container(daemon: &Daemon, record: &Record) -> Result<(ContainerConfig, ContainerOptions)> {
    let (config, host) = (&record.config, &record.host);
    let security = SecurityOptions::parse(host.security_opt.as_deref().unwrap_or_default())?;
    let (log_max_bytes, log_files) = logging::rotation(record)?;
    let logged = host.log_config.kind != "none";
    let container = ContainerConfig {
        metadata: ContainerMetadata { name: record.id.clone(), attempt: 0 },
        image: record.image_id.clone(),
        command: std::iter::once(&record.program).chain(&record.args).cloned().collect(),
        working_dir: config.working_dir.clone(),
        envs: environment(record),
        mounts: mounts(record),
        devices: devices(record)?,
        log_path: if logged { log_name(&record.id) } else { String::new() },
        log_max_bytes,
        stdin: config.open_stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        resources: LinuxContainerResources { oom_score_adj: host.oom_score_adj, ..Default::default() },
        security: security_context(record, &security),
        stop_signal: config.stop_signal.clone(),
        ..ContainerConfig::default()
    };
    let options = ContainerOptions {
        id: record.id.clone(),
        snapshot: Some(record.layer.clone()),
        volatile: host.auto_remove,
        limits: Some(Limits { block: block_limits(record)?, ..limits(record) }),
        device_rules: device_rules(record)?,
        rlimits: rlimits(record)?,
        terminal_size: terminal_size(record),
        tmpfs: tmpfs(record)?,
        init: host.init.unwrap_or(false),
        exact: true,
        user: config.user.clone(),
        groups: host.group_add.clone().unwrap_or_default(),
        pid_of: joined(daemon, &host.pid_mode, "PID")?,
        seccomp: security.profile.filter(|_| !host.privileged),
        cgroup_namespace: match host.cgroupns_mode.as_str() {
            "host" => CgroupNamespace::Host,
            "private" => CgroupNamespace::Own,
            _ => CgroupNamespace::Usual,
        },
        log_format: LogFormat::Json,
        log_files,
        log_ring: logging::ring(record),
    };
    Ok((container, options))
}

/// The file that a container's output goes to, in its folder.
pub(crate) fn log_name(id: &str) -> String {
    format!("{id}-json.log")
}

fn environment(record: &Record) -> Vec<(String, String)> {
    let mut variables = vec![PATH.to_owned(), format!("HOSTNAME={}", record.config.hostname)];
    if record.config.tty {
        variables.push("TERM=xterm".to_owned());
    }
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    for variable in record.config.env.iter().flatten() {
        let same = variables.iter().position(|v| name(v) == name(variable));
        match (variable.contains('='), same) {
            // A name alone takes the variable away.
            (false, Some(index)) => drop(variables.remove(index)),
            (false, None) => {}
            (true, Some(index)) => variables[index].clone_from(variable),
            (true, None) => variables.push(variable.clone()),
        }
    }
    let pairs = variables.iter().filter_map(|v| v.split_once('='));
    pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

fn mounts(record: &Record) -> Vec<Mount> {
    let real = record.mounts.iter().filter(|m| m.point.kind != "tmpfs");
    let mut all: Vec<Mount> = real
        .map(|kept| Mount {
            container_path: kept.point.destination.clone(),
            host_path: if kept.point.kind == "image" { String::new() } else { kept.point.source.clone() },
            readonly: !kept.point.writable,
            recursive_readonly: false,
            propagation: match kept.point.propagation.as_str() {
                "shared" | "rshared" => MountPropagation::Bidirectional,
                "slave" | "rslave" => MountPropagation::HostToContainer,
                _ => MountPropagation::Private,
            },
            sub_path: kept.sub_path.clone(),
            image: if kept.point.kind == "image" { kept.point.source.clone() } else { String::new() },
        })
        .collect();
    // What is mounted below another mount comes after it.
    all.sort_by_key(|m| Path::new(&m.container_path).components().count());
    all
}

fn tmpfs(record: &Record) -> Result<Vec<Tmpfs>> {
    let kept = record.mounts.iter().filter(|m| m.point.kind == "tmpfs");
    kept.map(|m| {
        m.tmpfs_options.iter().try_for_each(|option| check_tmpfs(option))?;
        let mut options: Vec<String> = TMPFS_DEFAULTS
            .iter()
            .filter(|default| {
                let opposite = default.strip_prefix("no").unwrap_or(default);
                !m.tmpfs_options.iter().any(|o| o == opposite)
            })
            .map(|o| (*o).to_owned())
            .collect();
        options.extend(m.tmpfs_options.iter().filter(|o| !o.is_empty()).cloned());
        Ok(Tmpfs { target: PathBuf::from(&m.point.destination), options })
    })
    .collect()
}

/// Options of a tmpfs are flags of a mount, or settings that tmpfs(5) knows.
fn check_tmpfs(option: &str) -> Result<()> {
    const FLAGS: &str = "defaults ro rw suid nosuid dev nodev exec noexec sync async dirsync remount mand nomand atime \
                         noatime diratime nodiratime bind rbind unbindable runbindable private rprivate shared rshared \
                         slave rslave relatime norelatime strictatime nostrictatime";
    const SETTINGS: [&str; 7] = ["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"];
    let words: Vec<String> = option.splitn(2, '=').map(str::to_owned).collect();
    let known = match words.as_slice() {
        [flag] => flag.is_empty() || FLAGS.split_ascii_whitespace().any(|known| known == flag),
        [setting, _] => SETTINGS.contains(&setting.as_str()),
        _ => false,
    };
    if known { Ok(()) } else { Err(DockerError::internal(format!("invalid tmpfs option {}", quote_all(&words)))) }
}

fn devices(record: &Record) -> Result<Vec<Device>> {
    let mut all = Vec::new();
    for device in record.host.devices.iter().flatten() {
        let target = if device.path_in_container.is_empty() { &device.path_on_host } else { &device.path_in_container };
        let gathered = |e: std::io::Error| {
            let what = "error gathering device information while adding custom device";
            DockerError::io(format_args!("{what} \"{}\"", device.path_on_host), e)
        };
        let metadata = std::fs::metadata(&device.path_on_host).map_err(gathered)?;
        let access = if device.cgroup_permissions.is_empty() { "rwm" } else { &device.cgroup_permissions };
        let mut add = |host: String, inside: String| {
            all.push(Device { container_path: inside, host_path: host, permissions: access.to_owned() });
        };
        if metadata.is_dir() {
            for entry in std::fs::read_dir(&device.path_on_host).map_err(gathered)?.flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let kind = entry.file_type().map_err(gathered)?;
                if !kind.is_dir() && !kind.is_file() && !kind.is_symlink() {
                    add(format!("{}/{name}", device.path_on_host), format!("{target}/{name}"));
                }
            }
        } else {
            add(device.path_on_host.clone(), target.clone());
        }
    }
    Ok(all)
}

/// Rules such as `c 1:3 mr`, `b *:* rwm`, `a`.
fn device_rules(record: &Record) -> Result<Vec<DeviceRule>> {
    let rules = record.host.device_cgroup_rules.iter().flatten();
    rules
        .map(|rule| {
            parse_rule(rule).ok_or_else(|| DockerError::invalid(format!("invalid device cgroup rule format: '{rule}'")))
        })
        .collect()
}

fn parse_rule(rule: &str) -> Option<DeviceRule> {
    let mut parts = rule.split_whitespace();
    let kind = parts.next()?.chars().next().filter(|k| "abc".contains(*k))?;
    let (major, minor) = parts.next()?.split_once(':')?;
    let access = parts.next()?;
    let number = |text: &str| if text == "*" { Some(None) } else { text.parse().ok().map(Some) };
    let plain = !access.is_empty() && access.chars().all(|c| "rwm".contains(c)) && parts.next().is_none();
    plain.then_some(())?;
    Some(DeviceRule::new(kind, number(major)?, number(minor)?, access))
}

/// Columns and rows; none where the client has no terminal.
fn terminal_size(record: &Record) -> Option<(u16, u16)> {
    let [rows, columns] = record.host.console_size.map(|n| u16::try_from(n).ok().filter(|n| *n > 0));
    Some((columns?, rows?))
}

fn rlimits(record: &Record) -> Result<Vec<(u32, u64, u64)>> {
    let limits = record.host.ulimits.iter().flatten();
    limits
        .map(|limit| {
            let number = validate::rlimit(&limit.name)
                .ok_or_else(|| DockerError::invalid(format!("invalid ulimit type: {}", limit.name)))?;
            // -1 is unlimited.
            Ok((number, limit.soft.cast_unsigned(), limit.hard.cast_unsigned()))
        })
        .collect()
}

/// What a container may use.
pub(super) fn limits(record: &Record) -> Limits {
    let host = &record.host;
    let (quota, period) = match host.nano_cpus {
        0 => (host.cpu_quota, u64::try_from(host.cpu_period).unwrap_or_default()),
        nanos => (nanos / (1_000_000_000 / CPU_PERIOD_US.cast_signed()), CPU_PERIOD_US),
    };
    Limits {
        cpu_shares: u64::try_from(host.cpu_shares).unwrap_or_default(),
        cpu_quota_us: quota,
        cpu_period_us: period,
        cpuset_cpus: host.cpuset_cpus.clone(),
        cpuset_mems: host.cpuset_mems.clone(),
        memory_bytes: host.memory,
        memory_swap_bytes: host.memory_swap,
        pids: host.pids_limit.unwrap_or_default(),
        memory_reservation_bytes: host.memory_reservation,
        memory_swappiness: host.memory_swappiness.and_then(|s| u64::try_from(s).ok()),
        kernel_tcp_bytes: host.kernel_memory_tcp,
        oom_kill_disable: host.oom_kill_disable == Some(true),
        cpu_rt_runtime_us: host.cpu_realtime_runtime,
        cpu_rt_period_us: u64::try_from(host.cpu_realtime_period).unwrap_or_default(),
        block: BlockLimits { weight: host.blkio_weight.into(), ..BlockLimits::default() },
        ..Limits::default()
    }
}

/// How much it may read from and write to which devices.
fn block_limits(record: &Record) -> Result<BlockLimits> {
    let host = &record.host;
    let of = |path: &str, value: u64| {
        DeviceValue::of(Path::new(path), value).map_err(|e| DockerError::invalid(e.to_string()))
    };
    let throttles = |list: &Option<Vec<ThrottleDevice>>| {
        list.iter().flatten().map(|device| of(&device.path, device.rate)).collect::<Result<Vec<_>>>()
    };
    let weights = host.blkio_weight_device.iter().flatten().map(|device| of(&device.path, device.weight.into()));
    Ok(BlockLimits {
        weight: host.blkio_weight.into(),
        device_weights: weights.collect::<Result<_>>()?,
        read_bytes: throttles(&host.blkio_device_read_bps)?,
        write_bytes: throttles(&host.blkio_device_write_bps)?,
        read_operations: throttles(&host.blkio_device_read_iops)?,
        write_operations: throttles(&host.blkio_device_write_iops)?,
    })
}

/// `--security-opt`, taken apart.
#[derive(Debug, Default)]
pub(super) struct SecurityOptions {
    pub no_new_privileges: bool,
    pub unconfined: bool,
    /// A profile in JSON.
    pub profile: Option<String>,
}

impl SecurityOptions {
    pub fn parse(options: &[String]) -> Result<Self> {
        let mut parsed = Self::default();
        for option in options {
            let (key, value) = option.split_once('=').or_else(|| option.split_once(':')).unwrap_or((option, ""));
            match (key, value) {
                ("no-new-privileges", "" | "true") => parsed.no_new_privileges = true,
                ("no-new-privileges", "false") | ("seccomp", "builtin") | ("label" | "apparmor", _) => {}
                ("systempaths", "unconfined") | ("writable-cgroups", "true" | "false") => {}
                ("seccomp", "unconfined") => parsed.unconfined = true,
                ("seccomp", profile) => parsed.profile = Some(profile.to_owned()),
                _ => return Err(DockerError::invalid(format!("invalid --security-opt 2: \"{option}\""))),
            }
        }
        Ok(parsed)
    }
}

fn security_context(record: &Record, options: &SecurityOptions) -> ContainerSecurityContext {
    let host = &record.host;
    let names = |list: &Option<Vec<String>>| -> Vec<String> {
        let names = list.iter().flatten().map(|n| n.to_ascii_uppercase());
        names.map(|n| n.strip_prefix("CAP_").map(str::to_owned).unwrap_or(n)).collect()
    };
    ContainerSecurityContext {
        add_capabilities: names(&host.cap_add),
        drop_capabilities: names(&host.cap_drop),
        privileged: host.privileged,
        namespaces: namespaces(record),
        readonly_rootfs: host.readonly_rootfs,
        no_new_privs: options.no_new_privileges,
        seccomp: match options.unconfined || host.privileged {
            true => SeccompProfile::Unconfined,
            false => SeccompProfile::RuntimeDefault,
        },
        masked_paths: host.masked_paths.clone().unwrap_or_default(),
        readonly_paths: host.readonly_paths.clone().unwrap_or_default(),
        ..ContainerSecurityContext::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Config, HostConfig};

    #[test]
    fn variables_replace_the_usual_ones() {
        let env = ["PATH=/bin", "A=1", "HOSTNAME"].map(str::to_owned).to_vec();
        let config = Config { hostname: "box".into(), env: Some(env), ..Config::default() };
        let record = Record { config, ..Record::default() };
        let expected = [("PATH", "/bin"), ("A", "1")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(environment(&record), expected);
    }

    #[test]
    fn processors_become_quota_and_period() {
        let host = HostConfig { nano_cpus: 1_500_000_000, ..HostConfig::default() };
        let limits = limits(&Record { host, ..Record::default() });
        assert_eq!((limits.cpu_quota_us, limits.cpu_period_us), (150_000, 100_000));
    }

    #[test]
    fn device_rules_are_read() {
        assert_eq!(parse_rule("c 1:3 mr"), Some(DeviceRule::new('c', Some(1), Some(3), "mr")));
        assert_eq!(parse_rule("b *:* rwm"), Some(DeviceRule::new('b', None, None, "rwm")));
        for bad in ["", "x 1:3 r", "c 1 r", "c 1:3", "c 1:3 q", "c 1:3 r w"] {
            assert_eq!(parse_rule(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn security_options_are_taken_apart() {
        let parse = |text: &str| SecurityOptions::parse(&[text.to_owned()]);
        assert!(parse("no-new-privileges").unwrap().no_new_privileges);
        assert!(parse("seccomp=unconfined").unwrap().unconfined);
        assert_eq!(parse("seccomp={}").unwrap().profile.as_deref(), Some("{}"));
        assert!(parse("nope=1").unwrap_err().message.contains("invalid --security-opt"));
    }
}

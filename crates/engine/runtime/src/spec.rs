//! Turns a container's configuration and its image's defaults into what the shim starts. Pure but for the list of
//! the machine's devices, which privileged containers get.

use crate::containers::{check_signal, pid_namespace};
use crate::options::CgroupNamespace;
use crate::ports::SnapshotMounts;
use crate::records::{ContainerRecord, SandboxRecord};
use crate::sandbox_files;
use crate::sandboxes::hostname;
use pintle_cri::{
    ContainerConfig, ContainerSecurityContext, CriError, CriResult, LinuxContainerResources, Mount, MountPropagation,
    NamespaceMode,
};
use pintle_linux::capability::Capabilities;
use pintle_linux::cgroup::{DeviceRule, Limits};
use pintle_linux::path::lexical;
use pintle_linux::signal;
use pintle_shim::protocol::{ContainerSpec, DeviceSpec, MountSpec, PidNamespace, ProcessSpec, Propagation, RootSpec};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Docker's and containerd's capabilities of a container that asks for nothing.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// Character devices that every container may use: null, zero, full, random, urandom, tty, console, ptmx, pts.
const DEFAULT_DEVICES: [(u32, Option<u32>); 9] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
];

const SIGTERM: i32 = 15;

/// Where a container sees its init, as in Docker.
const INIT_TARGET: &str = "/sbin/docker-init";

/// What is around a container when it starts.
pub struct Surroundings<'a> {
    pub sandbox: &'a SandboxRecord,
    /// The sandbox's folder with the files that it gives.
    pub files: PathBuf,
    pub exit_file: PathBuf,
    pub seccomp: Option<String>,
    /// The pid namespace to join, when it is that of a container elsewhere.
    pub pid: Option<PathBuf>,
    /// The program that is process 1 before the container's own.
    pub init: Option<PathBuf>,
}

/// Refuses what could never start, before anything is made.
pub fn check(record: &ContainerRecord) -> CriResult<()> {
    arguments(record)?;
    user(record)?;
    capabilities(&record.config.security)?;
    check_signal(&record.config.stop_signal)?;
    limits(record)?;
    for mount in &record.config.mounts {
        if !Path::new(&mount.container_path).is_absolute() && mount.container_path.is_empty() {
            return Err(CriError::InvalidArgument(format!("mount of {:?} has no container path", mount.host_path)));
        }
        if mount.sub_path.split('/').any(|part| part == "..") {
            return Err(CriError::InvalidArgument(format!("sub path {:?} must not contain '..'", mount.sub_path)));
        }
    }
    Ok(())
}

/// The whole specification of a container.
pub fn container(record: &ContainerRecord, around: Surroundings<'_>) -> CriResult<ContainerSpec> {
    let config = &record.config;
    let security = &config.security;
    let privileged = security.privileged;
    let hidden = |paths: &[String]| paths.iter().filter(|_| !privileged).map(PathBuf::from).collect();
    let pod_ipc = &around.sandbox.config.namespaces.ipc;
    Ok(ContainerSpec {
        id: record.id.clone(),
        root: RootSpec {
            readonly: security.readonly_rootfs,
            volatile: record.options.snapshot.is_none() || record.options.volatile,
            ..root(&record.snapshot)
        },
        pid: around.pid.clone().map_or_else(|| pid_namespace(&security.namespaces.pid), PidNamespace::At),
        own_ipc: security.namespaces.ipc == NamespaceMode::Container && *pod_ipc != NamespaceMode::Node,
        cgroup: record.cgroup.clone(),
        mounts: mounts(record, &around),
        devices: devices(config),
        privileged,
        host_cgroup_namespace: match record.options.cgroup_namespace {
            CgroupNamespace::Usual => privileged,
            CgroupNamespace::Own => false,
            CgroupNamespace::Host => true,
        },
        no_shm: around.sandbox.options.no_shm,
        masked_paths: hidden(&security.masked_paths),
        readonly_paths: hidden(&security.readonly_paths),
        process: ProcessSpec {
            args: first_arguments(record, &around)?,
            env: environment(record, &hostname(&around.sandbox.config)),
            cwd: working_directory(record),
            oom_score_adj: i32::try_from(config.resources.oom_score_adj).ok(),
            terminal: config.tty,
            terminal_size: record.options.terminal_size,
            seccomp: around.seccomp,
            limits: record.options.rlimits.clone(),
            ..identity(record)?
        },
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        log_path: Some(PathBuf::from(&record.log_path)).filter(|p| !p.as_os_str().is_empty()),
        log_max_bytes: config.log_max_bytes,
        log_files: record.options.log_files,
        log_format: record.options.log_format,
        log_ring: record.options.log_ring,
        exit_file: around.exit_file,
    })
}

/// A further process: as the first one, with other arguments.
pub fn exec(
    record: &ContainerRecord,
    sandbox: &SandboxRecord,
    command: &[String],
    tty: bool,
    seccomp: Option<String>,
) -> CriResult<ProcessSpec> {
    let mut env = environment(record, &hostname(&sandbox.config));
    if tty && !record.config.tty {
        env.push("TERM=xterm".to_owned());
    }
    Ok(ProcessSpec {
        args: command.to_vec(),
        env,
        cwd: working_directory(record),
        oom_score_adj: i32::try_from(record.config.resources.oom_score_adj).ok(),
        terminal: tty,
        limits: record.options.rlimits.clone(),
        seccomp,
        ..identity(record)?
    })
}

/// Who the process is and what it may do.
fn identity(record: &ContainerRecord) -> CriResult<ProcessSpec> {
    let security = &record.config.security;
    let groups = security
        .supplemental_groups
        .iter()
        .map(|gid| u32::try_from(*gid).map_err(|_| CriError::InvalidArgument(format!("invalid group {gid}"))));
    Ok(ProcessSpec {
        user: user(record)?,
        groups: groups.collect::<CriResult<_>>()?,
        named_groups: record.options.groups.clone(),
        only_given_groups: security.supplemental_groups_strict,
        capabilities: capabilities(security)?,
        no_new_privileges: security.no_new_privs,
        ..ProcessSpec::default()
    })
}

/// The image's entry point and command, each replaced by what the configuration says. A command without arguments
/// replaces both.
fn arguments(record: &ContainerRecord) -> CriResult<Vec<String>> {
    let (config, image) = (&record.config, &record.image);
    let (mut command, mut args) = (config.command.clone(), config.args.clone());
    if command.is_empty() && !record.options.exact {
        if args.is_empty() {
            args.clone_from(&image.cmd);
        }
        command.clone_from(&image.entrypoint);
    }
    command.append(&mut args);
    if command.is_empty() {
        return Err(CriError::InvalidArgument("no command specified".to_owned()));
    }
    Ok(command)
}

/// The arguments of the first process: with an init, that is it.
fn first_arguments(record: &ContainerRecord, around: &Surroundings<'_>) -> CriResult<Vec<String>> {
    let own = arguments(record)?;
    if around.init.is_none() {
        return Ok(own);
    }
    Ok([INIT_TARGET, "--"].map(str::to_owned).into_iter().chain(own).collect())
}

fn environment(record: &ContainerRecord, hostname: &str) -> Vec<String> {
    if record.options.exact {
        return record.config.envs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    }
    let mut variables: Vec<String> = record.image.env.iter().filter(|v| v.contains('=')).cloned().collect();
    let mut set = |name: &str, value: &str| {
        let variable = format!("{name}={value}");
        match variables.iter_mut().find(|v| v.split_once('=').is_some_and(|(n, _)| n == name)) {
            Some(old) => *old = variable,
            None => variables.push(variable),
        }
    };
    set("HOSTNAME", hostname);
    if record.config.tty {
        set("TERM", "xterm");
    }
    for (name, value) in &record.config.envs {
        set(name, value);
    }
    variables
}

fn working_directory(record: &ContainerRecord) -> PathBuf {
    let named = [&record.config.working_dir, &record.image.working_dir];
    let first = named.into_iter().find(|dir| !dir.is_empty()).map_or("/", String::as_str);
    Path::new("/").join(first)
}

/// `user[:group]`: what the configuration says, else what the image says (containerd's generateUserString).
fn user(record: &ContainerRecord) -> CriResult<String> {
    if !record.options.user.is_empty() || record.options.exact {
        return Ok(record.options.user.clone());
    }
    let security = &record.config.security;
    let mut text = match security.run_as_user {
        Some(uid) => uid.to_string(),
        None => security.run_as_username.clone(),
    };
    if let Some(gid) = security.run_as_group {
        if text.is_empty() {
            return Err(CriError::InvalidArgument(format!("user group {gid} is specified without user")));
        }
        text = format!("{text}:{gid}");
    }
    Ok(if text.is_empty() { record.image.user.clone() } else { text })
}

/// What the container may do as root.
pub fn capabilities(security: &ContainerSecurityContext) -> CriResult<Capabilities> {
    if security.privileged {
        return Ok(Capabilities::ALL);
    }
    let parse = |names: &[String]| Capabilities::parse(names.iter().map(String::as_str));
    let add = parse(&security.add_capabilities).map_err(CriError::InvalidArgument)?;
    let drop = parse(&security.drop_capabilities).map_err(CriError::InvalidArgument)?;
    let default = Capabilities::parse(DEFAULT_CAPABILITIES).map_err(CriError::Internal)?;
    // `ALL` is taken first, in either list, so that single names of the other still count.
    if drop == Capabilities::ALL {
        return Ok(if add == Capabilities::ALL { Capabilities::NONE } else { add });
    }
    Ok(default.union(add).without(drop))
}

fn mounts(record: &ContainerRecord, around: &Surroundings<'_>) -> Vec<MountSpec> {
    let config = &record.config;
    let taken: Vec<PathBuf> = config.mounts.iter().map(|m| lexical(Path::new(&m.container_path))).collect();
    let ours = sandbox_files::TARGETS.iter().filter(|(_, target)| !taken.contains(&lexical(Path::new(target))));
    let ours = ours.map(|(file, target)| MountSpec {
        target: PathBuf::from(target),
        source: sandbox_file(around, file),
        readonly: config.security.readonly_rootfs,
        ..MountSpec::default()
    });
    let tmpfs = record.options.tmpfs.iter().map(|t| MountSpec {
        target: t.target.clone(),
        tmpfs: Some(t.options.clone()),
        ..MountSpec::default()
    });
    let init = around.init.iter().map(|program| MountSpec {
        target: PathBuf::from(INIT_TARGET),
        source: program.clone(),
        readonly: true,
        ..MountSpec::default()
    });
    let mut images = record.image_mounts.iter().map(root);
    let asked = config
        .mounts
        .iter()
        .map(|asked| MountSpec { image: if asked.image.is_empty() { None } else { images.next() }, ..mount(asked) });
    ours.chain(asked).chain(tmpfs).chain(init).collect()
}

fn root(snapshot: &SnapshotMounts) -> RootSpec {
    RootSpec {
        lower: snapshot.lower_dirs.clone(),
        upper: snapshot.upper.clone(),
        work: snapshot.work.clone(),
        ..RootSpec::default()
    }
}

/// One of the files that the sandbox gives.
fn sandbox_file(around: &Surroundings<'_>, name: &str) -> PathBuf {
    match (&around.sandbox.options.files, name) {
        (Some(files), sandbox_files::HOSTNAME) => files.hostname.clone(),
        (Some(files), sandbox_files::HOSTS) => files.hosts.clone(),
        (Some(files), sandbox_files::RESOLV_CONF) => files.resolv_conf.clone(),
        _ => around.files.join(name),
    }
}

fn mount(mount: &Mount) -> MountSpec {
    MountSpec {
        target: PathBuf::from(&mount.container_path),
        source: PathBuf::from(&mount.host_path),
        sub_path: PathBuf::from(&mount.sub_path),
        readonly: mount.readonly,
        tmpfs: None,
        image: None,
        recursive_readonly: mount.recursive_readonly,
        propagation: match mount.propagation {
            MountPropagation::Private => Propagation::Private,
            MountPropagation::HostToContainer => Propagation::FromHost,
            MountPropagation::Bidirectional => Propagation::BothWays,
        },
    }
}

fn devices(config: &ContainerConfig) -> Vec<DeviceSpec> {
    let named = config.devices.iter();
    let mut devices: Vec<DeviceSpec> = named
        .map(|d| DeviceSpec { target: PathBuf::from(&d.container_path), source: PathBuf::from(&d.host_path) })
        .collect();
    if config.security.privileged {
        host_devices(Path::new("/dev"), &mut devices);
    }
    devices
}

/// All device nodes of the machine but terminals, as containerd gives them to privileged containers.
fn host_devices(directory: &Path, devices: &mut Vec<DeviceSpec>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let Ok(kind) = entry.file_type() else { continue };
        let skipped = ["pts", "shm", "mqueue", "fd", "console", ".lxc", ".lxd-mounts", ".udev"];
        if skipped.iter().any(|s| name == *s) {
            continue;
        }
        if kind.is_dir() {
            host_devices(&path, devices);
        } else if kind.is_char_device() || kind.is_block_device() {
            devices.push(DeviceSpec { target: path.clone(), source: path });
        }
    }
}

/// The limits of a container's cgroup, with the devices that it may use.
pub fn limits(record: &ContainerRecord) -> CriResult<Limits> {
    let mut rules = device_rules(&record.config);
    rules.extend(record.options.device_rules.iter().cloned());
    let limits = match &record.options.limits {
        Some(limits) => limits.clone(),
        None => resource_limits(&record.config.resources)?,
    };
    Ok(Limits { devices: Some(rules), ..limits })
}

/// The same without devices, to change a container that runs.
pub fn resource_limits(resources: &LinuxContainerResources) -> CriResult<Limits> {
    let positive = |value: i64, what: &str| {
        u64::try_from(value).map_err(|_| CriError::InvalidArgument(format!("{what} must not be negative: {value}")))
    };
    Ok(Limits {
        cpu_shares: positive(resources.cpu_shares, "cpu shares")?,
        cpu_quota_us: resources.cpu_quota,
        cpu_period_us: positive(resources.cpu_period, "cpu period")?,
        cpuset_cpus: resources.cpuset_cpus.clone(),
        cpuset_mems: resources.cpuset_mems.clone(),
        memory_bytes: resources.memory_limit_in_bytes,
        memory_swap_bytes: resources.memory_swap_limit_in_bytes,
        pids: resources.pids_limit,
        hugepages: resources.hugepage_limits.clone(),
        unified: resources.unified.clone(),
        ..Limits::default()
    })
}

fn device_rules(config: &ContainerConfig) -> Vec<DeviceRule> {
    if config.security.privileged {
        return vec![DeviceRule::everything()];
    }
    // Nodes may be made, since without the right to use them they are of no use.
    let mut rules = vec![DeviceRule::new('c', None, None, "m"), DeviceRule::new('b', None, None, "m")];
    rules.extend(DEFAULT_DEVICES.iter().map(|(major, minor)| DeviceRule::new('c', Some(*major), *minor, "rwm")));
    for device in &config.devices {
        let Ok(metadata) = std::fs::metadata(&device.host_path) else { continue };
        let kind = if metadata.file_type().is_block_device() { 'b' } else { 'c' };
        let access = if device.permissions.is_empty() { "rwm" } else { &device.permissions };
        let (major, minor) = (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
        rules.push(DeviceRule::new(kind, Some(major), Some(minor), access));
    }
    rules
}

/// The number of the signal that asks a container to end.
pub fn stop_signal(record: &ContainerRecord) -> i32 {
    let named = [&record.config.stop_signal, &record.image.stop_signal];
    named.into_iter().find_map(|name| signal::parse(name)).unwrap_or(SIGTERM)
}

#[cfg(test)]
mod tests;

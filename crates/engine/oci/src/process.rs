//! The `process` of a configuration in the words of the start path.

use crate::bundle::{CapabilityNames, Config, Process};
use crate::{Error, Result, refuse};
use pintle_linux::capability::{Capabilities, Sets};
use pintle_shim::protocol::ProcessSpec;

/// Names and numbers of getrlimit(2).
const LIMITS: [&str; 16] = [
    "CPU",
    "FSIZE",
    "DATA",
    "STACK",
    "CORE",
    "RSS",
    "NPROC",
    "NOFILE",
    "MEMLOCK",
    "AS",
    "LOCKS",
    "SIGPENDING",
    "MSGQUEUE",
    "NICE",
    "RTPRIO",
    "RTTIME",
];

/// What the start path is told of a process of this container.
pub fn translate(process: &Process, config: &Config, kept_descriptors: u32) -> Result<ProcessSpec> {
    check(process)?;
    let (bounding, sets) = capabilities(process.capabilities.as_ref())?;
    Ok(ProcessSpec {
        args: process.args.clone(),
        env: process.env.clone(),
        cwd: process.cwd.clone(),
        user: format!("{}:{}", process.user.uid, process.user.gid),
        groups: process.user.additional_gids.clone(),
        only_given_groups: true,
        exact: true,
        umask: process.user.umask,
        capabilities: bounding,
        capability_sets: Some(sets),
        no_new_privileges: process.no_new_privileges,
        seccomp: seccomp(config, bounding)?,
        terminal: process.terminal,
        terminal_size: process.console_size.map(|size| (size.width, size.height)),
        oom_score_adj: process.oom_score_adj,
        limits: limits(process)?,
        kept_descriptors,
        ..ProcessSpec::default()
    })
}

fn check(process: &Process) -> Result<()> {
    if process.args.is_empty() {
        return refuse("args must not be empty");
    }
    if !process.cwd.is_absolute() {
        return refuse(format!("Cwd must be an absolute path, not {:?}", process.cwd.display().to_string()));
    }
    if !["", "unconfined"].contains(&process.apparmor_profile.as_str()) {
        return refuse("apparmorProfile is set, but AppArmor is not supported");
    }
    if !process.selinux_label.is_empty() {
        return refuse("selinuxLabel is set, but SELinux is not supported");
    }
    if process.scheduler.is_some() || process.io_priority.is_some() {
        return refuse("process.scheduler and process.ioPriority are not supported");
    }
    Ok(())
}

/// A process that names no capabilities has none.
fn capabilities(names: Option<&CapabilityNames>) -> Result<(Capabilities, Sets)> {
    let none = CapabilityNames::default();
    let names = names.unwrap_or(&none);
    // A name that this runtime does not know is left out, as the specification has it.
    let set = |names: &[String]| {
        names
            .iter()
            .filter_map(|n| Capabilities::parse([n.as_str()]).ok())
            .fold(Capabilities::NONE, Capabilities::union)
    };
    let sets = Sets {
        effective: set(&names.effective),
        permitted: set(&names.permitted),
        inheritable: set(&names.inheritable),
        ambient: set(&names.ambient),
    };
    Ok((set(&names.bounding), sets))
}

fn seccomp(config: &Config, capabilities: Capabilities) -> Result<Option<String>> {
    let Some(profile) = &config.linux.seccomp else { return Ok(None) };
    let failed = |e: String| Error::new(format!("linux.seccomp: {e}"));
    let profile = pintle_seccomp::oci::parse(profile.to_string().as_bytes(), capabilities).map_err(failed)?;
    Ok(Some(pintle_seccomp::program(&profile).map_err(failed)?))
}

fn limits(process: &Process) -> Result<Vec<(u32, u64, u64)>> {
    let mut limits: Vec<(u32, u64, u64)> = Vec::new();
    for limit in &process.rlimits {
        let number = limit.kind.strip_prefix("RLIMIT_").and_then(|name| LIMITS.iter().position(|n| *n == name));
        let Some(number) = number.and_then(|n| u32::try_from(n).ok()) else {
            return refuse(format!("invalid rlimit type: {}", limit.kind));
        };
        if limits.iter().any(|(n, ..)| *n == number) {
            return refuse(format!("rlimits: {} is given twice", limit.kind));
        }
        limits.push((number, limit.soft, limit.hard));
    }
    Ok(limits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Rlimit;

    #[test]
    fn limits_are_numbered_as_the_kernel_has_them() {
        let rlimits = ["RLIMIT_CPU", "RLIMIT_NOFILE", "RLIMIT_RTTIME"]
            .map(|kind| Rlimit { kind: kind.to_owned(), soft: 1, hard: 2 })
            .to_vec();
        let numbers: Vec<u32> =
            limits(&Process { rlimits, ..Process::default() }).unwrap().iter().map(|l| l.0).collect();
        assert_eq!(numbers, [libc::RLIMIT_CPU, libc::RLIMIT_NOFILE, libc::RLIMIT_RTTIME]);
        let rlimits = vec![Rlimit { kind: "RLIMIT_FUN".to_owned(), soft: 1, hard: 2 }];
        assert!(limits(&Process { rlimits, ..Process::default() }).is_err());
    }
}

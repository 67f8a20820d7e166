//! Completes a container's settings: Docker's defaults, and what its image says.

use crate::error::{DockerError, Result};
use crate::model::{Config, HealthConfig, HostConfig};
use pintle_cri::{MASKED_PATHS, READONLY_PATHS};
use std::collections::BTreeMap;

/// Bytes of /dev/shm.
const SHM_BYTES: i64 = 64 << 20;

/// Fills in what was not said of a container's running.
pub(super) fn complete(host: &mut HostConfig, cgroups_v2: bool) {
    let fill = |field: &mut String, value: &str| {
        if field.is_empty() {
            value.clone_into(field);
        }
    };
    if matches!(host.network_mode.as_str(), "" | "default") {
        "bridge".clone_into(&mut host.network_mode);
    }
    fill(&mut host.log_config.kind, "json-file");
    fill(&mut host.restart_policy.name, "no");
    fill(&mut host.ipc_mode, "private");
    fill(&mut host.cgroupns_mode, if cgroups_v2 && !host.privileged { "private" } else { "host" });
    fill(&mut host.runtime, "runc");
    if host.shm_size == 0 {
        host.shm_size = SHM_BYTES;
    }
    if host.memory > 0 && host.memory_swap == 0 {
        host.memory_swap = host.memory.saturating_mul(2);
    }
    host.oom_kill_disable.get_or_insert(false);
    host.memory_swappiness = host.memory_swappiness.filter(|s| *s != -1);
    host.pids_limit = host.pids_limit.filter(|p| *p > 0);
    if !host.privileged {
        let list = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        host.masked_paths.get_or_insert_with(|| list(&MASKED_PATHS));
        host.readonly_paths.get_or_insert_with(|| list(&READONLY_PATHS));
    }
}

/// A container without a name of its own is called by its id; on the machine's network by the machine's name.
pub(super) fn hostname(config: &mut Config, host: &HostConfig, id: &str) {
    if !config.hostname.is_empty() || host.network_mode.starts_with("container:") {
        return;
    }
    config.hostname = if host.network_mode == "host" || host.uts_mode == "host" {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    } else {
        id[..12].to_owned()
    };
}

/// Takes from the image what the container does not say itself.
pub(super) fn merge(mut own: Config, image: Config) -> Result<Config> {
    take_command(&mut own, &image);
    if own.user.is_empty() {
        own.user = image.user;
    }
    union(&mut own.exposed_ports, image.exposed_ports);
    union(&mut own.volumes, image.volumes);
    union(&mut own.labels, image.labels);
    own.labels.get_or_insert_default();
    own.volumes = own.volumes.filter(|volumes| !volumes.is_empty());
    let env = own.env.get_or_insert_default();
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    for variable in image.env.into_iter().flatten() {
        if !env.iter().any(|v| name(v) == name(&variable)) {
            env.push(variable);
        }
    }
    own.healthcheck = health(own.healthcheck.take(), image.healthcheck);
    if own.working_dir.is_empty() {
        own.working_dir = image.working_dir;
    }
    if own.stop_signal.is_empty() {
        own.stop_signal = image.stop_signal;
    }
    if own.shell.is_none() {
        own.shell = image.shell;
    }
    if own.entrypoint.iter().flatten().chain(own.cmd.iter().flatten()).next().is_none() {
        return Err(DockerError::invalid("no command specified"));
    }
    Ok(own)
}

fn take_command(own: &mut Config, image: &Config) {
    let empty = |words: &Option<Vec<String>>| words.as_ref().is_none_or(Vec::is_empty);
    if empty(&own.entrypoint) {
        if empty(&own.cmd) {
            own.cmd.clone_from(&image.cmd);
        }
        if own.entrypoint.is_none() {
            own.entrypoint.clone_from(&image.entrypoint);
        }
    }
    // One empty word says: none, not even the image's.
    if own.entrypoint.as_deref().is_some_and(|words| matches!(words, [word] if word.is_empty())) {
        own.entrypoint = None;
    }
}

fn union<T>(own: &mut Option<BTreeMap<String, T>>, image: Option<BTreeMap<String, T>>) {
    for (key, value) in image.into_iter().flatten() {
        own.get_or_insert_default().entry(key).or_insert(value);
    }
}

fn health(own: Option<HealthConfig>, image: Option<HealthConfig>) -> Option<HealthConfig> {
    let (Some(mut own), Some(image)) = (own.clone(), image.clone()) else { return own.or(image) };
    if own.test.is_empty() {
        own.test = image.test;
    }
    for (mine, theirs) in [
        (&mut own.interval, image.interval),
        (&mut own.timeout, image.timeout),
        (&mut own.start_period, image.start_period),
        (&mut own.start_interval, image.start_interval),
        (&mut own.retries, image.retries),
    ] {
        if *mine == 0 {
            *mine = theirs;
        }
    }
    Some(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(words: &[&str]) -> Option<Vec<String>> {
        Some(words.iter().map(|w| (*w).to_owned()).collect())
    }

    /// The command that a container has: its own entry point and command, then those of the image.
    fn check(own: [Option<Vec<String>>; 2], image: [Option<Vec<String>>; 2], expected: Option<&str>) {
        let config = |[entrypoint, cmd]: [Option<Vec<String>>; 2]| Config { entrypoint, cmd, ..Config::default() };
        let merged = merge(config(own), config(image)).ok().map(|c| {
            let words = c.entrypoint.into_iter().flatten().chain(c.cmd.into_iter().flatten());
            words.collect::<Vec<_>>().join(" ")
        });
        assert_eq!(merged.as_deref(), expected);
    }

    #[test]
    fn commands_of_container_and_image_meet_as_with_docker() {
        check([None, None], [list(&["e"]), list(&["c"])], Some("e c"));
        check([None, list(&["x"])], [list(&["e"]), list(&["c"])], Some("e x"));
        check([list(&["y"]), None], [list(&["e"]), list(&["c"])], Some("y"));
        check([list(&[""]), list(&["x"])], [list(&["e"]), list(&["c"])], Some("x"));
        check([None, None], [None, None], None);
    }

    #[test]
    fn variables_of_the_container_win() {
        let own = Config { env: list(&["A=1"]), cmd: list(&["x"]), ..Config::default() };
        let image = Config { env: list(&["A=0", "B=2"]), ..Config::default() };
        assert_eq!(merge(own, image).unwrap().env, list(&["A=1", "B=2"]));
    }
}

//! Changes the limits and the restart policy of a container, while it runs too.

use super::record::Status;
use super::{spec, validate};
use crate::daemon::Daemon;
use crate::error::{DockerError, Result};
use crate::model::{Config, HostConfig, RestartPolicy};

/// What is to change: zero and empty leave what is there.
#[derive(Clone, Debug, Default)]
pub struct Update {
    pub resources: HostConfig,
    pub restart_policy: RestartPolicy,
}

impl Daemon {
    /// Returns warnings.
    ///
    /// # Errors
    /// 400 for values out of bounds; what runs is as it was then.
    pub async fn update_container(&self, wanted: &str, update: &Update) -> Result<Vec<String>> {
        let container = self.container(wanted)?;
        let _changing = container.changing.lock().await;
        let mut record = container.record();
        let failed =
            |e: DockerError| DockerError::new(e.status, format!("Cannot update container {}: {e}", container.id));
        if matches!(record.state.status, Status::Removing | Status::Dead) {
            return Err(failed(DockerError::conflict("container is marked for removal and cannot be \"update\"")));
        }
        merge(&mut record.host, update);
        let host = &record.host;
        validate::memory(&Config::default(), host)?;
        validate::processors(&Config::default(), host)?;
        validate::block_io(&Config::default(), host)?;
        validate::restart_policy(&host.restart_policy)?;
        let restarts = !matches!(host.restart_policy.name.as_str(), "" | "no");
        if host.auto_remove && restarts {
            return Err(failed(DockerError::conflict(
                "restart policy cannot be updated because AutoRemove is enabled for the container",
            )));
        }
        let mut warnings = Vec::new();
        if record.state.status.is_running() && record.state.status != Status::Restarting {
            warnings = self.engine.update_limits(&container.id, spec::limits(&record)).await?;
        }
        self.change(&container, |r| r.host = record.host)?;
        self.tell_of(&container, "update", &[]);
        Ok(warnings)
    }
}

fn merge(host: &mut HostConfig, update: &Update) {
    let new = &update.resources;
    for (old, new) in [
        (&mut host.cpu_shares, new.cpu_shares),
        (&mut host.memory, new.memory),
        (&mut host.memory_swap, new.memory_swap),
        (&mut host.memory_reservation, new.memory_reservation),
        (&mut host.nano_cpus, new.nano_cpus),
        (&mut host.cpu_period, new.cpu_period),
        (&mut host.cpu_quota, new.cpu_quota),
        (&mut host.cpu_realtime_period, new.cpu_realtime_period),
        (&mut host.cpu_realtime_runtime, new.cpu_realtime_runtime),
    ] {
        if new != 0 {
            *old = new;
        }
    }
    for (old, new) in [(&mut host.cpuset_cpus, &new.cpuset_cpus), (&mut host.cpuset_mems, &new.cpuset_mems)] {
        if !new.is_empty() {
            old.clone_from(new);
        }
    }
    if new.blkio_weight != 0 {
        host.blkio_weight = new.blkio_weight;
    }
    if let Some(pids) = new.pids_limit.filter(|p| *p != 0) {
        host.pids_limit = (pids > 0).then_some(pids);
    }
    if !update.restart_policy.name.is_empty() {
        host.restart_policy = update.restart_policy.clone();
    }
}

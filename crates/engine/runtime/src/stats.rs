//! What containers use, from their cgroups and layers.

use crate::engine::{Container, Engine};
use crate::error::blocking;
use crate::records::ContainerPhase;
use pintle_cri::{ContainerFilter, ContainerStats, CriResult};
use pintle_linux::cgroup::Stats;
use std::sync::Arc;

impl Engine {
    pub(crate) async fn stats_of(&self, container: &Arc<Container>) -> CriResult<ContainerStats> {
        let record = container.record.lock().clone();
        let usage = if record.phase == ContainerPhase::Running {
            let (cgroups, cgroup) = (self.cgroups.clone(), record.cgroup.clone());
            // It may end meanwhile, with its cgroup.
            blocking(move || cgroups.stats(&cgroup)).await.unwrap_or_default()
        } else {
            Stats::default()
        };
        let layer = self.images.snapshot_usage(&record.id).await.unwrap_or_default();
        Ok(ContainerStats {
            id: record.id,
            metadata: record.config.metadata,
            labels: record.config.labels,
            timestamp: self.now(),
            cpu_usage_nanos: usage.cpu_usage_nanos,
            memory_usage_bytes: usage.memory_usage_bytes,
            memory_working_set_bytes: usage.memory_working_set_bytes,
            memory_rss_bytes: usage.memory_rss_bytes,
            pids: usage.pids,
            writable_layer_bytes: layer.bytes,
            writable_layer_inodes: layer.inodes,
        })
    }

    /// Of those that run, as containerd answers.
    pub(crate) async fn stats_list(&self, filter: &ContainerFilter) -> CriResult<Vec<ContainerStats>> {
        let mut all = Vec::new();
        for shown in self.container_list(filter) {
            if let Ok(container) = self.container(&shown.id)
                && container.phase() == ContainerPhase::Running
            {
                all.push(self.stats_of(&container).await?);
            }
        }
        Ok(all)
    }
}

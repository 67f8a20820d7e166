//! What containers and images use.

use crate::messages as m;
use pintle_cri as cri;

pub(crate) fn number(value: u64) -> Option<m::UInt64Value> {
    Some(m::UInt64Value { value })
}

fn value(of: Option<m::UInt64Value>) -> u64 {
    of.map_or(0, |of| of.value)
}

pub(crate) fn fs_usage(of: cri::FilesystemUsage) -> m::FilesystemUsage {
    m::FilesystemUsage {
        timestamp: of.timestamp,
        fs_id: Some(m::FilesystemIdentifier { mountpoint: of.mountpoint }),
        used_bytes: number(of.used_bytes),
        inodes_used: number(of.inodes_used),
    }
}

pub(crate) fn of_usage(of: m::FilesystemUsage) -> cri::FilesystemUsage {
    cri::FilesystemUsage {
        timestamp: of.timestamp,
        mountpoint: of.fs_id.unwrap_or_default().mountpoint,
        used_bytes: value(of.used_bytes),
        inodes_used: value(of.inodes_used),
    }
}

impl From<cri::ContainerStats> for m::ContainerStats {
    fn from(of: cri::ContainerStats) -> Self {
        let timestamp = of.timestamp;
        let attributes = m::ContainerAttributes {
            id: of.id,
            metadata: Some(of.metadata.into()),
            labels: of.labels,
            annotations: Default::default(),
        };
        let memory = m::MemoryUsage {
            timestamp,
            working_set_bytes: number(of.memory_working_set_bytes),
            usage_bytes: number(of.memory_usage_bytes),
            rss_bytes: number(of.memory_rss_bytes),
            ..Default::default()
        };
        let layer = m::FilesystemUsage {
            timestamp,
            fs_id: None,
            used_bytes: number(of.writable_layer_bytes),
            inodes_used: number(of.writable_layer_inodes),
        };
        let usage_core_nano_seconds = number(of.cpu_usage_nanos);
        Self {
            attributes: Some(attributes),
            cpu: Some(m::CpuUsage { timestamp, usage_core_nano_seconds, usage_nano_cores: None, psi: None }),
            memory: Some(memory),
            writable_layer: Some(layer),
            swap: None,
            io: None,
        }
    }
}

/// The number of processes is told of whole pods only, and 0 here.
impl From<m::ContainerStats> for cri::ContainerStats {
    fn from(of: m::ContainerStats) -> Self {
        let (attributes, cpu) = (of.attributes.unwrap_or_default(), of.cpu.unwrap_or_default());
        let (memory, layer) = (of.memory.unwrap_or_default(), of.writable_layer.unwrap_or_default());
        Self {
            id: attributes.id,
            metadata: attributes.metadata.unwrap_or_default().into(),
            labels: attributes.labels,
            timestamp: cpu.timestamp.max(memory.timestamp),
            cpu_usage_nanos: value(cpu.usage_core_nano_seconds),
            memory_usage_bytes: value(memory.usage_bytes).max(value(memory.working_set_bytes.clone())),
            memory_working_set_bytes: value(memory.working_set_bytes),
            memory_rss_bytes: value(memory.rss_bytes),
            pids: 0,
            writable_layer_bytes: value(layer.used_bytes),
            writable_layer_inodes: value(layer.inodes_used),
        }
    }
}

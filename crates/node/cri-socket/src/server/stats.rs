//! What containers and sandboxes use, as numbers and as metrics.

use super::{Served, done, in_chunks};
use crate::convert::{number, of_cri};
use crate::messages as m;
use pintle_cri::{ContainerFilter, ContainerStats, PodSandbox, PodSandboxFilter};
use pintle_grpc::{Answer, Call, Status};
use std::collections::{BTreeMap, HashMap};

const COUNTER: i32 = 0;
const GAUGE: i32 = 1;

/// A metric: its name, help, type, and value.
type Metric = (&'static str, &'static str, i32, fn(&ContainerStats) -> u64);

const METRICS: [Metric; 6] = [
    ("container_cpu_usage_seconds_total", "Cumulative cpu time consumed in seconds.", COUNTER, |of| {
        of.cpu_usage_nanos / 1_000_000_000
    }),
    ("container_memory_usage_bytes", "Current memory usage in bytes.", GAUGE, |of| of.memory_usage_bytes),
    ("container_memory_working_set_bytes", "Current working set in bytes.", GAUGE, |of| of.memory_working_set_bytes),
    ("container_memory_rss", "Size of RSS in bytes.", GAUGE, |of| of.memory_rss_bytes),
    ("container_processes", "Number of processes running inside the container.", GAUGE, |of| of.pids),
    ("container_fs_usage_bytes", "Number of bytes that are consumed by the container.", GAUGE, |of| {
        of.writable_layer_bytes
    }),
];
const LABELS: [&str; 2] = ["id", "name"];

fn some(id: String) -> Option<String> {
    Some(id).filter(|id| !id.is_empty())
}

fn container_filter(filter: Option<m::ContainerStatsFilter>) -> ContainerFilter {
    let of = filter.unwrap_or_default();
    ContainerFilter { id: some(of.id), state: None, sandbox_id: some(of.pod_sandbox_id), labels: of.label_selector }
}

fn sandbox_filter(filter: Option<m::PodSandboxStatsFilter>) -> PodSandboxFilter {
    let of = filter.unwrap_or_default();
    PodSandboxFilter { id: some(of.id), state: None, labels: of.label_selector }
}

impl Served {
    pub(super) async fn about_usage(&self, verb: &str, call: &Call) -> Result<Answer, Status> {
        let runtime = &self.runtime;
        match verb {
            "ContainerStats" => {
                let asked: m::ContainerStatsRequest = call.request()?;
                let stats = runtime.container_stats(&asked.container_id).await;
                done(stats.map(|stats| m::ContainerStatsResponse { stats: Some(stats.into()) }))
            }
            "ListContainerStats" => {
                let asked: m::ListContainerStatsRequest = call.request()?;
                let stats = runtime.list_container_stats(container_filter(asked.filter)).await;
                done(
                    stats.map(|stats| m::ListContainerStatsResponse {
                        stats: stats.into_iter().map(Into::into).collect(),
                    }),
                )
            }
            "StreamContainerStats" => {
                let asked: m::StreamContainerStatsRequest = call.request()?;
                let stats = runtime.list_container_stats(container_filter(asked.filter)).await.map_err(of_cri)?;
                Ok(in_chunks(stats, |stats| m::StreamContainerStatsResponse {
                    container_stats: stats.into_iter().map(Into::into).collect(),
                }))
            }
            "PodSandboxStats" => {
                let asked: m::PodSandboxStatsRequest = call.request()?;
                let status = runtime.pod_sandbox_status(&asked.pod_sandbox_id).await.map_err(of_cri)?;
                let filter = PodSandboxFilter { id: Some(status.id), ..PodSandboxFilter::default() };
                let stats = self.sandbox_stats(filter).await?.pop();
                Ok(Answer::once(&m::PodSandboxStatsResponse { stats }))
            }
            "ListPodSandboxStats" => {
                let asked: m::ListPodSandboxStatsRequest = call.request()?;
                let stats = self.sandbox_stats(sandbox_filter(asked.filter)).await?;
                Ok(Answer::once(&m::ListPodSandboxStatsResponse { stats }))
            }
            "StreamPodSandboxStats" => {
                let asked: m::StreamPodSandboxStatsRequest = call.request()?;
                let stats = self.sandbox_stats(sandbox_filter(asked.filter)).await?;
                Ok(in_chunks(stats, |pod_sandbox_stats| m::StreamPodSandboxStatsResponse { pod_sandbox_stats }))
            }
            "ListMetricDescriptors" => {
                Ok(Answer::once(&m::ListMetricDescriptorsResponse { descriptors: descriptors() }))
            }
            "ListPodSandboxMetrics" => {
                let pod_metrics = self.metrics().await?;
                Ok(Answer::once(&m::ListPodSandboxMetricsResponse { pod_metrics }))
            }
            "StreamPodSandboxMetrics" => Ok(in_chunks(self.metrics().await?, |pod_sandbox_metrics| {
                m::StreamPodSandboxMetricsResponse { pod_sandbox_metrics }
            })),
            _ => Err(Status::unknown_method(&call.method)),
        }
    }

    /// Sandboxes with the usage of their running containers.
    async fn by_sandbox(&self, filter: PodSandboxFilter) -> Result<Vec<(PodSandbox, Vec<ContainerStats>)>, Status> {
        let in_sandbox = ContainerFilter { sandbox_id: filter.id.clone(), ..ContainerFilter::default() };
        let sandboxes = self.runtime.list_pod_sandbox(filter).await.map_err(of_cri)?;
        let containers = self.runtime.list_containers(in_sandbox.clone()).await.map_err(of_cri)?;
        let owners: HashMap<String, String> = containers.into_iter().map(|of| (of.id, of.sandbox_id)).collect();
        let mut of_sandbox: HashMap<&str, Vec<ContainerStats>> = HashMap::new();
        for stats in self.runtime.list_container_stats(in_sandbox).await.map_err(of_cri)? {
            if let Some(owner) = owners.get(&stats.id) {
                of_sandbox.entry(owner).or_default().push(stats);
            }
        }
        let with = |sandbox: PodSandbox| {
            let stats = of_sandbox.remove(sandbox.id.as_str()).unwrap_or_default();
            (sandbox, stats)
        };
        Ok(sandboxes.into_iter().map(with).collect())
    }

    async fn sandbox_stats(&self, filter: PodSandboxFilter) -> Result<Vec<m::PodSandboxStats>, Status> {
        Ok(self.by_sandbox(filter).await?.into_iter().map(|(sandbox, stats)| sum(sandbox, stats)).collect())
    }

    async fn metrics(&self) -> Result<Vec<m::PodSandboxMetrics>, Status> {
        let of_container = |of: ContainerStats| m::ContainerMetrics {
            metrics: METRICS.iter().map(|metric| measured(metric, &of)).collect(),
            container_id: of.id,
        };
        let of_sandbox = |(sandbox, stats): (PodSandbox, Vec<ContainerStats>)| m::PodSandboxMetrics {
            pod_sandbox_id: sandbox.id,
            metrics: Vec::new(),
            container_metrics: stats.into_iter().map(of_container).collect(),
        };
        Ok(self.by_sandbox(PodSandboxFilter::default()).await?.into_iter().map(of_sandbox).collect())
    }
}

fn measured((name, _, kind, value): &Metric, of: &ContainerStats) -> m::Metric {
    m::Metric {
        name: (*name).to_owned(),
        timestamp: of.timestamp,
        metric_type: *kind,
        label_values: vec![of.id.clone(), of.metadata.name.clone()],
        value: number(value(of)),
    }
}

fn descriptors() -> Vec<m::MetricDescriptor> {
    let descriptor = |(name, help, _, _): &Metric| m::MetricDescriptor {
        name: (*name).to_owned(),
        help: (*help).to_owned(),
        label_keys: LABELS.map(str::to_owned).to_vec(),
    };
    METRICS.iter().map(descriptor).collect()
}

/// A sandbox uses what its containers use: its own process does nothing.
fn sum(sandbox: PodSandbox, stats: Vec<ContainerStats>) -> m::PodSandboxStats {
    let timestamp = stats.iter().map(|of| of.timestamp).max().unwrap_or_default();
    let all = |part: fn(&ContainerStats) -> u64| number(stats.iter().map(part).sum());
    let linux = m::LinuxPodSandboxStats {
        cpu: Some(m::CpuUsage {
            timestamp,
            usage_core_nano_seconds: all(|of| of.cpu_usage_nanos),
            ..Default::default()
        }),
        memory: Some(m::MemoryUsage {
            timestamp,
            working_set_bytes: all(|of| of.memory_working_set_bytes),
            usage_bytes: all(|of| of.memory_usage_bytes),
            rss_bytes: all(|of| of.memory_rss_bytes),
            ..Default::default()
        }),
        network: None,
        process: Some(m::ProcessUsage { timestamp, process_count: all(|of| of.pids) }),
        containers: Vec::new(),
        io: None,
    };
    let attributes = m::PodSandboxAttributes {
        id: sandbox.id,
        metadata: Some(sandbox.metadata.into()),
        labels: sandbox.labels,
        annotations: BTreeMap::new(),
    };
    let containers = stats.into_iter().map(Into::into).collect();
    m::PodSandboxStats { attributes: Some(attributes), linux: Some(m::LinuxPodSandboxStats { containers, ..linux }) }
}

//! The kubelet's metrics in the text format of Prometheus, by upstream's names.

use super::{Body, State, respond};
use crate::static_pods::is_mirror;
use crate::stats::machine_use::Filesystem;
use crate::stats::{ContainerUse, PodUse, Snapshot, Usage};
use http::{Response, StatusCode};
use pintle_cri::{ContainerState, CriResult, PodSandboxFilter, Runtime, SandboxState};
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::Pod;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

/// One line of a family: labels, value, and when it was measured (milliseconds; nothing is "now").
struct Sample {
    labels: String,
    value: f64,
    at: Option<i64>,
}

fn sample(labels: String, value: f64, usage: &Usage) -> Sample {
    Sample { labels, value, at: Some(usage.at / 1_000_000) }
}

fn family(text: &mut String, name: &str, kind: &str, help: &str, samples: impl IntoIterator<Item = Sample>) {
    let mut samples = samples.into_iter().peekable();
    if samples.peek().is_none() {
        return;
    }
    // Writing to a string can't fail, here and below.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for Sample { labels, value, at } in samples {
        let labels = if labels.is_empty() { labels } else { format!("{{{labels}}}") };
        let at = at.map(|at| format!(" {at}")).unwrap_or_default();
        let _ = writeln!(text, "{name}{labels} {value}{at}");
    }
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

fn of_pod(pod: &PodUse) -> String {
    format!("namespace=\"{}\",pod=\"{}\"", pod.namespace, pod.name)
}

fn of_container(pod: &PodUse, container: &ContainerUse) -> String {
    format!("container=\"{}\",{}", container.name, of_pod(pod))
}

/// A sample of every container.
fn containers<'a>(
    pods: &'a [PodUse],
    value: impl Fn(&ContainerUse) -> f64 + Copy + 'a,
) -> impl Iterator<Item = Sample> + 'a {
    pods.iter().flat_map(move |p| p.containers.iter().map(move |c| sample(of_container(p, c), value(c), &c.usage)))
}

/// `/metrics/resource`: what autoscalers and `kubectl top` are made from.
pub async fn resource(state: &State) -> Response<Body> {
    let looked = state.stats.look(false).await;
    respond::text(StatusCode::OK, resource_text(&looked))
}

fn resource_text(looked: &CriResult<Snapshot>) -> String {
    let mut text = String::new();
    if let Ok(snapshot) = looked {
        let (node, pods) = (&snapshot.node, &snapshot.pods);
        let help = "[STABLE] Cumulative cpu time consumed by the container in core-seconds";
        let values = containers(pods, |c| seconds(c.usage.cpu_nanos));
        family(&mut text, "container_cpu_usage_seconds_total", "counter", help, values);
        let help = "[STABLE] Current working set of the container in bytes";
        let values = containers(pods, |c| c.usage.working_set as f64);
        family(&mut text, "container_memory_working_set_bytes", "gauge", help, values);
        let help = "[STABLE] Start time of the container since unix epoch in seconds";
        let values = containers(pods, |c| c.started_at as f64 / 1e9).map(|s| Sample { at: None, ..s });
        family(&mut text, "container_start_time_seconds", "gauge", help, values);
        let help = "[STABLE] Cumulative cpu time consumed by the node in core-seconds";
        let values = [sample(String::new(), seconds(node.cpu_nanos), node)];
        family(&mut text, "node_cpu_usage_seconds_total", "counter", help, values);
        let help = "[STABLE] Current working set of the node in bytes";
        let values = [sample(String::new(), node.working_set as f64, node)];
        family(&mut text, "node_memory_working_set_bytes", "gauge", help, values);
        let help = "[ALPHA] Current swap usage of the node in bytes. Reported only on non-windows systems";
        let used = snapshot.machine.swap_total.saturating_sub(snapshot.machine.swap_free);
        family(&mut text, "node_swap_usage_bytes", "gauge", help, [sample(String::new(), used as f64, node)]);
        let help = "[STABLE] Cumulative cpu time consumed by the pod in core-seconds";
        let values = pods.iter().map(|p| sample(of_pod(p), seconds(p.usage.cpu_nanos), &p.usage));
        family(&mut text, "pod_cpu_usage_seconds_total", "counter", help, values);
        let help = "[STABLE] Current working set of the pod in bytes";
        let values = pods.iter().map(|p| sample(of_pod(p), p.usage.working_set as f64, &p.usage));
        family(&mut text, "pod_memory_working_set_bytes", "gauge", help, values);
    }
    let help = "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise";
    let error = Sample { labels: String::new(), value: f64::from(u8::from(looked.is_err())), at: None };
    family(&mut text, "resource_scrape_error", "gauge", help, [error]);
    text
}

/// `/metrics/cadvisor`: the families that dashboards and rules are made from.
pub async fn cadvisor(state: &State) -> Response<Body> {
    match state.stats.look(true).await {
        Ok(snapshot) => respond::text(StatusCode::OK, cadvisor_text(&snapshot, state.host.settings.machine_milli_cpu)),
        Err(error) => respond::text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

type Value = fn(&Usage) -> f64;

fn cadvisor_text(snapshot: &Snapshot, milli_cpu: u64) -> String {
    let mut text = String::new();
    let families: [(&str, &str, &str, Value); 8] = [
        ("container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed in seconds.", |u| {
            seconds(u.cpu_nanos)
        }),
        ("container_memory_rss", "gauge", "Size of RSS in bytes.", |u| u.rss as f64),
        ("container_memory_usage_bytes", "gauge", MEMORY_HELP, |u| u.memory as f64),
        ("container_memory_working_set_bytes", "gauge", "Current working set in bytes.", |u| u.working_set as f64),
        ("container_processes", "gauge", "Number of processes running inside the container.", |u| u.processes as f64),
        ("container_spec_memory_limit_bytes", "gauge", "Memory limit for the container.", |u| u.memory_limit as f64),
        ("container_last_seen", "gauge", "Last time a container was seen by the exporter", |u| u.at as f64 / 1e9),
        ("container_memory_failures_total", "counter", "Cumulative count of memory allocation failures.", |u| {
            u.page_faults as f64
        }),
    ];
    for (name, kind, help, value) in families {
        let more = match name {
            "container_cpu_usage_seconds_total" => "cpu=\"total\",",
            "container_memory_failures_total" => "failure_type=\"pgfault\",scope=\"container\",",
            _ => "",
        };
        family(&mut text, name, kind, help, everything(snapshot, more, value));
    }
    let help = "Start time of the container since unix epoch in seconds.";
    let started = snapshot.pods.iter().flat_map(|p| {
        p.containers.iter().map(|c| sample(cadvisor_container(p, c), c.started_at as f64 / 1e9, &c.usage))
    });
    family(&mut text, "container_start_time_seconds", "gauge", help, started);
    let help = "Number of bytes that are consumed by the container on this filesystem.";
    let disks = snapshot
        .pods
        .iter()
        .flat_map(|p| p.containers.iter().map(|c| sample(cadvisor_container(p, c), c.root.bytes as f64, &c.usage)));
    family(&mut text, "container_fs_usage_bytes", "gauge", help, disks);
    networks(&mut text, snapshot);
    let cores = [now(String::new(), milli_cpu as f64 / 1000.0)];
    family(&mut text, "machine_cpu_cores", "gauge", "Number of logical CPU cores.", cores);
    let memory = [now(String::new(), snapshot.machine.memory_total as f64)];
    family(&mut text, "machine_memory_bytes", "gauge", "Amount of memory installed on the machine.", memory);
    text
}

const MEMORY_HELP: &str = "Current memory usage in bytes, including all memory regardless of when it was accessed";

fn cadvisor_container(pod: &PodUse, container: &ContainerUse) -> String {
    let ContainerUse { name, id, image, .. } = container;
    let place = format!("id=\"/kubepods/pod{}/{id}\",image=\"{}\",name=\"{id}\"", pod.uid, escaped(image));
    format!("container=\"{name}\",{place},{}", of_pod(pod))
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// The machine, then pods, then containers, as cAdvisor tells cgroups from one another.
fn everything(snapshot: &Snapshot, more: &str, value: Value) -> Vec<Sample> {
    let cgroup = |id: &str, rest: &str| format!("container=\"\",{more}id=\"{id}\",image=\"\",name=\"\",{rest}");
    let nobody = "namespace=\"\",pod=\"\"";
    let mut samples = vec![sample(cgroup("/", nobody), value(&snapshot.node), &snapshot.node)];
    if let Some(all) = &snapshot.all_pods {
        samples.push(sample(cgroup("/kubepods", nobody), value(all), all));
    }
    for pod in &snapshot.pods {
        let id = format!("/kubepods/pod{}", pod.uid);
        samples.push(sample(cgroup(&id, &of_pod(pod)), value(&pod.usage), &pod.usage));
        for container in &pod.containers {
            let labels = format!("{more}{}", cadvisor_container(pod, container));
            samples.push(sample(labels, value(&container.usage), &container.usage));
        }
    }
    samples
}

fn networks(text: &mut String, snapshot: &Snapshot) {
    type Count = fn(&crate::stats::machine_use::Interface) -> u64;
    let families: [(&str, &str, Count); 4] = [
        ("container_network_receive_bytes_total", "Cumulative count of bytes received", |i| i.rx_bytes),
        ("container_network_receive_errors_total", "Cumulative count of errors encountered while receiving", |i| {
            i.rx_errors
        }),
        ("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", |i| i.tx_bytes),
        ("container_network_transmit_errors_total", "Cumulative count of errors encountered while transmitting", |i| {
            i.tx_errors
        }),
    ];
    for (name, help, count) in families {
        let samples = snapshot.pods.iter().flat_map(|pod| {
            pod.interfaces.iter().map(move |device| {
                let labels = format!(
                    "container=\"\",id=\"/kubepods/pod{}\",image=\"\",interface=\"{}\",name=\"\",{}",
                    pod.uid,
                    device.name,
                    of_pod(pod)
                );
                sample(labels, count(device) as f64, &pod.usage)
            })
        });
        family(text, name, "counter", help, samples);
    }
}

/// `/metrics`: the kubelet itself.
pub async fn own(state: &State) -> Response<Body> {
    let mut text = String::new();
    let node = format!("node=\"{}\"", state.host.settings.node_name);
    let help = "[ALPHA] The node's name. The count is always 1.";
    family(&mut text, "kubelet_node_name", "gauge", help, [now(node, 1.0)]);
    desired(&mut text, &state.pods.list());
    running(&mut text, state.host.runtime.as_ref()).await;
    claims(&mut text, state).await;
    text.push_str(&state.host.measures.render());
    respond::text(StatusCode::OK, text)
}

fn now(labels: String, value: f64) -> Sample {
    Sample { labels, value, at: None }
}

fn desired(text: &mut String, pods: &[Arc<Pod>]) {
    let statics = pods.iter().filter(|pod| is_mirror(pod)).count();
    let help = "[ALPHA] The number of pods the kubelet is being instructed to run. static is true if the pod is not \
                from the apiserver.";
    let wanted = [("", pods.len() - statics), ("true", statics)];
    let samples = wanted.map(|(is_static, count)| now(format!("static=\"{is_static}\""), count as f64));
    family(text, "kubelet_desired_pods", "gauge", help, samples);
}

/// What the runtime has; a runtime that can't be asked has no figures.
async fn running(text: &mut String, runtime: &dyn Runtime) {
    let ready = PodSandboxFilter { state: Some(SandboxState::Ready), ..Default::default() };
    let sandboxes = runtime.list_pod_sandbox(ready).await.map(|list| now(String::new(), list.len() as f64));
    let help = "[ALPHA] Number of pods that have a running pod sandbox";
    family(text, "kubelet_running_pods", "gauge", help, sandboxes);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for container in runtime.list_containers(Default::default()).await.unwrap_or_default() {
        let state = match container.state {
            ContainerState::Created => "created",
            ContainerState::Running => "running",
            ContainerState::Exited => "exited",
            ContainerState::Unknown => "unknown",
        };
        *counts.entry(state).or_default() += 1;
    }
    let samples = counts.into_iter().map(|(state, n)| now(format!("container_state=\"{state}\""), n as f64));
    family(text, "kubelet_running_containers", "gauge", "[ALPHA] Number of containers currently running", samples);
}

/// Volumes that claims are bound to and pods here use.
async fn claims(text: &mut String, state: &State) {
    let mut found = BTreeMap::new();
    for pod in state.pods.list() {
        let claimed = state.stats.claimed(pod.uid()).await;
        for volume in pod.spec.iter().filter_map(|spec| spec.volumes.as_ref()).flatten() {
            let Some((_, disk)) = claimed.get(&volume.name) else { continue };
            let Some(claim) = pintle_storage::claim_of(&pod, volume) else { continue };
            found.insert(format!("namespace=\"{}\",persistentvolumeclaim=\"{}\"", pod.namespace(), claim.name), *disk);
        }
    }
    claims_text(text, &found);
}

fn claims_text(text: &mut String, found: &BTreeMap<String, Filesystem>) {
    type Count = fn(&Filesystem) -> u64;
    let families: [(&str, &str, Count); 6] = [
        ("available_bytes", "[ALPHA] Number of available bytes in the volume", |disk| disk.available),
        ("capacity_bytes", "[ALPHA] Capacity in bytes of the volume", |disk| disk.capacity),
        ("inodes", "[ALPHA] Maximum number of inodes in the volume", |disk| disk.inodes),
        ("inodes_free", "[ALPHA] Number of free inodes in the volume", |disk| disk.inodes_free),
        ("inodes_used", "[ALPHA] Number of used inodes in the volume", Filesystem::inodes_used),
        ("used_bytes", "[ALPHA] Number of used bytes in the volume", |disk| disk.used),
    ];
    for (name, help, count) in families {
        let samples = found.iter().map(|(labels, disk)| now(labels.clone(), count(disk) as f64));
        family(text, &format!("kubelet_volume_stats_{name}"), "gauge", help, samples);
    }
}

/// `/metrics/probes`
pub fn probes(state: &State) -> Response<Body> {
    let mut text = String::new();
    let help = "[BETA] Cumulative number of a liveness, readiness or startup probe for a container by result.";
    let samples =
        state.host.probes.samples().into_iter().map(|(labels, count)| Sample { labels, value: count as f64, at: None });
    family(&mut text, "prober_probe_total", "counter", help, samples);
    respond::text(StatusCode::OK, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resource_metrics_are_upstreams() {
        let usage =
            Usage { at: 1_700_000_000_123_000_000, cpu_nanos: 1_500_000_000, working_set: 4096, ..Default::default() };
        let container =
            ContainerUse { name: "c".into(), started_at: 1_700_000_000_000_000_000, usage, ..Default::default() };
        let pod = PodUse {
            namespace: "n".into(),
            name: "p".into(),
            usage,
            containers: vec![container],
            ..Default::default()
        };
        let text = resource_text(&Ok(Snapshot { node: usage, pods: vec![pod], ..Default::default() }));
        for line in [
            "container_cpu_usage_seconds_total{container=\"c\",namespace=\"n\",pod=\"p\"} 1.5 1700000000123",
            "container_memory_working_set_bytes{container=\"c\",namespace=\"n\",pod=\"p\"} 4096 1700000000123",
            "container_start_time_seconds{container=\"c\",namespace=\"n\",pod=\"p\"} 1700000000",
            "node_cpu_usage_seconds_total 1.5 1700000000123",
            "node_memory_working_set_bytes 4096 1700000000123",
            "pod_cpu_usage_seconds_total{namespace=\"n\",pod=\"p\"} 1.5 1700000000123",
            "pod_memory_working_set_bytes{namespace=\"n\",pod=\"p\"} 4096 1700000000123",
            "resource_scrape_error 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
        let failed = resource_text(&Err(pintle_cri::CriError::Internal("gone".into())));
        assert!(failed.ends_with("resource_scrape_error 1\n") && !failed.contains("node_"));
    }

    #[test]
    fn claims_are_told_with_their_filesystem() {
        let disk = Filesystem { capacity: 1000, available: 600, used: 400, inodes: 50, inodes_free: 30 };
        let labels = "namespace=\"n\",persistentvolumeclaim=\"c\"";
        let found = BTreeMap::from([(labels.to_owned(), disk)]);
        let mut text = String::new();
        claims_text(&mut text, &found);
        let shown: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let names = [
            ("available_bytes", 600),
            ("capacity_bytes", 1000),
            ("inodes", 50),
            ("inodes_free", 30),
            ("inodes_used", 20),
        ];
        let expected = names.into_iter().chain([("used_bytes", 400)]);
        let expected: Vec<String> =
            expected.map(|(name, value)| format!("kubelet_volume_stats_{name}{{{labels}}} {value}")).collect();
        assert_eq!(shown, expected);
    }
}

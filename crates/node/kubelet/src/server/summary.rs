//! `/stats/summary`: what node, pods and containers use, in upstream's form (`pkg/kubelet/apis/stats/v1alpha1`).

use super::query::Query;
use super::{Body, State, respond};
use crate::stats::disk_usage::DiskUse;
use crate::stats::machine_use::{self, Filesystem, Interface};
use crate::stats::{ContainerUse, PodUse, Snapshot, Usage, VolumeUse};
use http::{Response, StatusCode};
use jiff::Timestamp;
use pintle_types::k8s::api::core::v1::Pod;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The device that node and pods are counted by.
const DEFAULT_INTERFACE: &str = "eth0";

/// Answers the request; `only_cpu_and_memory` leaves out what is costly.
pub async fn answer(state: &State, query: &str) -> Response<Body> {
    let whole = !Query::parse(query).is_set("only_cpu_and_memory");
    let snapshot = match state.stats.look(whole).await {
        Ok(snapshot) => snapshot,
        Err(error) => return respond::text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let disk = if whole && state.host.hardware.is_real() {
        machine_use::filesystem(&state.host.settings.root_dir)
    } else {
        None
    };
    let node = node(state, &snapshot, whole, disk).await;
    let pods: Vec<Value> = snapshot.pods.iter().map(|p| pod(state, p, whole, disk)).collect();
    respond::json(json!({"node": node, "pods": pods}).to_string())
}

fn time(nanos: i64) -> String {
    Timestamp::from_second(nanos / 1_000_000_000).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}

fn cpu(usage: &Usage) -> Value {
    let mut out = json!({"time": time(usage.at), "usageCoreNanoSeconds": usage.cpu_nanos});
    if let Some(rate) = usage.cpu_rate {
        out["usageNanoCores"] = rate.into();
    }
    out
}

fn memory(usage: &Usage) -> Value {
    let mut out = json!({
        "time": time(usage.at),
        "usageBytes": usage.memory,
        "workingSetBytes": usage.working_set,
        "rssBytes": usage.rss,
        "pageFaults": usage.page_faults,
        "majorPageFaults": usage.major_page_faults,
    });
    if usage.memory_limit > 0 {
        out["availableBytes"] = usage.memory_limit.saturating_sub(usage.working_set).into();
    }
    out
}

fn interface(device: &Interface) -> Value {
    json!({
        "name": device.name,
        "rxBytes": device.rx_bytes,
        "rxErrors": device.rx_errors,
        "txBytes": device.tx_bytes,
        "txErrors": device.tx_errors,
    })
}

fn network(at: i64, devices: &[Interface]) -> Option<Value> {
    let main = devices.iter().find(|d| d.name == DEFAULT_INTERFACE).or(devices.first())?;
    let mut out = interface(main);
    out["time"] = time(at).into();
    out["interfaces"] = devices.iter().map(interface).collect();
    Some(out)
}

/// A whole filesystem.
fn filesystem(at: i64, disk: Filesystem) -> Value {
    json!({
        "time": time(at),
        "availableBytes": disk.available,
        "capacityBytes": disk.capacity,
        "usedBytes": disk.used,
        "inodesFree": disk.inodes_free,
        "inodes": disk.inodes,
        "inodesUsed": disk.inodes_used(),
    })
}

/// A part of a filesystem.
fn part(at: i64, disk: Option<Filesystem>, used: DiskUse) -> Value {
    let mut out = disk.map_or_else(|| json!({"time": time(at)}), |disk| filesystem(at, disk));
    out["usedBytes"] = used.bytes.into();
    out["inodesUsed"] = used.inodes.into();
    out
}

async fn node(state: &State, snapshot: &Snapshot, whole: bool, disk: Option<Filesystem>) -> Value {
    let usage = &snapshot.node;
    let at = usage.at;
    let mut node = Map::new();
    node.insert("nodeName".into(), state.host.settings.node_name.clone().into());
    node.insert("startTime".into(), time(snapshot.machine.booted_at.saturating_mul(1_000_000_000)).into());
    node.insert("cpu".into(), cpu(usage));
    node.insert("memory".into(), memory(usage));
    let pods = snapshot.all_pods.map(|all| json!({"name": "pods", "cpu": cpu(&all), "memory": memory(&all)}));
    node.insert("systemContainers".into(), pods.into_iter().collect());
    node.insert(
        "swap".into(),
        json!({
            "time": time(at),
            "swapAvailableBytes": snapshot.machine.swap_free,
            "swapUsageBytes": snapshot.machine.swap_total.saturating_sub(snapshot.machine.swap_free),
        }),
    );
    if whole && state.host.hardware.is_real() {
        if let Some(devices) = network(at, &machine_use::interfaces("self")) {
            node.insert("network".into(), devices);
        }
        let (max, used) = machine_use::processes();
        node.insert("rlimit".into(), json!({"time": time(at), "maxpid": max, "curproc": used}));
    }
    if let Some(disk) = disk {
        node.insert("fs".into(), filesystem(at, disk));
        let images = state.host.runtime.image_fs_info().await.unwrap_or_default();
        let used = DiskUse { bytes: images.used_bytes, inodes: images.inodes_used };
        let place = machine_use::filesystem(std::path::Path::new(&images.mountpoint)).or(Some(disk));
        let images = part(at, place, used);
        node.insert("runtime".into(), json!({"imageFs": images, "containerFs": images}));
    }
    Value::Object(node)
}

fn pod(state: &State, pod: &PodUse, whole: bool, disk: Option<Filesystem>) -> Value {
    let at = pod.usage.at;
    let containers: Vec<Value> = pod.containers.iter().map(|c| container(c, whole, disk)).collect();
    let mut out = json!({
        "podRef": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
        "startTime": time(pod.started_at),
        "containers": containers,
        "cpu": cpu(&pod.usage),
        "memory": memory(&pod.usage),
        "process_stats": {"process_count": pod.usage.processes},
    });
    if !whole {
        return out;
    }
    if let Some(devices) = network(at, &pod.interfaces) {
        out["network"] = devices;
    }
    let object = state.pod(&pod.namespace, &pod.name, &pod.uid).ok();
    out["volume"] = pod.volumes.iter().map(|v| volume(at, v, object.as_ref())).collect();
    out["ephemeral-storage"] = part(at, disk, pod.ephemeral());
    out
}

fn container(container: &ContainerUse, whole: bool, disk: Option<Filesystem>) -> Value {
    let usage = &container.usage;
    let mut out = json!({
        "name": container.name,
        "startTime": time(container.started_at),
        "cpu": cpu(usage),
        "memory": memory(usage),
    });
    if whole {
        out["rootfs"] = part(usage.at, disk, container.root);
        out["logs"] = part(usage.at, disk, container.log);
    }
    out
}

fn volume(at: i64, volume: &VolumeUse, pod: Option<&Arc<Pod>>) -> Value {
    let mut out = part(at, machine_use::filesystem(&volume.path), volume.size);
    out["name"] = volume.name.clone().into();
    let volumes = pod.and_then(|p| p.spec.as_ref()).and_then(|s| s.volumes.as_ref());
    let claim = volumes.into_iter().flatten().find(|v| v.name == volume.name);
    if let (Some(pod), Some(claim)) = (pod, claim.and_then(|v| v.persistent_volume_claim.as_ref())) {
        out["pvcRef"] = json!({"name": claim.claim_name, "namespace": pod.metadata.namespace});
    }
    out
}

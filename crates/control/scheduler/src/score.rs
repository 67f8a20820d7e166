//! Which of the nodes that will do is best: upstream's score plugins with upstream's weights.

use crate::affinity::{Preferences, preferred_weight};
use crate::filter::unwelcome;
use crate::pod::PodInfo;
use crate::snapshot::{NodeInfo, Snapshot};
use crate::spread::crowding;

const MAX: i64 = 100;

/// The total score of each node, in their order. More is better.
pub(crate) fn scores(pod: &PodInfo, nodes: &[&NodeInfo], snapshot: &Snapshot) -> Vec<i64> {
    let each = |by: &dyn Fn(&NodeInfo) -> i64| -> Vec<i64> { nodes.iter().map(|n| by(n)).collect() };
    let preferences = Preferences::new(pod, snapshot);
    let mut totals = vec![0; nodes.len()];
    let mut add = |weight: i64, scores: Vec<i64>| {
        totals.iter_mut().zip(scores).for_each(|(total, score)| *total += weight * score);
    };
    add(3, reversed(each(&|n| unwelcome(pod, n))));
    add(2, normalized(each(&|n| preferred_weight(pod, n))));
    if let Some(crowds) = crowding(pod, nodes, snapshot) {
        add(2, spread(&crowds));
    }
    add(2, between(each(&|n| preferences.weight(n))));
    add(1, each(&|n| least_allocated(pod, n)));
    if pod.requests.milli_cpu != 0 || pod.requests.memory != 0 {
        add(1, each(&|n| balanced(pod, n)));
    }
    let images = images(pod);
    add(1, each(&|n| image_locality(&images, n, snapshot)));
    totals
}

/// The largest becomes 100; nothing anywhere stays nothing.
fn normalized(values: Vec<i64>) -> Vec<i64> {
    let max = values.iter().copied().max().unwrap_or(0);
    if max == 0 { values } else { values.into_iter().map(|v| v * MAX / max).collect() }
}

/// None becomes 100, the largest 0.
fn reversed(values: Vec<i64>) -> Vec<i64> {
    normalized(values).into_iter().map(|v| MAX - v).collect()
}

/// The smallest becomes 0, the largest 100.
fn between(values: Vec<i64>) -> Vec<i64> {
    let (min, max) = values.iter().fold((i64::MAX, i64::MIN), |(a, b), v| (a.min(*v), b.max(*v)));
    let place = |v: i64| if max > min { (MAX as f64 * ((v - min) as f64 / (max - min) as f64)) as i64 } else { 0 };
    values.into_iter().map(place).collect()
}

/// The least crowded is best; nodes that lack a key of the topology get nothing.
fn spread(crowds: &[Option<i64>]) -> Vec<i64> {
    let (min, max) = crowds.iter().flatten().fold((i64::MAX, 0), |(a, b), v| (a.min(*v), b.max(*v)));
    let place = |crowd: &Option<i64>| match crowd {
        None => 0,
        Some(_) if max == 0 => MAX,
        Some(crowd) => MAX * (max + min - crowd) / max,
    };
    crowds.iter().map(place).collect()
}

/// The free share of CPU and memory, with the pod on the node; what a node does not have is left out.
fn least_allocated(pod: &PodInfo, node: &NodeInfo) -> i64 {
    let amounts = [
        (node.scored.0 + pod.scored.0, node.allocatable.milli_cpu),
        (node.scored.1 + pod.scored.1, node.allocatable.memory),
    ];
    let (mut sum, mut counted) = (0, 0);
    for (used, have) in amounts.into_iter().filter(|(_, have)| *have != 0) {
        counted += 1;
        sum += if used > have { 0 } else { ((have - used) as i128 * i128::from(MAX) / have as i128) as i64 };
    }
    if counted == 0 { 0 } else { sum / counted }
}

/// How alike the taken shares of CPU and memory are, by what is really requested.
fn balanced(pod: &PodInfo, node: &NodeInfo) -> i64 {
    let (cpu, memory) = (node.allocatable.milli_cpu, node.allocatable.memory);
    if cpu == 0 || memory == 0 {
        return MAX;
    }
    let share = |used: i64, have: i64| (used as f64 / have as f64).min(1.0);
    let cpu = share(node.requested.milli_cpu + pod.requests.milli_cpu, cpu);
    let memory = share(node.requested.memory + pod.requests.memory, memory);
    ((1.0 - ((cpu - memory) / 2.0).abs()) * MAX as f64) as i64
}

const MEBIBYTE: i64 = 1024 * 1024;

/// The pod's images by the names that nodes list them under.
fn images(pod: &PodInfo) -> Vec<String> {
    let containers = pod.spec().init_containers.iter().flatten().chain(&pod.spec().containers);
    let tagged = |name: &str| {
        let tag = name.rfind(':').map_or(-1, |i| i as i64) > name.rfind('/').map_or(-1, |i| i as i64);
        if tag { name.to_owned() } else { format!("{name}:latest") }
    };
    containers.map(|c| tagged(c.image.as_deref().unwrap_or_default())).collect()
}

/// Nodes that have the pod's images already, by the images' size between 23 MB and 1 GB for each container; an image
/// weighs the less, the fewer nodes have it, so that not all go where it happens to be.
fn image_locality(wanted: &[String], node: &NodeInfo, snapshot: &Snapshot) -> i64 {
    let status = node.node.as_ref().and_then(|n| n.status.as_ref());
    let present = status.and_then(|s| s.images.as_deref()).unwrap_or_default();
    let short = |name: &String, wanted: &str| {
        name == wanted || ["docker.io/library/", "docker.io/"].iter().any(|p| name.strip_prefix(p) == Some(wanted))
    };
    let all = snapshot.nodes().len().max(1) as f64;
    let size = |wanted: &String| {
        let found = present.iter().find_map(|i| {
            let name = i.names.iter().flatten().find(|n| short(n, wanted))?;
            Some((name, i.size_bytes.unwrap_or(0)))
        });
        found.map_or(0, |(name, size)| (size as f64 * (snapshot.nodes_with(name) as f64 / all)) as i64)
    };
    let total: i64 = wanted.iter().map(size).sum();
    let (min, max) = (23 * MEBIBYTE, 1000 * MEBIBYTE * wanted.len().max(1) as i64);
    MAX * (total.clamp(min, max) - min) / (max - min)
}

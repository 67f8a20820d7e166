//! Which of the nodes that will do is best: upstream's score plugins with upstream's weights.

use crate::affinity::preferred_weight;
use crate::filter::{Prepared, unwelcome};
use crate::pod::PodInfo;
use crate::snapshot::NodeInfo;

const MAX: f64 = 100.0;

/// The total score of each node, in their order. More is better.
pub(crate) fn scores(pod: &PodInfo, nodes: &[&NodeInfo], prepared: &Prepared) -> Vec<f64> {
    let each = |by: &dyn Fn(&NodeInfo) -> f64| -> Vec<f64> { nodes.iter().map(|n| by(n)).collect() };
    let plugins = [
        (3.0, reversed(each(&|n| unwelcome(pod, n) as f64))),
        (2.0, normalized(each(&|n| preferred_weight(pod, n) as f64))),
        (2.0, spread(&each(&|n| prepared.spread.crowding(n).unwrap_or(f64::NAN)))),
        (2.0, between(each(&|n| prepared.affinity.weight(n) as f64))),
        (1.0, each(&|n| least_allocated(pod, n))),
        (1.0, each(&|n| balanced(pod, n))),
        (1.0, each(&|n| image_locality(pod, n))),
    ];
    (0..nodes.len()).map(|i| plugins.iter().map(|(weight, scores)| weight * scores[i]).sum()).collect()
}

fn largest(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

/// The largest becomes 100; nothing anywhere stays nothing.
fn normalized(values: Vec<f64>) -> Vec<f64> {
    let max = largest(&values);
    if max == 0.0 { values } else { values.into_iter().map(|v| (v * MAX / max).floor()).collect() }
}

/// None becomes 100, the largest 0.
fn reversed(values: Vec<f64>) -> Vec<f64> {
    normalized(values).into_iter().map(|v| MAX - v).collect()
}

/// The smallest becomes 0, the largest 100.
fn between(values: Vec<f64>) -> Vec<f64> {
    let (min, max) = values.iter().fold((f64::MAX, f64::MIN), |(a, b), v| (a.min(*v), b.max(*v)));
    let place = |v: f64| if max > min { ((v - min) * MAX / (max - min)).floor() } else { 0.0 };
    values.into_iter().map(place).collect()
}

/// The least crowded is best; nodes that lack a key of the topology get nothing.
fn spread(crowding: &[f64]) -> Vec<f64> {
    let counted = || crowding.iter().copied().filter(|c| !c.is_nan());
    let (min, max) = counted().fold((f64::MAX, f64::MIN), |(a, b), v| (a.min(v), b.max(v)));
    let place = |c: &f64| match c {
        c if c.is_nan() => 0.0,
        _ if max == 0.0 => MAX,
        c => (MAX * (max + min - c) / max).floor(),
    };
    crowding.iter().map(place).collect()
}

/// Shares of CPU and memory that would be taken with the pod on the node.
fn shares(pod: &PodInfo, node: &NodeInfo) -> [f64; 2] {
    let share = |used: i64, have: i64| if have <= 0 { 1.0 } else { (used as f64 / have as f64).min(1.0) };
    [
        share(node.scored.0 + pod.scored.0, node.allocatable.milli_cpu),
        share(node.scored.1 + pod.scored.1, node.allocatable.memory),
    ]
}

fn least_allocated(pod: &PodInfo, node: &NodeInfo) -> f64 {
    let free = shares(pod, node).map(|share| ((1.0 - share) * MAX).floor());
    ((free[0] + free[1]) / 2.0).floor()
}

fn balanced(pod: &PodInfo, node: &NodeInfo) -> f64 {
    let [cpu, memory] = shares(pod, node);
    ((1.0 - ((cpu - memory) / 2.0).abs()) * MAX).floor()
}

const MEBIBYTE: f64 = 1024.0 * 1024.0;

/// Nodes that have the pod's images already, by the images' size between 23 MB and 1 GB for each container.
fn image_locality(pod: &PodInfo, node: &NodeInfo) -> f64 {
    let status = node.node.as_ref().and_then(|n| n.status.as_ref());
    let images = status.and_then(|s| s.images.as_deref()).unwrap_or_default();
    let containers = &pod.spec().containers;
    let size = |name: &str| {
        let named = |n: &String| {
            n == name
                || n.strip_prefix("docker.io/")
                    .is_some_and(|short| short.strip_suffix(":latest").unwrap_or(short) == name)
        };
        images.iter().find(|i| i.names.iter().flatten().any(named)).and_then(|i| i.size_bytes).unwrap_or(0)
    };
    let total: i64 = containers.iter().filter_map(|c| c.image.as_deref()).map(size).sum();
    let (min, max) = (23.0 * MEBIBYTE, 1000.0 * MEBIBYTE * containers.len().max(1) as f64);
    (MAX * ((total as f64).clamp(min, max) - min) / (max - min)).floor()
}

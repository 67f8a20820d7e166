//! Which of the nodes that will do is best: upstream's score plugins, with the weights of the profile.

use crate::filter::unwelcome;
use crate::pod::PodInfo;
use crate::profile::{Profile, Scorer, Strategy};
use crate::resources::Resources;
use crate::snapshot::{NodeInfo, Snapshot};
use crate::{counts::Counts, filter::Prepared};
use std::time::Instant;

const MAX: i64 = 100;

/// The total score of each node, in their order. More is better.
pub(crate) fn scores(pod: &PodInfo, nodes: &[&NodeInfo], prepared: &Prepared, snapshot: &Snapshot) -> Vec<i64> {
    let profile = &*prepared.profile;
    let mut totals = vec![0; nodes.len()];
    for scorer in Scorer::ALL {
        let weight = profile.weight(scorer);
        if weight == 0 {
            continue;
        }
        let began = prepared.timings.as_ref().map(|timings| (timings, Instant::now()));
        let Some(scores) = score(scorer, pod, nodes, prepared, snapshot) else { continue };
        if let Some((timings, since)) = began {
            timings.scored(scorer, nodes.len(), since);
        }
        totals.iter_mut().zip(scores).for_each(|(total, score)| *total += weight * score);
    }
    totals
}

/// One plugin's scores; nothing when it gives all nodes the same.
fn score(
    scorer: Scorer,
    pod: &PodInfo,
    nodes: &[&NodeInfo],
    prepared: &Prepared,
    snapshot: &Snapshot,
) -> Option<Vec<i64>> {
    let profile = &*prepared.profile;
    let each = |by: &dyn Fn(&NodeInfo) -> i64| -> Vec<i64> { nodes.iter().map(|n| by(n)).collect() };
    match scorer {
        Scorer::TaintToleration => {
            let values = each(&|n| unwelcome(pod, n));
            values.iter().any(|v| *v != 0).then(|| reversed(values))
        }
        Scorer::NodeAffinity => {
            let all = [pod.rules.as_deref(), profile.added_affinity.as_ref()];
            let rules = || all.iter().flatten().filter(|rules| rules.prefers());
            rules().next()?;
            Some(normalized(each(&|n| rules().map(|rules| rules.weight(n)).sum())))
        }
        Scorer::PodTopologySpread => Some(spread(&counts(prepared)?.spread.crowding(nodes)?)),
        Scorer::InterPodAffinity => {
            let affinity = &counts(prepared)?.affinity;
            affinity.prefers().then(|| between(each(&|n| affinity.weight(n))))
        }
        Scorer::NodeResourcesFit => Some(each(&|n| allocation(pod, n, profile))),
        Scorer::NodeResourcesBalancedAllocation => {
            let asks = |name: &String| amount(&pod.requests, name) != 0;
            profile.balanced.iter().any(asks).then(|| each(&|n| balanced(pod, n, &profile.balanced)))
        }
        Scorer::ImageLocality => {
            let images = images(pod, snapshot);
            let somewhere = images.iter().any(|names| !names.is_empty());
            somewhere.then(|| each(&|n| image_locality(&images, n, snapshot)))
        }
    }
}

fn counts(prepared: &Prepared) -> Option<&Counts> {
    prepared.counts.as_deref()
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

fn amount(resources: &Resources, name: &str) -> i64 {
    match name {
        "cpu" => resources.milli_cpu,
        "memory" => resources.memory,
        "ephemeral-storage" => resources.ephemeral_storage,
        other => resources.other(other),
    }
}

/// What would be taken of a resource with the pod on the node, and what the node has; nothing for what does not count.
/// Containers that name nothing count for something here.
fn taken(pod: &PodInfo, node: &NodeInfo, name: &str) -> Option<(i64, i64)> {
    let have = amount(&node.allocatable, name);
    let used = match name {
        "cpu" => node.scored.0 + pod.scored.0,
        "memory" => node.scored.1 + pod.scored.1,
        "ephemeral-storage" => node.requested.ephemeral_storage + pod.requests.ephemeral_storage,
        // What the pod does not ask for says nothing of a node.
        other if pod.requests.other(other) == 0 => return None,
        other => node.requested.other(other) + pod.requests.other(other),
    };
    (have != 0).then_some((used, have))
}

/// `part` of `whole` as a number of 100, rounded down, without overflow.
fn share(part: i64, whole: i64) -> i64 {
    match part.checked_mul(MAX) {
        Some(product) => product / whole,
        None => i64::try_from(i128::from(part) * i128::from(MAX) / i128::from(whole)).unwrap_or(MAX),
    }
}

/// What NodeResourcesFit says of the node by its strategy.
fn allocation(pod: &PodInfo, node: &NodeInfo, profile: &Profile) -> i64 {
    let amounts = profile.resources.iter().filter_map(|(name, weight)| Some((taken(pod, node, name)?, *weight)));
    let weighed = |score: &dyn Fn(i64, i64) -> i64| {
        let add = |(sum, weights): (i64, i64), ((used, have), weight): ((i64, i64), i64)| {
            (sum + score(used, have) * weight, weights + weight)
        };
        let (sum, weights) = amounts.clone().fold((0, 0), add);
        if weights == 0 { 0 } else { sum / weights }
    };
    match &profile.strategy {
        Strategy::LeastAllocated => weighed(&|used, have| if used > have { 0 } else { share(have - used, have) }),
        Strategy::MostAllocated => weighed(&|used, have| share(used.min(have), have)),
        Strategy::RequestedToCapacityRatio(shape) => {
            let score = |used: i64, have: i64| along(shape, if used > have { MAX } else { share(used, have) });
            // Resources that get nothing do not pull the mean down.
            let scored = amounts.map(|((used, have), weight)| (score(used, have), weight)).filter(|(s, _)| *s > 0);
            let (sum, weights) =
                scored.fold((0, 0), |(sum, all), (score, weight)| (sum + score * weight, all + weight));
            if weights == 0 { 0 } else { (sum as f64 / weights as f64).round() as i64 }
        }
    }
}

/// The height of a broken line at `x`.
fn along(points: &[(i64, i64)], x: i64) -> i64 {
    let Some(after) = points.iter().position(|(at, _)| x <= *at) else {
        return points.last().map_or(0, |(_, score)| *score);
    };
    let (right, top) = points[after];
    if after == 0 {
        return top;
    }
    let (left, bottom) = points[after - 1];
    bottom + (top - bottom) * (x - left) / (right - left)
}

/// How alike the taken shares of the resources are, by what is really requested.
fn balanced(pod: &PodInfo, node: &NodeInfo, resources: &[String]) -> i64 {
    let part = |name: &String| {
        let (have, wanted) = (amount(&node.allocatable, name), amount(&pod.requests, name));
        let extended = !matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage");
        let counts = have != 0 && !(extended && wanted == 0);
        counts.then(|| ((amount(&node.requested, name) + wanted) as f64 / have as f64).min(1.0))
    };
    let parts = || resources.iter().filter_map(part);
    let (count, sum) = parts().fold((0usize, 0.0), |(count, sum), part| (count + 1, sum + part));
    let deviation = match count {
        0 | 1 => 0.0,
        2 => {
            let mut both = parts();
            let (first, second) = (both.next().unwrap_or(0.0), both.next().unwrap_or(0.0));
            ((first - second) / 2.0).abs()
        }
        _ => {
            let mean = sum / count as f64;
            (parts().map(|part| (part - mean) * (part - mean)).sum::<f64>() / count as f64).sqrt()
        }
    };
    ((1.0 - deviation) * MAX as f64) as i64
}

const MEBIBYTE: i64 = 1024 * 1024;

/// The names under which nodes list each of the pod's images, if any does.
fn images(pod: &PodInfo, snapshot: &Snapshot) -> Vec<Vec<String>> {
    if !snapshot.has_images() {
        return Vec::new();
    }
    let containers = pod.spec().init_containers.iter().flatten().chain(&pod.spec().containers);
    let tagged = |name: &str| {
        let tag = name.rfind(':').map_or(-1, |i| i as i64) > name.rfind('/').map_or(-1, |i| i as i64);
        if tag { name.to_owned() } else { format!("{name}:latest") }
    };
    let listed = |name: String| {
        let names = ["", "docker.io/library/", "docker.io/"].map(|prefix| format!("{prefix}{name}"));
        names.into_iter().filter(|name| snapshot.nodes_with(name) > 0).collect()
    };
    containers.map(|c| listed(tagged(c.image.as_deref().unwrap_or_default()))).collect()
}

/// Nodes that have the pod's images already, by the images' size between 23 MB and 1 GB for each container; an image
/// weighs the less, the fewer nodes have it, so that not all go where it happens to be.
fn image_locality(wanted: &[Vec<String>], node: &NodeInfo, snapshot: &Snapshot) -> i64 {
    let status = node.node.as_ref().and_then(|n| n.status.as_ref());
    let present = status.and_then(|s| s.images.as_deref()).unwrap_or_default();
    let all = snapshot.known_nodes().max(1) as f64;
    let size = |wanted: &Vec<String>| {
        let found = present.iter().find_map(|i| {
            let name = i.names.iter().flatten().find(|n| wanted.contains(n))?;
            Some((name, i.size_bytes.unwrap_or(0)))
        });
        found.map_or(0, |(name, size)| (size as f64 * (snapshot.nodes_with(name) as f64 / all)) as i64)
    };
    let total: i64 = wanted.iter().filter(|names| !names.is_empty()).map(size).sum();
    let (min, max) = (23 * MEBIBYTE, 1000 * MEBIBYTE * wanted.len().max(1) as i64);
    MAX * (total.clamp(min, max) - min) / (max - min)
}

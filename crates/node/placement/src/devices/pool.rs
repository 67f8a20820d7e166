//! The devices of one resource: which there are, which are well, and how a request is served. Pure.

use super::messages::PluginDevice;
use crate::cpu_set::CpuSet;
use crate::hints::{Wishes, prefer, subsets};
use std::collections::{BTreeMap, BTreeSet};

/// Of a plugin; what it tells beyond is not used.
pub(crate) const MAX_DEVICES: usize = 1 << 16;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DeviceState {
    pub(crate) healthy: bool,
    /// The memory nodes that it is near to; none when it does not say.
    pub(crate) nodes: CpuSet,
}

pub(crate) type Devices = BTreeMap<String, DeviceState>;
pub(crate) type Ids = BTreeSet<String>;

/// What a plugin tells.
pub(crate) fn read(told: Vec<PluginDevice>) -> Devices {
    let state = |device: PluginDevice| {
        let nodes = device.topology.map(|topology| topology.nodes).unwrap_or_default();
        let nodes = nodes.iter().filter_map(|node| u32::try_from(node.id).ok()).collect();
        (device.id, DeviceState { healthy: device.health == super::messages::HEALTHY, nodes })
    };
    told.into_iter().take(MAX_DEVICES).map(state).collect()
}

pub(crate) fn healthy(devices: &Devices) -> Ids {
    devices.iter().filter(|(_, state)| state.healthy).map(|(id, _)| id.clone()).collect()
}

/// The nodes whose free devices would do; it does not matter when no device says where it is.
pub(crate) fn hints(devices: &Devices, free: &Ids, reusable: &Ids, count: usize, machine: &CpuSet) -> Wishes {
    if devices.values().all(|state| state.nodes.is_empty()) {
        return None;
    }
    let near = |id: &String, nodes: &CpuSet| {
        devices.get(id).is_some_and(|state| state.nodes.is_empty() || state.nodes.is_subset(nodes))
    };
    let mut smallest = machine.len();
    let mut fitting = Vec::new();
    for nodes in subsets(machine) {
        let all = devices.keys().filter(|id| near(id, &nodes)).count();
        if all >= count {
            smallest = smallest.min(nodes.len());
        }
        let usable = free.union(reusable).filter(|id| near(id, &nodes)).count();
        if reusable.iter().all(|id| near(id, &nodes)) && usable >= count {
            fitting.push(nodes);
        }
    }
    Some(prefer(fitting, smallest))
}

/// How a request is narrowed down before the plugin is asked which devices it prefers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Choice {
    /// What it gets in any case.
    pub(crate) must: Ids,
    /// What the rest is chosen from; all of it is in order when nobody prefers anything.
    pub(crate) from: Vec<String>,
}

/// Devices that are used again come first, then those of the nodes, then those of no node, then the others.
pub(crate) fn choose(devices: &Devices, free: &Ids, reusable: &Ids, count: usize, nodes: Option<&CpuSet>) -> Choice {
    let mut must: Ids = reusable.iter().take(count).cloned().collect();
    let rank = |id: &str| match (nodes, devices.get(id)) {
        (Some(_), Some(state)) if state.nodes.is_empty() => 1,
        (Some(nodes), Some(state)) if state.nodes.and(nodes).is_empty() => 2,
        _ => 0,
    };
    let mut rest: Vec<&String> = free.iter().filter(|id| !must.contains(*id)).collect();
    rest.sort_by_key(|id| (rank(id), *id));
    let left = count - must.len();
    let near = rest.iter().filter(|id| rank(id) == 0).count();
    if near >= left {
        rest.truncate(near);
    } else {
        must.extend(rest.drain(..near).cloned());
    }
    Choice { must, from: rest.into_iter().cloned().collect() }
}

/// Completes a choice with what the plugin prefers of it, and in order beyond that.
pub(crate) fn complete(choice: Choice, preferred: &[String], count: usize) -> Ids {
    let mut ids = choice.must;
    let mut from = choice.from;
    from.sort_by_key(|id| !preferred.contains(id));
    for id in from {
        if ids.len() < count {
            ids.insert(id);
        }
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `a@0 b@1 c -d@0`: where they are, and `-` for what is not well.
    fn devices(text: &str) -> Devices {
        let device = |word: &str| {
            let (healthy, word) = word.strip_prefix('-').map_or((true, word), |word| (false, word));
            let (id, nodes) = word.split_once('@').unwrap_or((word, ""));
            (id.to_owned(), DeviceState { healthy, nodes: nodes.parse().unwrap() })
        };
        text.split_whitespace().map(device).collect()
    }

    fn ids(text: &str) -> Ids {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn hints_follow_where_devices_are() {
        let machine = "0-1".parse().unwrap();
        let check = |all: &str, free: &str, reusable: &str, count: usize, expected: Option<&str>| {
            let hints = hints(&devices(all), &ids(free), &ids(reusable), count, &machine);
            let mark = |preferred| if preferred { "!" } else { "" };
            let text = hints.map(|list| {
                let words =
                    list.iter().map(|h| format!("{}{}", h.nodes.clone().unwrap_or_default(), mark(h.preferred)));
                words.collect::<Vec<_>>().join(" ")
            });
            assert_eq!(text.as_deref(), expected, "{count} of {free} ({all})");
        };
        check("a b", "a b", "", 1, None);
        check("a@0 b@1", "a b", "", 1, Some("0! 1! 0-1"));
        check("a@0 b@1", "a b", "", 2, Some("0-1!"));
        check("a@0 b@0 c@1", "b c", "", 2, Some("0-1"));
        check("a@0 b@1", "b", "a", 1, Some("0! 0-1"));
        check("a@0 b@1", "", "", 1, Some(""));
    }

    #[test]
    fn near_devices_go_first_and_wishes_count() {
        let check = |reusable: &str, count: usize, nodes: Option<&str>, preferred: &str, expected: &str| {
            let nodes = nodes.map(|text| text.parse().unwrap());
            let all = devices("a@0 b@0 c@1 d@1 e");
            let choice = choose(&all, &ids("a b c d e"), &ids(reusable), count, nodes.as_ref());
            let preferred: Vec<String> = preferred.split_whitespace().map(str::to_owned).collect();
            assert_eq!(complete(choice, &preferred, count), ids(expected), "{count} near {nodes:?}");
        };
        check("", 2, None, "", "a b");
        check("", 2, None, "e d x", "d e");
        check("", 2, Some("1"), "", "c d");
        check("", 1, Some("1"), "a d", "d");
        check("", 3, Some("1"), "", "c d e");
        check("", 3, Some("1"), "a", "a c d");
        check("b", 1, None, "a", "b");
    }
}

//! Reads how the machine is built: which processors share a core, a socket and a memory node.

use crate::cpu_set::CpuSet;
use std::collections::BTreeMap;
use std::path::Path;

/// Upstream's bound: the number of sets of nodes doubles with each.
pub(crate) const MAX_NODES: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    pub id: u32,
    /// Of the whole machine: the lowest processor of the core.
    pub core: u32,
    pub socket: u32,
    pub node: u32,
}

/// The processors of a machine, and the bytes of each memory node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    pub cpus: Vec<Cpu>,
    pub nodes: BTreeMap<u32, u64>,
}

fn text(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

impl Layout {
    /// Reads it below `sys`, usually `/sys/devices/system`. What a machine does not tell is taken as one socket and one
    /// node; `memory` is what that node has then.
    pub fn read(sys: &Path, memory: u64) -> Self {
        let set = |path: &str| text(&sys.join(path)).and_then(|t| t.parse::<CpuSet>().ok()).unwrap_or_default();
        let mut node_of = BTreeMap::new();
        let mut nodes = BTreeMap::new();
        for node in set("node/online").iter() {
            nodes.insert(node, node_memory(&text(&sys.join(format!("node/node{node}/meminfo"))).unwrap_or_default()));
            node_of.extend(set(&format!("node/node{node}/cpulist")).iter().map(|cpu| (cpu, node)));
        }
        if nodes.is_empty() {
            nodes.insert(0, memory);
        }
        let cpu = |id: u32| {
            let folder = sys.join(format!("cpu/cpu{id}/topology"));
            let siblings = text(&folder.join("thread_siblings_list")).and_then(|t| t.parse::<CpuSet>().ok());
            let socket = text(&folder.join("physical_package_id")).and_then(|t| t.parse::<i64>().ok());
            Cpu {
                id,
                core: siblings.and_then(|set| set.iter().next()).unwrap_or(id),
                socket: socket.and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
                node: node_of.get(&id).copied().unwrap_or(0),
            }
        };
        Self { cpus: set("cpu/online").iter().map(cpu).collect(), nodes }
    }

    pub fn all(&self) -> CpuSet {
        self.cpus.iter().map(|cpu| cpu.id).collect()
    }

    /// The processors of those memory nodes.
    pub(crate) fn of_nodes(&self, nodes: &CpuSet) -> CpuSet {
        self.cpus.iter().filter(|cpu| nodes.contains(cpu.node)).map(|cpu| cpu.id).collect()
    }

    /// How many different ones there are of a level, such as cores.
    pub(crate) fn count(&self, level: fn(&Cpu) -> u32) -> usize {
        self.cpus.iter().map(level).collect::<CpuSet>().len()
    }

    pub(crate) fn threads_per_core(&self) -> usize {
        self.cpus.len() / self.count(|cpu| cpu.core).max(1)
    }
}

/// `Node 0 MemTotal:       16316412 kB`
fn node_memory(text: &str) -> u64 {
    let line = text.lines().find_map(|line| line.split_once("MemTotal:")).map(|(_, rest)| rest);
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    number.unwrap_or_default().saturating_mul(1024)
}

#[cfg(test)]
pub(crate) mod examples {
    use super::*;

    /// Sockets of nodes of cores of threads, numbered as Linux does it: all first threads, then all second ones.
    pub(crate) fn machine(sockets: u32, nodes: u32, cores: u32, threads: u32) -> Layout {
        let all = sockets * nodes * cores;
        let cpu = |id: u32| {
            let core = id % all;
            Cpu { id, core, socket: core / (nodes * cores), node: core / cores }
        };
        let nodes = (0..sockets * nodes).map(|node| (node, 8 << 30)).collect();
        Layout { cpus: (0..all * threads).map(cpu).collect(), nodes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_read_from_sysfs() {
        let sys = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = sys.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert_eq!(Layout::read(sys.path(), 7).nodes, BTreeMap::from([(0, 7)]));
        write("node/online", "0-1\n");
        write("cpu/online", "0-3\n");
        for node in 0..2 {
            write(&format!("node/node{node}/cpulist"), &format!("{node},{}\n", node + 2));
            write(
                &format!("node/node{node}/meminfo"),
                &format!("Node {node} MemTotal:  4 kB\nNode {node} MemFree: 1 kB"),
            );
        }
        for cpu in 0..4 {
            write(&format!("cpu/cpu{cpu}/topology/thread_siblings_list"), &format!("{},{}\n", cpu % 2, cpu % 2 + 2));
            write(&format!("cpu/cpu{cpu}/topology/physical_package_id"), "-1\n");
        }
        let layout = Layout::read(sys.path(), 0);
        assert_eq!(layout.nodes, BTreeMap::from([(0, 4096), (1, 4096)]));
        assert_eq!(layout.cpus[3], Cpu { id: 3, core: 1, socket: 0, node: 1 });
        assert_eq!(layout.threads_per_core(), 2);
    }
}

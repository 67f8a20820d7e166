//! Gives memory of certain nodes to containers of guaranteed pods.
//!
//! Source: the Static policy of `pkg/kubelet/cm/memorymanager`, for plain memory. Nodes that serve a container together
//! serve others only as that same group, so that no node is promised twice.

use crate::checkpoint::{self, CheckpointError};
use crate::cpu_set::CpuSet;
use crate::hints::{Hint, prefer, subsets};
use crate::options::BadOption;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

const SUM: &str = "checksum";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Block {
    #[serde(rename = "numaAffinity")]
    nodes: Vec<u32>,
    /// Bytes.
    size: u64,
    /// Of an init container: it ends before the others need theirs.
    #[serde(default)]
    passing: bool,
}

impl Block {
    fn nodes(&self) -> CpuSet {
        self.nodes.iter().copied().collect()
    }
}

type Blocks = BTreeMap<String, BTreeMap<String, Block>>;

#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    #[serde(rename = "policyName")]
    policy: String,
    #[serde(default)]
    entries: Blocks,
}

/// The memory of a machine.
pub(crate) struct Memory {
    /// Bytes that pods can have, by node.
    nodes: BTreeMap<u32, u64>,
    path: PathBuf,
    given: Blocks,
}

/// Checks that what nodes reserve is what the machine reserves, as upstream wants it.
pub(crate) fn check_reserved(nodes: &BTreeMap<u32, u64>, whole: u64) -> Result<(), BadOption> {
    let sum: u64 = nodes.values().sum();
    if sum != whole {
        return Err(BadOption(format!(
            "the total amount \"{sum}\" of type \"memory\" is not equal to the value \"{whole}\" determined by Node \
             Allocatable feature"
        )));
    }
    Ok(())
}

impl Memory {
    /// With what an earlier run gave out.
    ///
    /// # Errors
    /// The file of it is damaged.
    pub(crate) fn open(
        nodes: &BTreeMap<u32, u64>,
        reserved: &BTreeMap<u32, u64>,
        path: PathBuf,
    ) -> Result<Self, CheckpointError> {
        let left =
            |(node, bytes): (&u32, &u64)| (*node, bytes.saturating_sub(reserved.get(node).copied().unwrap_or(0)));
        let given = checkpoint::read::<State>(&path, SUM)?.map(|state| state.entries).unwrap_or_default();
        Ok(Self { nodes: nodes.iter().map(left).collect(), path, given })
    }

    pub(crate) fn allocatable(&self) -> &BTreeMap<u32, u64> {
        &self.nodes
    }

    pub(crate) fn of(&self, uid: &str, container: &str) -> Option<(CpuSet, u64)> {
        self.given.get(uid)?.get(container).map(|block| (block.nodes(), block.size))
    }

    /// Bytes of these nodes that are promised; `own` is the pod that asks, whose init containers give way.
    fn used(&self, nodes: &CpuSet, own: &str) -> u64 {
        let here = |block: &&Block| block.nodes().is_subset(nodes);
        let of_pod = |(uid, blocks): (&String, &BTreeMap<String, Block>)| {
            let lasting: u64 = blocks.values().filter(here).filter(|b| !b.passing).map(|b| b.size).sum();
            let passing = blocks.values().filter(here).filter(|b| b.passing && uid != own).map(|b| b.size).max();
            lasting.max(passing.unwrap_or(0))
        };
        self.given.iter().map(of_pod).sum()
    }

    fn total(&self, nodes: &CpuSet) -> u64 {
        nodes.iter().filter_map(|node| self.nodes.get(&node)).sum()
    }

    fn is_free(&self, nodes: &CpuSet, bytes: u64, uid: &str) -> bool {
        let blocks = self.given.values().flat_map(BTreeMap::values);
        let mut touching = blocks.map(Block::nodes).filter(|of| !of.and(nodes).is_empty());
        touching.all(|of| of == *nodes) && self.total(nodes).saturating_sub(self.used(nodes, uid)) >= bytes
    }

    /// The nodes that could serve so many bytes.
    pub(crate) fn hints(&self, uid: &str, bytes: u64) -> Vec<Hint> {
        let all: CpuSet = self.nodes.keys().copied().collect();
        let sets = subsets(&all);
        let smallest = sets.iter().filter(|nodes| self.total(nodes) >= bytes).map(CpuSet::len).min();
        let fitting = sets.into_iter().filter(|nodes| self.is_free(nodes, bytes, uid)).collect();
        prefer(fitting, smallest.unwrap_or(all.len()))
    }

    /// Gives a container memory of those nodes, or of the best ones; what it has already it keeps.
    ///
    /// # Errors
    /// In upstream's words.
    pub(crate) fn give(
        &mut self,
        (uid, container): (&str, &str),
        bytes: u64,
        nodes: Option<&CpuSet>,
        passing: bool,
    ) -> Result<(), String> {
        if self.of(uid, container).is_some() {
            return Ok(());
        }
        let hints = self.hints(uid, bytes);
        let wanted = hints.iter().find(|hint| hint.nodes.is_some() && hint.nodes.as_ref() == nodes);
        let chosen = wanted.or_else(|| hints.iter().find(|hint| hint.preferred)).or(hints.first());
        let Some(nodes) = chosen.and_then(|hint| hint.nodes.as_ref()) else {
            return Err(
                "[memorymanager] failed to get the default NUMA affinity, no NUMA nodes with enough memory is \
                        available"
                    .to_owned(),
            );
        };
        let block = Block { nodes: nodes.iter().collect(), size: bytes, passing };
        self.given.entry(uid.to_owned()).or_default().insert(container.to_owned(), block);
        self.keep().map_err(|e| e.to_string())
    }

    /// Takes back what pods have that are not among those.
    pub(crate) fn retain(&mut self, stays: impl Fn(&str) -> bool) {
        let before = self.given.len();
        self.given.retain(|uid, _| stays(uid));
        if self.given.len() != before
            && let Err(error) = self.keep()
        {
            tracing::warn!(%error, "what memory is given out can't be written down");
        }
    }

    fn keep(&self) -> Result<(), CheckpointError> {
        let state = State { policy: "Static".to_owned(), entries: self.given.clone() };
        checkpoint::write(&self.path, &state, SUM)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_by_nodes_and_groups_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let nodes = BTreeMap::from([(0, 10), (1, 10)]);
        let open =
            || Memory::open(&nodes, &BTreeMap::from([(0, 2)]), folder.path().join("memory_manager_state")).unwrap();
        let mut memory = open();
        let set = |text: &str| text.parse::<CpuSet>().unwrap();
        let count = |memory: &Memory, bytes| {
            memory
                .hints("new", bytes)
                .iter()
                .map(|h| (h.nodes.clone().unwrap().to_string(), h.preferred))
                .collect::<Vec<_>>()
        };
        let hint = |nodes: &str, preferred| (nodes.to_owned(), preferred);
        assert_eq!(count(&memory, 8), [hint("0", true), hint("1", true), hint("0-1", false)]);
        assert_eq!(count(&memory, 9), [hint("1", true), hint("0-1", false)]);
        memory.give(("u1", "c"), 5, None, false).unwrap();
        assert_eq!(memory.of("u1", "c"), Some((set("0"), 5)));
        // A node that serves alone joins no group.
        assert_eq!(count(&memory, 4), [hint("1", true)]);
        assert!(memory.give(("u2", "c"), 11, None, false).is_err());
        let mut memory = open();
        memory.retain(|_| false);
        memory.give(("u3", "init"), 12, None, true).unwrap();
        memory.give(("u3", "c"), 15, None, false).unwrap();
        assert_eq!(memory.of("u3", "c"), Some((set("0-1"), 15)));
        assert_eq!(count(&memory, 3), [hint("0-1", false)]);
        assert!(check_reserved(&BTreeMap::from([(0, 2)]), 3).is_err());
    }
}

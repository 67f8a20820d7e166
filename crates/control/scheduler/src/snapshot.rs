//! The nodes and what runs on them, kept up by single changes.

use crate::pod::PodInfo;
use crate::resources::Resources;
use pintle_types::k8s::api::core::v1::Node;
use pintle_types::{Kind, ObjectKey};
use std::collections::HashMap;
use std::sync::Arc;

/// A node and the pods that take of it.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    pub name: String,
    /// Absent while pods are bound to a node that is not known (any more).
    pub node: Option<Arc<Node>>,
    pub allocatable: Resources,
    pub requested: Resources,
    /// Thousandths of a core and bytes, with defaults for containers that name nothing: used to score only.
    pub(crate) scored: (i64, i64),
    pub(crate) pods: HashMap<ObjectKey, Arc<PodInfo>>,
}

impl NodeInfo {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            node: None,
            allocatable: Resources::default(),
            requested: Resources::default(),
            scored: (0, 0),
            pods: HashMap::new(),
        }
    }

    fn set_node(&mut self, node: Arc<Node>) {
        let allocatable = node.status.as_ref().and_then(|s| s.allocatable.as_ref());
        self.allocatable = allocatable.map(Resources::from_map).unwrap_or_default();
        self.node = Some(node);
    }

    fn add(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.scored.0 += pod.scored.0;
        self.scored.1 += pod.scored.1;
        self.pods.insert(pod.key.clone(), pod);
    }

    fn remove(&mut self, key: &ObjectKey) {
        let Some(pod) = self.pods.remove(key) else { return };
        self.requested.subtract(&pod.requests);
        self.scored.0 -= pod.scored.0;
        self.scored.1 -= pod.scored.1;
    }

    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        self.node.as_ref()?.label(key)
    }
}

/// All nodes. A change costs what changed.
#[derive(Debug, Default)]
pub struct Snapshot {
    nodes: Vec<NodeInfo>,
    by_name: HashMap<String, usize>,
    /// Where each pod counts.
    pods: HashMap<ObjectKey, usize>,
}

impl Snapshot {
    pub fn nodes(&self) -> &[NodeInfo] {
        &self.nodes
    }

    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.by_name.get(name).map(|i| &self.nodes[*i])
    }

    /// How many nodes can be chosen from.
    pub fn known_nodes(&self) -> usize {
        self.nodes.iter().filter(|n| n.node.is_some()).count()
    }

    fn slot(&mut self, name: &str) -> usize {
        if let Some(index) = self.by_name.get(name) {
            return *index;
        }
        self.nodes.push(NodeInfo::new(name));
        self.by_name.insert(name.to_owned(), self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    pub fn set_node(&mut self, node: Arc<Node>) {
        let slot = self.slot(node.name());
        self.nodes[slot].set_node(node);
    }

    /// The node is gone; the pods that are bound to it still count there until they go too.
    pub fn remove_node(&mut self, name: &str) {
        if let Some(slot) = self.by_name.get(name) {
            self.nodes[*slot].node = None;
            self.drop_if_empty(*slot);
        }
    }

    /// The pod counts on that node, wherever it counted before. Returns whether it counted anywhere.
    pub fn set_pod(&mut self, pod: Arc<PodInfo>, node: &str) -> bool {
        let known = self.remove_pod(&pod.key);
        let slot = self.slot(node);
        self.pods.insert(pod.key.clone(), slot);
        self.nodes[slot].add(pod);
        known
    }

    /// Returns whether the pod counted on a node.
    pub fn remove_pod(&mut self, key: &ObjectKey) -> bool {
        let Some(slot) = self.pods.remove(key) else { return false };
        self.nodes[slot].remove(key);
        self.drop_if_empty(slot);
        true
    }

    fn drop_if_empty(&mut self, slot: usize) {
        if self.nodes[slot].node.is_some() || !self.nodes[slot].pods.is_empty() {
            return;
        }
        let gone = self.nodes.swap_remove(slot);
        self.by_name.remove(&gone.name);
        let Some(moved) = self.nodes.get(slot) else { return };
        self.by_name.insert(moved.name.clone(), slot);
        for key in moved.pods.keys() {
            self.pods.insert(key.clone(), slot);
        }
    }
}

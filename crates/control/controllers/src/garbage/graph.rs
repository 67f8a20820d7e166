//! Who owns whom: the objects with owners, the owners that were seen, and what depends on them.

use crate::discovery::Resource;
use crate::metadata::Metadata;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    pub resource: Arc<Resource>,
    pub namespace: String,
    pub name: String,
}

impl Place {
    pub fn path(&self) -> String {
        self.resource.path(&self.namespace, &self.name)
    }
}

/// An object that owns or is owned by its own finalizers' wish: one that the collector has to do with.
#[derive(Clone, Debug)]
pub struct Node {
    pub place: Place,
    /// The uid of each owner, and whether the owner must wait for this object.
    pub owners: Vec<(String, bool)>,
    /// Is being deleted, its dependents first.
    pub deleting_dependents: bool,
    pub orphaning: bool,
}

#[derive(Default)]
struct Inner {
    /// Objects with owners or with a finalizer of the collector's, by uid.
    nodes: HashMap<String, Node>,
    /// The uids of all objects that exist, to know an owner that does from one that never did.
    existing: HashSet<String>,
    dependents: HashMap<String, HashSet<String>>,
}

/// The graph. One lock, held for moments only.
#[derive(Default)]
pub struct Graph(Mutex<Inner>);

impl Graph {
    /// Takes in an object as it is now. Returns the uids to look at because of it.
    pub fn put(&self, place: Place, meta: &Metadata) -> Vec<String> {
        let mut inner = self.0.lock();
        let node = Node {
            place,
            owners: meta
                .owner_references
                .iter()
                .map(|owner| (owner.uid.clone(), owner.block_owner_deletion.unwrap_or_default()))
                .collect(),
            deleting_dependents: meta.deletion_timestamp.is_some() && meta.has_finalizer("foregroundDeletion"),
            orphaning: meta.deletion_timestamp.is_some() && meta.has_finalizer("orphan"),
        };
        inner.existing.insert(meta.uid.clone());
        let before = inner.unlink(&meta.uid);
        let absent = node.owners.iter().any(|(owner, _)| !inner.existing.contains(owner));
        let mut look = Vec::new();
        // Owners that wait for their dependents may wait for one less.
        for (owner, _) in before.iter().flat_map(|before| &before.owners) {
            if inner.nodes.get(owner).is_some_and(|owner| owner.deleting_dependents) {
                look.push(owner.clone());
            }
        }
        let lost_owner = before.is_some_and(|before| before.owners != node.owners);
        let begins = node.deleting_dependents || node.orphaning;
        let waited_for =
            node.owners.iter().any(|(owner, _)| inner.nodes.get(owner).is_some_and(|owner| owner.deleting_dependents));
        if absent || begins || lost_owner || waited_for {
            look.push(meta.uid.clone());
        }
        if !node.owners.is_empty() || begins {
            inner.link(meta.uid.clone(), node);
        }
        look
    }

    /// Takes in that an object is gone. Returns the uids to look at: what it owned, and owners that waited for it.
    pub fn remove(&self, uid: &str) -> Vec<String> {
        let mut inner = self.0.lock();
        inner.existing.remove(uid);
        let node = inner.unlink(uid);
        let waiting = |owner: &&(String, bool)| inner.nodes.get(&owner.0).is_some_and(|node| node.deleting_dependents);
        let mut look: Vec<String> =
            node.iter().flat_map(|node| &node.owners).filter(waiting).map(|(owner, _)| owner.clone()).collect();
        look.extend(inner.dependents.get(uid).into_iter().flatten().cloned());
        look
    }

    pub fn node(&self, uid: &str) -> Option<Node> {
        self.0.lock().nodes.get(uid).cloned()
    }

    /// The objects that an object owns.
    pub fn dependents(&self, uid: &str) -> Vec<(String, Node)> {
        let inner = self.0.lock();
        let uids = inner.dependents.get(uid).into_iter().flatten();
        uids.filter_map(|uid| Some((uid.clone(), inner.nodes.get(uid)?.clone()))).collect()
    }

    /// The objects whose owners were never seen.
    pub fn with_absent_owners(&self) -> Vec<String> {
        let inner = self.0.lock();
        let absent = |node: &Node| node.owners.iter().any(|(owner, _)| !inner.existing.contains(owner));
        inner.nodes.iter().filter(|(_, node)| absent(node)).map(|(uid, _)| uid.clone()).collect()
    }
}

impl Inner {
    fn link(&mut self, uid: String, node: Node) {
        for (owner, _) in &node.owners {
            self.dependents.entry(owner.clone()).or_default().insert(uid.clone());
        }
        self.nodes.insert(uid, node);
    }

    fn unlink(&mut self, uid: &str) -> Option<Node> {
        let node = self.nodes.remove(uid)?;
        for (owner, _) in &node.owners {
            if let Some(dependents) = self.dependents.get_mut(owner) {
                dependents.remove(uid);
                if dependents.is_empty() {
                    self.dependents.remove(owner);
                }
            }
        }
        Some(node)
    }
}

//! The pods of one node: few, copied often when it is tried which must leave, and looked up soon after they came.

use crate::pod::PodInfo;
use pintle_types::ObjectKey;
use std::sync::Arc;

/// Pods in no order, each once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pods(Vec<Arc<PodInfo>>);

impl Pods {
    pub(crate) fn values(&self) -> impl Iterator<Item = &Arc<PodInfo>> {
        self.0.iter()
    }

    /// The latest are looked at first: news are mostly of those.
    fn place(&self, key: &ObjectKey) -> Option<usize> {
        self.0.iter().rposition(|pod| pod.key.name == key.name && pod.key.namespace == key.namespace)
    }

    /// The one of that namespace and name.
    pub(crate) fn named(&self, namespace: &str, name: &str) -> Option<&Arc<PodInfo>> {
        self.0.iter().rfind(|pod| pod.key.name == name && pod.key.namespace == namespace)
    }

    pub(crate) fn get(&self, key: &ObjectKey) -> Option<&Arc<PodInfo>> {
        self.place(key).map(|place| &self.0[place])
    }

    pub(crate) fn get_mut(&mut self, key: &ObjectKey) -> Option<&mut Arc<PodInfo>> {
        self.place(key).map(|place| &mut self.0[place])
    }

    /// Becomes a copy of another, in the memory that it has.
    pub(crate) fn copy_from(&mut self, other: &Self) {
        self.0.clone_from(&other.0);
    }

    /// Adds a pod that is not among them.
    pub(crate) fn add(&mut self, pod: Arc<PodInfo>) {
        self.0.push(pod);
    }

    pub(crate) fn remove(&mut self, key: &ObjectKey) -> Option<Arc<PodInfo>> {
        self.place(key).map(|place| self.0.swap_remove(place))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

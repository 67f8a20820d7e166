//! The pods of one node: copied often when it is tried which must leave, and looked up with all news of them.

use crate::pod::PodInfo;
use pintle_types::ObjectKey;
use std::sync::Arc;

/// Pods by name and namespace, in a list: a copy is one piece of memory, and a node of thousands is searched as soon.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pods(Vec<Arc<PodInfo>>);

impl Pods {
    pub(crate) fn values(&self) -> impl Iterator<Item = &Arc<PodInfo>> {
        self.0.iter()
    }

    /// Where the pod is, or belongs.
    fn place(&self, namespace: &str, name: &str) -> Result<usize, usize> {
        let key = |pod: &'_ Arc<PodInfo>| {
            pod.key.name.as_str().cmp(name).then_with(|| pod.key.namespace.as_str().cmp(namespace))
        };
        self.0.binary_search_by(key)
    }

    /// The one of that namespace and name.
    pub(crate) fn named(&self, namespace: &str, name: &str) -> Option<&Arc<PodInfo>> {
        self.place(namespace, name).ok().map(|place| &self.0[place])
    }

    pub(crate) fn get(&self, key: &ObjectKey) -> Option<&Arc<PodInfo>> {
        self.named(&key.namespace, &key.name)
    }

    pub(crate) fn get_mut(&mut self, key: &ObjectKey) -> Option<&mut Arc<PodInfo>> {
        self.place(&key.namespace, &key.name).ok().map(|place| &mut self.0[place])
    }

    /// Becomes a copy of another, in the memory that it has.
    pub(crate) fn copy_from(&mut self, other: &Self) {
        self.0.clone_from(&other.0);
    }

    /// Adds a pod, in the place of one of its name.
    pub(crate) fn add(&mut self, pod: Arc<PodInfo>) {
        match self.place(&pod.key.namespace, &pod.key.name) {
            Ok(place) => self.0[place] = pod,
            Err(place) => self.0.insert(place, pod),
        }
    }

    pub(crate) fn remove(&mut self, key: &ObjectKey) -> Option<Arc<PodInfo>> {
        self.place(&key.namespace, &key.name).ok().map(|place| self.0.remove(place))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::pod;
    use serde_json::json;

    fn of(namespace: &str, name: &str) -> Arc<PodInfo> {
        pod(name, json!({ "metadata": { "namespace": namespace } }))
    }

    #[test]
    fn pods_are_found_by_name_and_namespace() {
        let mut pods = Pods::default();
        for (namespace, name) in [("b", "web-2"), ("a", "web-1"), ("b", "web-1"), ("a", "web-10"), ("a", "db")] {
            pods.add(of(namespace, name));
        }
        let order: Vec<String> = pods.values().map(|pod| pod.key.to_string()).collect();
        assert_eq!(order, ["a/db", "a/web-1", "b/web-1", "a/web-10", "b/web-2"]);
        assert!(pods.named("a", "web-1").is_some() && pods.named("b", "db").is_none());
        let key = ObjectKey::new("a", "web-1");
        assert_eq!(pods.remove(&key).map(|pod| pod.key.clone()), Some(key.clone()));
        assert!(pods.remove(&key).is_none() && pods.get(&key).is_none() && pods.get_mut(&key).is_none());
        assert_eq!(pods.values().count(), 4);
        pods.add(of("b", "web-2"));
        assert_eq!(pods.values().count(), 4, "each once");
    }
}

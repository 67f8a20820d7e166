//! On which node each pod counts, found by its key, and namespace by namespace.

use pintle_types::ObjectKey;
use std::collections::HashMap;

/// The places of nodes by pod.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// By namespace and name.
    places: HashMap<String, HashMap<String, usize>>,
    count: usize,
}

impl Places {
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn get(&self, pod: &ObjectKey) -> Option<usize> {
        self.places.get(&pod.namespace)?.get(&pod.name).copied()
    }

    pub(crate) fn insert(&mut self, pod: &ObjectKey, place: usize) {
        let of_namespace = match self.places.get_mut(&pod.namespace) {
            Some(known) => known,
            None => self.places.entry(pod.namespace.clone()).or_default(),
        };
        if of_namespace.insert(pod.name.clone(), place).is_none() {
            self.count += 1;
        }
    }

    pub(crate) fn remove(&mut self, pod: &ObjectKey) -> Option<usize> {
        let of_namespace = self.places.get_mut(&pod.namespace)?;
        let place = of_namespace.remove(&pod.name)?;
        self.count -= 1;
        if of_namespace.is_empty() {
            self.places.remove(&pod.namespace);
        }
        Some(place)
    }

    /// The names of a namespace's pods, with their places.
    pub(crate) fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = (&str, usize)> {
        let of_namespace = self.places.get(namespace).into_iter().flatten();
        of_namespace.map(|(name, place)| (name.as_str(), *place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_found_by_key_and_by_namespace() {
        let (a, b, other) = (ObjectKey::new("x", "a"), ObjectKey::new("x", "b"), ObjectKey::new("y", "a"));
        let mut places = Places::default();
        for (place, pod) in [&a, &b, &other, &a].into_iter().enumerate() {
            places.insert(pod, place);
        }
        assert_eq!((places.len(), places.get(&a), places.get(&ObjectKey::new("y", "b"))), (3, Some(3), None));
        let mut of_x: Vec<_> = places.in_namespace("x").collect();
        of_x.sort_unstable();
        assert_eq!(of_x, [("a", 3), ("b", 1)]);
        assert_eq!((places.remove(&other), places.remove(&other), places.len()), (Some(2), None, 2));
        assert_eq!(places.in_namespace("y").count(), 0);
    }
}

//! Which pods belong together where they don't say so themselves: by the selectors of Services and of their owners.
//!
//! Source: upstream's `helper.DefaultSelector`, by which pods without constraints of their own are spread.

use crate::pod::PodInfo;
use crate::terms::{VARYING, varying};
use pintle_types::k8s::api::apps::v1::{ReplicaSet, StatefulSet};
use pintle_types::k8s::api::core::v1::{ReplicationController, Service};
use pintle_types::selector::LabelSelector;
use pintle_types::{Kind, ObjectKey};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Who makes pods that are alike.
#[derive(Clone, Debug)]
pub enum Owner {
    ReplicationController(Arc<ReplicationController>),
    ReplicaSet(Arc<ReplicaSet>),
    StatefulSet(Arc<StatefulSet>),
}

impl Owner {
    /// The version and kind by which pods name such an owner.
    fn kind(&self) -> (&'static str, &'static str) {
        match self {
            Self::ReplicationController(_) => ("v1", "ReplicationController"),
            Self::ReplicaSet(_) => ("apps/v1", "ReplicaSet"),
            Self::StatefulSet(_) => ("apps/v1", "StatefulSet"),
        }
    }

    fn key(&self) -> ObjectKey {
        match self {
            Self::ReplicationController(owner) => owner.key(),
            Self::ReplicaSet(owner) => owner.key(),
            Self::StatefulSet(owner) => owner.key(),
        }
    }

    /// What a pod has to have to be one of the owner's; one that is absent or wrong asks for nothing.
    fn selector(&self) -> LabelSelector {
        let selector = match self {
            Self::ReplicationController(owner) => {
                LabelSelector::from_map(owner.spec.iter().flat_map(|spec| spec.selector.iter().flatten()))
            }
            Self::ReplicaSet(owner) => LabelSelector::from_typed(owner.spec.as_ref().map(|spec| &spec.selector)),
            Self::StatefulSet(owner) => LabelSelector::from_typed(owner.spec.as_ref().map(|spec| &spec.selector)),
        };
        if selector.nothing { LabelSelector::default() } else { selector }
    }

    /// Whether the pod names it as its controller.
    fn owns(&self, pod: &PodInfo) -> bool {
        let key = self.key();
        pod.key.namespace == key.namespace
            && controller(pod).is_some_and(|(kind, name)| kind == self.kind() && name == key.name)
    }
}

/// The version, kind and name of the pod's controller.
fn controller(pod: &PodInfo) -> Option<((&str, &str), &str)> {
    let owner = pod.pod.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))?;
    Some(((owner.api_version.as_str(), owner.kind.as_str()), owner.name.as_str()))
}

/// Whether a Service is one of the pod's; one that selects nothing is nobody's.
fn serves(service: &Service, pod: &PodInfo) -> bool {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|labels| labels.iter().all(|(key, value)| pod.label(key) == Some(value)))
}

fn selected(service: &Service) -> impl Iterator<Item = (&String, &String)> {
    service.spec.iter().flat_map(|spec| spec.selector.iter().flatten())
}

/// The Services and owners that are there.
#[derive(Debug, Default)]
pub(crate) struct Selectors {
    /// By namespace and name.
    services: HashMap<String, HashMap<String, Arc<Service>>>,
    owners: HashMap<&'static str, HashMap<ObjectKey, Owner>>,
    /// How many of them ask for each of the labels that vary within a kind of pods.
    varying: [usize; VARYING.len()],
}

impl Selectors {
    /// The Service as it is now. Returns whose selectors are others then: of pods in its namespace that either serves.
    pub(crate) fn set_service(
        &mut self,
        key: &ObjectKey,
        new: Option<Arc<Service>>,
    ) -> impl Fn(&PodInfo) -> bool + use<> {
        let of_namespace = self.services.entry(key.namespace.clone()).or_default();
        let old = match &new {
            Some(new) => of_namespace.insert(key.name.clone(), Arc::clone(new)),
            None => of_namespace.remove(&key.name),
        };
        if of_namespace.is_empty() {
            self.services.remove(&key.namespace);
        }
        let selector = |service: &Option<Arc<Service>>| {
            service.as_ref().and_then(|service| service.spec.as_ref()).and_then(|spec| spec.selector.clone())
        };
        let differs = selector(&old) != selector(&new);
        if differs {
            let bits = |service: &Option<Arc<Service>>| {
                service.as_ref().map_or(0, |service| varying(selected(service).map(|(key, _)| key.as_str())))
            };
            self.count_varying(bits(&old), false);
            self.count_varying(bits(&new), true);
        }
        let namespace = key.namespace.clone();
        move |pod: &PodInfo| {
            differs && pod.key.namespace == namespace && [&old, &new].into_iter().flatten().any(|s| serves(s, pod))
        }
    }

    /// An owner as it is now, or as it was when it is gone. Returns whose selectors are others then: those of its pods.
    pub(crate) fn set_owner(&mut self, owner: Owner, there: bool) -> impl Fn(&PodInfo) -> bool + use<> {
        let of_kind = self.owners.entry(owner.kind().1).or_default();
        let old = match there {
            true => of_kind.insert(owner.key(), owner.clone()),
            false => of_kind.remove(&owner.key()),
        };
        let old = old.map(|old| old.selector());
        let new = there.then(|| owner.selector());
        let differs = old != new;
        if differs {
            let bits = |selector: &Option<LabelSelector>| {
                varying(selector.iter().flat_map(|s| &s.requirements).map(|requirement| requirement.key.as_str()))
            };
            self.count_varying(bits(&old), false);
            self.count_varying(bits(&new), true);
        }
        move |pod: &PodInfo| differs && owner.owns(pod)
    }

    fn count_varying(&mut self, bits: u8, comes: bool) {
        for (_, count) in self.varying.iter_mut().enumerate().filter(|(i, _)| bits & (1 << i) != 0) {
            *count = if comes { *count + 1 } else { count.saturating_sub(1) };
        }
    }

    /// Which of the labels that vary within a kind of pods any of them asks for, as bits.
    pub(crate) fn asks_for(&self) -> u8 {
        self.varying.iter().enumerate().filter(|(_, count)| **count > 0).fold(0, |bits, (i, _)| bits | 1 << i)
    }

    /// What the pod's Services and its owner select by, all of it together; empty when there are none.
    pub(crate) fn of(&self, pod: &PodInfo) -> LabelSelector {
        let mut labels: BTreeMap<&String, &String> = BTreeMap::new();
        let services = self.services.get(&pod.key.namespace).into_iter().flat_map(HashMap::values);
        for service in services.filter(|service| serves(service, pod)) {
            labels.extend(selected(service));
        }
        let mut selector = LabelSelector::from_map(labels);
        let Some(owner) = self.owner_of(pod) else { return selector };
        for requirement in owner.selector().requirements {
            if !selector.requirements.contains(&requirement) {
                selector.requirements.push(requirement);
            }
        }
        selector
    }

    fn owner_of(&self, pod: &PodInfo) -> Option<&Owner> {
        let (kind, name) = controller(pod)?;
        let owner = self.owners.get(kind.1)?.get(&ObjectKey::new(pod.key.namespace.as_str(), name))?;
        (owner.kind() == kind).then_some(owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::pod;
    use serde_json::{Value, json};

    fn service(name: &str, selector: Value) -> Arc<Service> {
        let metadata = json!({ "namespace": "default", "name": name });
        Arc::new(Service::from_value(json!({ "metadata": metadata, "spec": { "selector": selector } })).unwrap())
    }

    fn owner(kind: &str, selector: Value) -> Owner {
        let metadata = json!({ "namespace": "default", "name": "web" });
        let value =
            json!({ "metadata": metadata, "spec": { "selector": selector, "template": {}, "serviceName": "" } });
        match kind {
            "ReplicaSet" => Owner::ReplicaSet(Arc::new(ReplicaSet::from_value(value).unwrap())),
            "StatefulSet" => Owner::StatefulSet(Arc::new(StatefulSet::from_value(value).unwrap())),
            _ => Owner::ReplicationController(Arc::new(ReplicationController::from_value(value).unwrap())),
        }
    }

    fn owned(version: &str, kind: &str) -> Arc<PodInfo> {
        let owner = json!([{ "apiVersion": version, "kind": kind, "name": "web", "uid": "u", "controller": true }]);
        let labels = json!({ "app": "web", "tier": "front", "hash": "1" });
        pod("p", json!({ "metadata": { "labels": labels, "ownerReferences": owner } }))
    }

    fn all() -> Selectors {
        let mut all = Selectors::default();
        for (name, selector) in [
            ("a", json!({ "app": "web" })),
            ("b", json!({ "tier": "front" })),
            ("other", json!({ "app": "db" })),
            ("nobody's", Value::Null),
        ] {
            let _ = all.set_service(&ObjectKey::new("default", name), Some(service(name, selector)));
        }
        for (kind, selector) in [
            ("ReplicaSet", json!({ "matchLabels": { "app": "web", "hash": "1" } })),
            ("StatefulSet", json!({ "matchExpressions": [{ "key": "hash", "operator": "Exists" }] })),
            ("ReplicationController", json!({ "hash": "1" })),
        ] {
            let _ = all.set_owner(owner(kind, selector), true);
        }
        all
    }

    #[test]
    fn services_and_the_owner_select_together() {
        for (version, kind, expected) in [
            ("apps/v1", "ReplicaSet", "app in (web),tier in (front),hash in (1)"),
            ("apps/v1", "StatefulSet", "app in (web),tier in (front),hash"),
            ("v1", "ReplicationController", "app in (web),tier in (front),hash in (1)"),
            ("apps/v1", "DaemonSet", "app in (web),tier in (front)"),
            ("extensions/v1beta1", "ReplicaSet", "app in (web),tier in (front)"),
        ] {
            let expected = LabelSelector::parse(expected).unwrap();
            assert_eq!(all().of(&owned(version, kind)), expected, "{version} {kind}");
        }
        let stranger = pod("p", json!({ "metadata": { "namespace": "elsewhere" } }));
        assert!(all().of(&stranger).is_everything());
    }

    #[test]
    fn a_change_concerns_the_pods_that_it_selects_before_or_after() {
        let (mut all, key, pod) = (all(), ObjectKey::new("default", "a"), owned("apps/v1", "ReplicaSet"));
        assert!(!all.set_service(&key, Some(service("a", json!({ "app": "web" }))))(&pod), "nothing changed");
        assert!(all.set_service(&key, Some(service("a", json!({ "app": "db" }))))(&pod), "it was the pod's");
        assert!(!all.set_service(&key, Some(service("a", json!({ "app": "queue" }))))(&pod), "it never was");
        assert!(!all.set_service(&key, None)(&pod));
        let owner = owner("ReplicaSet", json!({ "matchLabels": { "app": "web", "hash": "1" } }));
        assert!(!all.set_owner(owner.clone(), true)(&pod), "nothing changed");
        assert!(all.set_owner(owner, false)(&pod));
    }

    #[test]
    fn services_of_single_pods_make_their_label_matter() {
        let (mut all, key) = (all(), ObjectKey::new("default", "one"));
        assert_eq!(all.asks_for(), 0);
        let one = service("one", json!({ "statefulset.kubernetes.io/pod-name": "web-1" }));
        let _ = all.set_service(&key, Some(one));
        assert_eq!(all.asks_for(), 0b10);
        let _ = all.set_service(&key, None);
        assert_eq!(all.asks_for(), 0);
    }
}

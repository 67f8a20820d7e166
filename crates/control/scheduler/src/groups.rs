//! Pods that wait for a change, with those whom the same changes help: each change is held against one of a group.

use crate::dra::has_claims;
use crate::filter::Plugins;
use crate::hints::{Event, helps};
use crate::kinds::ask_alike;
use crate::pod::PodInfo;
use crate::volumes::has_disks;
use pintle_types::ObjectKey;
use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// Pods that are alike, and who refused them; never empty.
#[derive(Debug)]
struct Group {
    refused_by: Plugins,
    pods: BTreeMap<ObjectKey, Arc<PodInfo>>,
}

#[derive(Debug, Default)]
pub(crate) struct Groups(HashMap<u64, Vec<Group>>);

/// Whether nobody else is helped by just what helps the pod.
fn is_alone(pod: &PodInfo) -> bool {
    has_claims(pod) || has_disks(pod)
}

/// Whether the same changes help both, but for what is promised to one of them.
fn alike(a: &PodInfo, b: &PodInfo) -> bool {
    let policy = |pod: &PodInfo| pod.spec().preemption_policy.as_deref() == Some("Never");
    a.key == b.key
        || a.key.namespace == b.key.namespace
            && a.claims == b.claims
            && policy(a) == policy(b)
            && ask_alike(a, b)
            && !is_alone(a)
            && !is_alone(b)
}

/// The same for pods that are alike.
fn hash(pod: &PodInfo) -> u64 {
    let mut hasher = DefaultHasher::new();
    let requests = &pod.requests;
    (&pod.key.namespace, pod.priority, requests.milli_cpu, requests.memory).hash(&mut hasher);
    pod.claims.iter().for_each(|used| used.name.hash(&mut hasher));
    if is_alone(pod) {
        pod.key.name.hash(&mut hasher);
    }
    hasher.finish()
}

impl Groups {
    pub(crate) fn enter(&mut self, pod: &Arc<PodInfo>, refused_by: Plugins) {
        let groups = self.0.entry(hash(pod)).or_default();
        let own = |group: &&mut Group| {
            group.refused_by == refused_by && group.pods.values().next().is_some_and(|first| alike(first, pod))
        };
        match groups.iter_mut().find(own) {
            Some(group) => drop(group.pods.insert(pod.key.clone(), Arc::clone(pod))),
            None => groups.push(Group { refused_by, pods: [(pod.key.clone(), Arc::clone(pod))].into() }),
        }
    }

    /// The pod, as it was when it entered, waits no more.
    pub(crate) fn leave(&mut self, pod: &PodInfo) {
        let hash = hash(pod);
        let Some(groups) = self.0.get_mut(&hash) else { return };
        groups.retain_mut(|group| {
            group.pods.remove(&pod.key);
            !group.pods.is_empty()
        });
        if groups.is_empty() {
            self.0.remove(&hash);
        }
    }

    /// Those whom a change could help.
    pub(crate) fn helped(&self, event: &Event) -> Vec<ObjectKey> {
        self.0.values().flatten().flat_map(|group| group.helped(event)).cloned().collect()
    }
}

impl Group {
    fn helped<'a>(&'a self, event: &'a Event) -> impl Iterator<Item = &'a ObjectKey> {
        let helped = |pod: &PodInfo| helps(event, self.refused_by, pod);
        // Those who are promised what the change is about are held against it one by one, the others as one.
        let is_promised = |key: &ObjectKey| event.promised_to().any(|promised| promised == key);
        let others = || self.pods.iter().filter(move |(key, _)| !is_promised(key));
        let all = others().next().is_some_and(|(_, pod)| helped(pod));
        let others = others().take_while(move |_| all);
        let promised = event.promised_to().filter_map(|key| self.pods.get_key_value(key));
        others.chain(promised.filter(move |(_, pod)| helped(pod))).map(|(key, _)| key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Snapshot;
    use crate::filter::Plugin;
    use crate::room::Room;
    use crate::snapshot::NodeInfo;
    use crate::tests::{merge, node, pod, snapshot};
    use serde_json::{Value, json};
    use std::collections::BTreeSet;

    fn of(plugin: Plugin) -> Plugins {
        let mut plugins = Plugins::default();
        plugins.insert(plugin);
        plugins
    }

    fn sized(name: &str, cpu: &str, more: Value) -> Arc<PodInfo> {
        let container = json!({ "name": "c", "resources": { "requests": { "cpu": cpu } } });
        let mut value = json!({ "spec": { "containers": [container], "priority": 5 } });
        merge(&mut value, more);
        pod(name, value)
    }

    /// Pods of several kinds, of some of them many.
    fn waiting() -> Vec<(Arc<PodInfo>, Plugins)> {
        let claim = |name: &str| json!({ "spec": { "volumes": [{ "name": "v", "persistentVolumeClaim": { "claimName": name } }] } });
        let disk = json!({ "spec": { "volumes": [{ "name": "v", "gcePersistentDisk": { "pdName": "d" } }] } });
        let devices =
            |claim: &str| json!({ "spec": { "resourceClaims": [{ "name": "c", "resourceClaimName": claim }] } });
        let port =
            json!({ "spec": { "containers": [{ "name": "c", "ports": [{ "containerPort": 80, "hostPort": 80 }] }] } });
        let mut out = Vec::new();
        for i in 0..4 {
            let own = |kind: &str| format!("{kind}-{i}");
            out.push((sized(&own("small"), "500m", json!({})), of(Plugin::NodeResourcesFit)));
            out.push((sized(&own("big"), "2", json!({})), of(Plugin::NodeResourcesFit)));
            let never = json!({ "spec": { "preemptionPolicy": "Never" } });
            out.push((sized(&own("meek"), "2", never), of(Plugin::NodeResourcesFit)));
            out.push((
                sized(&own("zoned"), "1", json!({ "spec": { "nodeSelector": { "zone": "a" } } })),
                of(Plugin::NodeAffinity),
            ));
            out.push((sized(&own("claims"), "1", claim(&own("c"))), of(Plugin::VolumeBinding)));
            out.push((sized(&own("disk"), "1", disk.clone()), of(Plugin::VolumeRestrictions)));
            out.push((sized(&own("devices"), "1", devices(&own("d"))), of(Plugin::DynamicResources)));
            out.push((sized(&own("port"), "1", port.clone()), of(Plugin::NodePorts)));
        }
        out
    }

    /// A cluster whose node `a` is promised to two of those that wait; what is left there when a pod went.
    fn room(state: &mut Snapshot, pods: &[(Arc<PodInfo>, Plugins)]) -> Arc<Room> {
        for (pod, _) in pods.iter().filter(|(pod, _)| ["small-1", "big-2"].contains(&pod.key.name.as_str())) {
            state.nominate(Arc::clone(pod), "a");
        }
        Arc::new(Room::of(state.node("a").unwrap(), state))
    }

    #[test]
    fn a_change_helps_the_same_pods_as_if_each_was_asked() {
        let pods = waiting();
        let mut groups = Groups::default();
        pods.iter().for_each(|(pod, by)| groups.enter(pod, *by));
        assert!(groups.0.values().flatten().count() < pods.len(), "some are alike");
        let low = pod("low", json!({ "spec": { "priority": 1 } }));
        let mut state = snapshot(&[node("a", json!({ "status": { "allocatable": { "cpu": "3" } } }))], &[(low, "a")]);
        let empty = Arc::new(Room::of(state.node("a").unwrap(), &state));
        let gone =
            |name: &str| pods.iter().find(|(pod, _)| pod.key.name == name).map(|(pod, _)| Arc::clone(pod)).unwrap();
        let zoned = node("b", json!({ "metadata": { "labels": { "zone": "a" } } }));
        let events = [
            Event::PodGone(gone("small-0"), Some(room(&mut state, &pods))),
            Event::PodGone(gone("port-0"), Some(empty)),
            Event::PodGone(gone("disk-3"), None),
            Event::NodeAdded(Box::new(NodeInfo::alone(&zoned))),
            Event::ClaimChanged(ObjectKey::new("default", "c-2")),
            Event::DeviceClaimChanged { claim: ObjectKey::new("default", "d-1"), freed: false },
            Event::NodeGone,
        ];
        let check = |groups: &Groups, left: &[(Arc<PodInfo>, Plugins)]| {
            for (i, event) in events.iter().enumerate() {
                let helped = |(pod, by): &&(Arc<PodInfo>, Plugins)| helps(event, *by, pod);
                let expected: BTreeSet<ObjectKey> =
                    left.iter().filter(helped).map(|(pod, _)| pod.key.clone()).collect();
                let told = groups.helped(event);
                assert_eq!(told.iter().cloned().collect::<BTreeSet<_>>(), expected, "event {i}");
                assert_eq!(told.len(), expected.len(), "event {i}: each once");
            }
        };
        check(&groups, &pods);
        let (gone, left) = pods.split_at(9);
        gone.iter().for_each(|(pod, _)| groups.leave(pod));
        check(&groups, left);
        left.iter().for_each(|(pod, _)| groups.leave(pod));
        assert!(groups.0.is_empty());
    }
}

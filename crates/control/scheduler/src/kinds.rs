//! What is kept for the last kinds of pods. The replicas of a Deployment ask the same of nodes and are counted alike, so
//! what was worked out for one holds for the next.

use crate::pod::PodInfo;
use crate::profile::Profile;
use crate::terms::{VARYING, varying};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// The last so many kinds, by the pod that was the first of each and the profile that it asked for.
#[derive(Debug)]
pub(crate) struct Kinds<T, const MOST: usize> {
    entries: Vec<Entry<T>>,
    clock: u64,
}

#[derive(Debug)]
struct Entry<T> {
    hash: u64,
    owner: Arc<PodInfo>,
    profile: Arc<Profile>,
    kept: T,
    used: u64,
}

impl<T, const MOST: usize> Default for Kinds<T, MOST> {
    fn default() -> Self {
        Self { entries: Vec::new(), clock: 0 }
    }
}

impl<T, const MOST: usize> Kinds<T, MOST> {
    /// What is kept for the pod's kind: `same` tells whether the first of a kind and the pod are of one.
    pub(crate) fn find(
        &mut self,
        pod: &PodInfo,
        profile: &Arc<Profile>,
        same: impl Fn(&PodInfo) -> bool,
    ) -> Option<&mut T> {
        if self.entries.is_empty() {
            return None;
        }
        self.clock += 1;
        let hash = hash(pod);
        let known = |e: &&mut Entry<T>| e.hash == hash && Arc::ptr_eq(&e.profile, profile) && same(&e.owner);
        let entry = self.entries.iter_mut().find(known)?;
        entry.used = self.clock;
        Some(&mut entry.kept)
    }

    /// Keeps it for the pod's kind, in the place of the one that was not asked for the longest when there are too many.
    pub(crate) fn insert(&mut self, pod: &PodInfo, profile: &Arc<Profile>, kept: T) {
        if self.entries.len() >= MOST
            && let Some(oldest) = (0..self.entries.len()).min_by_key(|i| self.entries[*i].used)
        {
            self.entries.swap_remove(oldest);
        }
        let (owner, profile) = (Arc::new(pod.clone()), Arc::clone(profile));
        self.entries.push(Entry { hash: hash(pod), owner, profile, kept, used: self.clock });
    }

    /// All that is kept, with the pod and the profile of each.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&PodInfo, &Profile, &mut T)> {
        self.entries.iter_mut().map(|entry| (&*entry.owner, &*entry.profile, &mut entry.kept))
    }

    /// Leaves those of pods for which it is so.
    pub(crate) fn retain(&mut self, mut stays: impl FnMut(&PodInfo) -> bool) {
        self.entries.retain(|entry| stays(&entry.owner));
    }
}

fn hash(pod: &PodInfo) -> u64 {
    let mut hasher = DefaultHasher::new();
    pod.key.namespace.hash(&mut hasher);
    let labels = pod.pod.metadata.labels.iter().flatten();
    labels.filter(|(key, _)| !VARYING.contains(&key.as_str())).for_each(|label| label.hash(&mut hasher));
    hasher.finish()
}

/// Which of the labels that vary within a kind the pod's own rules ask for, as bits.
fn asks_for(pod: &PodInfo) -> u8 {
    let terms = pod.terms.as_ref().map_or(0, |terms| terms.varying());
    let constraints = pod.spec().topology_spread_constraints.iter().flatten();
    constraints.fold(terms, |bits, constraint| {
        let selector = constraint.label_selector.as_ref();
        let labels = selector.iter().flat_map(|s| s.match_labels.iter().flatten()).map(|(key, _)| key.as_str());
        let rules = selector.iter().flat_map(|s| s.match_expressions.iter().flatten()).map(|rule| rule.key.as_str());
        let keys = constraint.match_label_keys.iter().flatten().map(String::as_str);
        bits | varying(labels.chain(rules).chain(keys))
    })
}

/// Whether both have the same labels, as far as anybody asks for them.
fn same_labels(a: &PodInfo, b: &PodInfo, asked: u8) -> bool {
    let matters = |key: &str| VARYING.iter().position(|varying| *varying == key).is_none_or(|i| asked & (1 << i) != 0);
    let [first, second] = [a, b].map(|p| p.pod.metadata.labels.iter().flatten().filter(|(key, _)| matters(key)));
    first.eq(second)
}

/// Whether the same is counted for both: all that counting looks at is the same. `asked` are the labels that vary and
/// that running pods ask for.
pub(crate) fn counted_alike(a: &PodInfo, b: &PodInfo, asked: u8) -> bool {
    let owner = |p: &PodInfo| {
        let owners = p.pod.metadata.owner_references.iter().flatten();
        owners.filter(|o| o.controller == Some(true)).map(|o| o.uid.clone()).next()
    };
    let (first, second) = (a.spec(), b.spec());
    a.key.namespace == b.key.namespace
        && same_labels(a, b, asked | asks_for(b))
        && first.affinity == second.affinity
        && first.topology_spread_constraints == second.topology_spread_constraints
        && first.node_selector == second.node_selector
        && first.tolerations == second.tolerations
        && owner(a) == owner(b)
}

/// Whether the verdict on a node by itself is the same for both, those included who are promised room there and whom they
/// must not meet; as long as neither is promised anything there. None of those may ask for the labels that vary.
pub(crate) fn judged_alike(a: &PodInfo, b: &PodInfo) -> bool {
    a.key.namespace == b.key.namespace && same_labels(a, b, asks_for(b)) && ask_alike(a, b)
}

/// Whether both ask the same of a node by itself and may have the same pods leave it, as long as neither is promised
/// anything there.
pub(crate) fn ask_alike(a: &PodInfo, b: &PodInfo) -> bool {
    let (first, second) = (a.spec(), b.spec());
    a.priority == b.priority
        && a.requests == b.requests
        && a.ports == b.ports
        && first.node_name == second.node_name
        && first.affinity == second.affinity
        && first.node_selector == second.node_selector
        && first.tolerations == second.tolerations
}

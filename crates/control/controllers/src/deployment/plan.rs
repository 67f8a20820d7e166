//! The arithmetic of rollouts: how many pods there may be, and which ReplicaSet gets how many.

use super::revision::{DESIRED, MAX};
use pintle_types::Kind;
use pintle_types::k8s::api::apps::v1::{Deployment, ReplicaSet};
use pintle_types::k8s::apimachinery::pkg::util::intstr::IntOrString;
use std::cmp::Reverse;
use std::sync::Arc;

/// A new size for a ReplicaSet.
#[derive(Clone, Debug)]
pub struct Resize {
    pub set: Arc<ReplicaSet>,
    pub replicas: i32,
}

/// What a Deployment asks for, with percentages resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub replicas: i32,
    /// Pods beyond `replicas` during a rolling update.
    pub surge: i32,
    /// Pods that may be missing during a rolling update.
    pub unavailable: i32,
    pub rolling: bool,
}

impl Wanted {
    pub fn of(deployment: &Deployment) -> Self {
        let spec = deployment.spec.as_ref();
        let replicas = spec.and_then(|spec| spec.replicas).unwrap_or(1);
        let strategy = spec.and_then(|spec| spec.strategy.as_ref());
        let rolling = strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("Recreate");
        if !rolling {
            return Self { replicas, surge: 0, unavailable: 0, rolling };
        }
        let update = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let surge = resolve(update.and_then(|update| update.max_surge.as_ref()), replicas, true);
        let mut unavailable = resolve(update.and_then(|update| update.max_unavailable.as_ref()), replicas, false);
        if surge == 0 && unavailable == 0 {
            // Both were percentages of few pods: without one of them no update could begin.
            unavailable = 1;
        }
        Self { replicas, surge, unavailable: unavailable.min(replicas), rolling }
    }

    /// The most pods there may be.
    pub fn max_total(&self) -> i32 {
        self.replicas.saturating_add(self.surge)
    }

    /// The fewest pods that must be available.
    pub fn min_available(&self) -> i32 {
        self.replicas - self.unavailable
    }
}

/// A number or a percentage; the API's default is 25 %.
pub fn resolve(value: Option<&IntOrString>, total: i32, round_up: bool) -> i32 {
    let percent = match value {
        Some(IntOrString::Int(number)) => return (*number).max(0),
        Some(IntOrString::String(text)) => text.strip_suffix('%').and_then(|text| text.parse().ok()).unwrap_or(0_i64),
        None => 25,
    };
    let product = i64::from(total) * percent.max(0);
    i32::try_from(if round_up { (product + 99) / 100 } else { product / 100 }).unwrap_or(i32::MAX)
}

pub fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

pub fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or_default()
}

/// Pods that there are, by the ReplicaSet's own account.
pub fn actual(set: &ReplicaSet) -> i32 {
    set.status.as_ref().map(|status| status.replicas).unwrap_or_default()
}

/// The sum of something over ReplicaSets.
pub fn sum<'a>(sets: impl IntoIterator<Item = &'a Arc<ReplicaSet>>, of: fn(&ReplicaSet) -> i32) -> i32 {
    sets.into_iter().map(|set| of(set)).sum()
}

fn active(sets: &[Arc<ReplicaSet>]) -> Vec<Arc<ReplicaSet>> {
    sets.iter().filter(|set| replicas(set) > 0).cloned().collect()
}

fn creation_order(set: &Arc<ReplicaSet>) -> (Option<pintle_types::Time>, String) {
    (set.metadata.creation_timestamp.clone(), set.name().to_owned())
}

/// Old ReplicaSets that still have pods, the oldest first.
pub fn active_by_age(old: &[Arc<ReplicaSet>]) -> Vec<Arc<ReplicaSet>> {
    let mut sets = active(old);
    sets.sort_by_key(creation_order);
    sets
}

/// The size for the new ReplicaSet: as large as the surge lets it be.
pub fn new_set_size(wanted: Wanted, new: i32, old: &[Arc<ReplicaSet>]) -> i32 {
    if !wanted.rolling || new > wanted.replicas {
        return wanted.replicas;
    }
    let room = wanted.max_total() - new - sum(old, replicas);
    if room <= 0 { new } else { new + room.min(wanted.replicas - new) }
}

/// Shrinks old ReplicaSets in a rolling update: first pods that aren't available anyway, then available ones, as
/// far as enough of all are available.
pub fn shrink_old(wanted: Wanted, new: &Arc<ReplicaSet>, old: &[Arc<ReplicaSet>]) -> Vec<Resize> {
    let total = sum(old, replicas) + replicas(new);
    let missing_new = replicas(new) - available(new);
    let budget = total - wanted.min_available() - missing_new;
    if budget <= 0 {
        return Vec::new();
    }
    let mut sizes: Vec<Resize> =
        active_by_age(old).into_iter().map(|set| Resize { replicas: replicas(&set), set }).collect();
    let mut unhealthy_left = budget;
    for size in &mut sizes {
        let unhealthy = (size.replicas - available(&size.set)).clamp(0, unhealthy_left);
        size.replicas -= unhealthy;
        unhealthy_left -= unhealthy;
    }
    let mut healthy_left = sum(old, available) + available(new) - wanted.min_available();
    for size in &mut sizes {
        let healthy = size.replicas.min(healthy_left.max(0));
        size.replicas -= healthy;
        healthy_left -= healthy;
    }
    sizes.retain(|size| size.replicas != replicas(&size.set));
    sizes
}

/// Brings the ReplicaSets to a changed number of replicas without rolling on: the only one that is active, or all
/// in proportion.
pub fn rescale(wanted: Wanted, new: Option<&Arc<ReplicaSet>>, old: &[Arc<ReplicaSet>]) -> Vec<Resize> {
    let all: Vec<Arc<ReplicaSet>> = old.iter().chain(new).cloned().collect();
    let running = active(&all);
    let only = match running.as_slice() {
        [] => new.cloned().or_else(|| old.iter().max_by_key(|set| creation_order(set)).cloned()),
        [one] => Some(one.clone()),
        _ => None,
    };
    if let Some(set) = only {
        return vec![Resize { set, replicas: wanted.replicas }];
    }
    if new.is_some_and(|new| is_saturated(wanted, new)) {
        return active_by_age(old).into_iter().map(|set| Resize { set, replicas: 0 }).collect();
    }
    if wanted.rolling { proportionally(wanted, running) } else { Vec::new() }
}

/// Whether the new ReplicaSet has all the pods, and all of them are available.
fn is_saturated(wanted: Wanted, new: &ReplicaSet) -> bool {
    let desired = number_in(new, DESIRED);
    replicas(new) == wanted.replicas && desired == Some(wanted.replicas) && available(new) == wanted.replicas
}

/// A number in an annotation.
pub fn number_in(set: &ReplicaSet, annotation: &str) -> Option<i32> {
    set.annotation(annotation)?.parse().ok()
}

fn proportionally(wanted: Wanted, mut sets: Vec<Arc<ReplicaSet>>) -> Vec<Resize> {
    let allowed = if wanted.replicas > 0 { wanted.max_total() } else { 0 };
    let to_add = allowed - sum(&sets, replicas);
    // The larger first; among equals growth goes to the newer, shrinking to the older.
    sets.sort_by_key(creation_order);
    if to_add > 0 {
        sets.reverse();
    }
    sets.sort_by_key(|set| Reverse(replicas(set)));
    let mut added = 0;
    let mut sizes = Vec::with_capacity(sets.len());
    for set in sets {
        let share = share(wanted, &set, to_add, added);
        added += share;
        sizes.push(Resize { replicas: replicas(&set) + share, set });
    }
    if let Some(first) = sizes.first_mut() {
        first.replicas = (first.replicas + to_add - added).max(0);
    }
    sizes
}

fn share(wanted: Wanted, set: &ReplicaSet, to_add: i32, added: i32) -> i32 {
    let (size, left) = (replicas(set), to_add - added);
    if size == 0 || left == 0 {
        return 0;
    }
    let fraction = if wanted.replicas == 0 {
        -size
    } else {
        let before = number_in(set, MAX).filter(|max| *max > 0).unwrap_or_else(|| wanted.max_total());
        let scaled = f64::from(size) * f64::from(wanted.max_total()) / f64::from(before);
        scaled.round() as i32 - size
    };
    if to_add > 0 { fraction.clamp(0, left) } else { fraction.clamp(left, 0) }
}

/// Old ReplicaSets beyond the history that is to be kept, the oldest revisions first.
pub fn beyond_history(limit: i32, old: &[Arc<ReplicaSet>]) -> Vec<Arc<ReplicaSet>> {
    let mut sets: Vec<Arc<ReplicaSet>> = old.iter().filter(|set| !set.is_deleting()).cloned().collect();
    let surplus = sets.len().saturating_sub(usize::try_from(limit).unwrap_or_default());
    sets.sort_by_key(|set| (super::revision::revision_of(&set.metadata), creation_order(set)));
    sets.truncate(surplus);
    sets.retain(|set| {
        let observed = set.status.as_ref().and_then(|status| status.observed_generation).unwrap_or_default();
        actual(set) == 0 && replicas(set) == 0 && set.metadata.generation.unwrap_or_default() <= observed
    });
    sets
}

//! Which pods disruption budgets would keep.

use crate::pod::PodInfo;
use pintle_types::k8s::api::policy::v1::PodDisruptionBudget;
use pintle_types::selector::LabelSelector;
use pintle_types::{Kind, ObjectKey};
use std::collections::HashMap;
use std::sync::Arc;

/// A budget with its selector parsed.
#[derive(Debug)]
struct Budget {
    budget: Arc<PodDisruptionBudget>,
    selector: LabelSelector,
}

impl Budget {
    fn new(budget: Arc<PodDisruptionBudget>) -> Self {
        Self { selector: LabelSelector::from_typed(budget.spec.as_ref().and_then(|s| s.selector.as_ref())), budget }
    }

    fn allowed(&self) -> i32 {
        self.budget.status.as_ref().and_then(|s| s.disruptions_allowed).unwrap_or(0)
    }

    fn answers_like(&self, other: &Self) -> bool {
        let disrupted = |budget: &Self| budget.budget.status.as_ref().and_then(|s| s.disrupted_pods.clone());
        self.allowed() == other.allowed() && disrupted(self) == disrupted(other)
    }

    fn selects(&self, pod: &PodInfo) -> bool {
        let labelled = pod.pod.metadata.labels.as_ref().is_some_and(|labels| !labels.is_empty());
        labelled && !self.selector.is_everything() && self.selector.matches_with(|key| pod.label(key))
    }

    /// Whether the pod was counted as gone when the budget's status was written.
    fn has_counted(&self, pod: &PodInfo) -> bool {
        let disrupted = self.budget.status.as_ref().and_then(|s| s.disrupted_pods.as_ref());
        disrupted.is_some_and(|pods| pods.contains_key(&pod.key.name))
    }
}

/// All budgets, by namespace.
#[derive(Debug, Default)]
pub(crate) struct Budgets {
    by_namespace: HashMap<String, Vec<Budget>>,
    /// How often any of them changed, and how often before that another set of pods was meant.
    changes: u64,
    changes_of_selectors: u64,
}

/// Pods, parted by whether a budget would keep them; both in their order.
#[derive(Debug, Default)]
pub(crate) struct Parted {
    /// Those whose leaving would hurt a budget, if those before them leave too.
    pub(crate) kept: Vec<Arc<PodInfo>>,
    pub(crate) free: Vec<Arc<PodInfo>>,
    /// Whether any of them is in a budget at all.
    pub(crate) guarded: bool,
}

/// The state of budgets that something was worked out by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AsOf {
    change: u64,
    guarded: bool,
}

impl Budgets {
    /// The budget as it is now; nothing when it is gone.
    pub(crate) fn set(&mut self, key: &ObjectKey, budget: Option<Arc<PodDisruptionBudget>>) {
        let known = self.by_namespace.entry(key.namespace.clone()).or_default();
        let place = known.iter().position(|known| known.budget.name() == key.name);
        let new = budget.map(Budget::new);
        let both = || Some((&known[place?], new.as_ref()?));
        let (same_pods, same_answers) = match both() {
            Some((old, new)) => (old.selector == new.selector, old.answers_like(new)),
            None => (place.is_none() && new.is_none(), true),
        };
        match (place, new) {
            (Some(place), Some(new)) => known[place] = new,
            (Some(place), None) => drop(known.remove(place)),
            (None, Some(new)) => known.push(new),
            (None, None) => {}
        }
        if known.is_empty() {
            self.by_namespace.remove(&key.namespace);
        }
        self.changes += u64::from(!(same_pods && same_answers));
        if !same_pods {
            self.changes_of_selectors = self.changes;
        }
    }

    /// Parts pods that might leave one node.
    pub(crate) fn part(&self, pods: Vec<Arc<PodInfo>>) -> Parted {
        if self.by_namespace.is_empty() {
            return Parted { free: pods, ..Parted::default() };
        }
        let mut parted = Parted::default();
        // Of the budgets that were met so far, how many pods they would still let go.
        let mut left: Vec<(&Budget, i32)> = Vec::new();
        for pod in pods {
            let mut hurts = false;
            for budget in self.by_namespace.get(&pod.key.namespace).into_iter().flatten() {
                if !budget.selects(&pod) {
                    continue;
                }
                parted.guarded = true;
                if budget.has_counted(&pod) {
                    continue;
                }
                let place = left.iter().position(|(met, _)| std::ptr::eq(*met, budget)).unwrap_or_else(|| {
                    left.push((budget, budget.allowed()));
                    left.len() - 1
                });
                left[place].1 -= 1;
                hurts |= left[place].1 < 0;
            }
            if hurts { parted.kept.push(pod) } else { parted.free.push(pod) }
        }
        parted
    }

    /// The state that pods were parted by: what they came to holds while [`is`](Self::is) says so.
    pub(crate) fn as_of(&self, guarded: bool) -> AsOf {
        AsOf { change: if guarded { self.changes } else { self.changes_of_selectors }, guarded }
    }

    /// Whether the same pods would be parted alike by now.
    pub(crate) fn is(&self, then: AsOf) -> bool {
        self.as_of(then.guarded) == then
    }
}

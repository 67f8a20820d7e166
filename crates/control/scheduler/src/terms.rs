//! The terms of affinity between pods, parsed once for each pod.

use crate::snapshot::Namespaces;
use pintle_types::k8s::api::core::v1::{Pod, PodAffinityTerm, WeightedPodAffinityTerm};
use pintle_types::selector::{LabelSelector, Operator, Requirement};
use pintle_types::{Kind, ObjectKey};

/// Which pods a term means, and over which label of nodes.
#[derive(Clone, Debug)]
pub(crate) struct Term {
    pub(crate) topology_key: String,
    pub(crate) weight: i64,
    selector: LabelSelector,
    namespaces: Vec<String>,
    namespace_selector: LabelSelector,
}

impl Term {
    fn new(term: &PodAffinityTerm, weight: i32, owner: &Pod) -> Self {
        let mut namespaces = term.namespaces.clone().unwrap_or_default();
        let namespace_selector = LabelSelector::from_typed(term.namespace_selector.as_ref());
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.push(owner.namespace().to_owned());
        }
        let mut selector = LabelSelector::from_typed(term.label_selector.as_ref());
        add_label_keys(&mut selector, owner, term.match_label_keys.as_deref(), Operator::In);
        add_label_keys(&mut selector, owner, term.mismatch_label_keys.as_deref(), Operator::NotIn);
        let (topology_key, weight) = (term.topology_key.clone(), i64::from(weight));
        Self { topology_key, weight, selector, namespaces, namespace_selector }
    }

    /// Which of the labels that vary within a kind of pods it asks for, as bits.
    fn varying(&self) -> u8 {
        varying(self.selector.requirements.iter().map(|requirement| requirement.key.as_str()))
    }

    pub(crate) fn matches(&self, key: &ObjectKey, pod: &Pod, namespaces: &Namespaces) -> bool {
        let selected = || {
            let labels = namespaces.get(&key.namespace);
            self.namespace_selector.matches_with(|name| labels?.get(name).map(String::as_str))
        };
        (self.namespaces.contains(&key.namespace) || selected()) && self.selector.matches_with(|name| pod.label(name))
    }
}

fn add_label_keys(selector: &mut LabelSelector, owner: &Pod, keys: Option<&[String]>, operator: Operator) {
    for key in keys.unwrap_or_default() {
        if let Some(value) = owner.label(key) {
            selector.requirements.push(Requirement { key: key.clone(), operator, values: vec![value.to_owned()] });
        }
    }
}

/// Labels that are different for each pod of an owner.
pub(crate) const VARYING: [&str; 3] =
    ["apps.kubernetes.io/pod-index", "statefulset.kubernetes.io/pod-name", "batch.kubernetes.io/job-completion-index"];

/// Which of them are among the keys, as bits.
pub(crate) fn varying<'a>(keys: impl Iterator<Item = &'a str>) -> u8 {
    let bit = |key: &str| VARYING.iter().position(|varying| *varying == key).map_or(0, |i| 1 << i);
    keys.fold(0, |bits, key| bits | bit(key))
}

/// All terms of a pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct Terms {
    pub(crate) required: Vec<Term>,
    pub(crate) anti: Vec<Term>,
    /// Weights of anti-affinity are negative.
    pub(crate) preferred: Vec<Term>,
}

impl Terms {
    /// Which of the labels that vary within a kind of pods the terms ask for, as bits.
    pub(crate) fn varying(&self) -> u8 {
        let all = self.required.iter().chain(&self.anti).chain(&self.preferred);
        all.fold(0, |bits, term| bits | term.varying())
    }

    /// Nothing for a pod without such affinity: most.
    pub(crate) fn of(pod: &Pod) -> Option<Box<Self>> {
        let affinity = pod.spec.as_ref()?.affinity.as_ref()?;
        let (near, far) = (affinity.pod_affinity.as_ref(), affinity.pod_anti_affinity.as_ref());
        let parse = |terms: Option<&Vec<PodAffinityTerm>>| -> Vec<Term> {
            terms.into_iter().flatten().map(|term| Term::new(term, 0, pod)).collect()
        };
        let weigh = |terms: Option<&Vec<WeightedPodAffinityTerm>>, sign: i32| -> Vec<Term> {
            terms.into_iter().flatten().map(|w| Term::new(&w.pod_affinity_term, sign * w.weight, pod)).collect()
        };
        let mut terms = Self {
            required: parse(near.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())),
            anti: parse(far.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())),
            preferred: weigh(near.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()), 1),
        };
        let repelled = far.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
        terms.preferred.extend(weigh(repelled, -1));
        let any = !(terms.required.is_empty() && terms.anti.is_empty() && terms.preferred.is_empty());
        any.then(|| Box::new(terms))
    }
}

//! Policies in CEL: ValidatingAdmissionPolicy judges writes, MutatingAdmissionPolicy changes them.
//!
//! The API server follows policies and bindings of both kinds and hands every change to [`Policies::set_policy`] and
//! its like. A request that no bound policy names costs one look-up by its resource; expressions are compiled when
//! they are first needed, once per version of a policy. Parameters are read from the registry, whose reads are answered
//! from memory.
//!
//! Source: apiserver's `pkg/admission/plugin/policy`.

pub(crate) mod access;
pub(crate) mod activation;
mod definition;
mod json;
mod matching;
mod mutate;
mod params;
#[cfg(test)]
mod tests;
mod typecheck;
mod validate;

pub use access::Access;
pub use mutate::Reinvocation;
pub use typecheck::{Warning, check_types};

use crate::matching::is_exempt;
use arc_swap::ArcSwap;
use definition::{Binding, Policy};
use parking_lot::Mutex;
use pintle_registry::{Attributes, Registry};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The two kinds of policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flavor {
    Validating,
    Mutating,
}

/// What evaluating policies needs of the server around them.
#[derive(Clone, Copy)]
pub struct World<'a> {
    pub registry: &'a Registry,
    /// Answers what `authorizer` asks.
    pub access: &'a dyn Access,
}

/// All policies with their bindings.
#[derive(Default)]
pub struct Policies {
    validating: Set,
    mutating: Set,
}

/// The policies of one flavor.
#[derive(Default)]
struct Set {
    known: Mutex<Known>,
    index: ArcSwap<Index>,
}

/// By name, which is their order.
#[derive(Default)]
struct Known {
    policies: BTreeMap<String, Arc<Policy>>,
    bindings: BTreeMap<String, Arc<Binding>>,
}

/// A policy that is bound.
#[derive(Clone)]
struct Hook {
    policy: Arc<Policy>,
    bindings: Arc<[Arc<Binding>]>,
}

/// Which policies may concern a resource. Their rules are looked at in full only then.
#[derive(Default)]
struct Index {
    by_resource: HashMap<String, Vec<Hook>>,
    /// For resources that no rule names: the policies with a wildcard.
    others: Vec<Hook>,
}

impl Index {
    fn new(known: &Known) -> Self {
        let mut bound: BTreeMap<&str, Vec<Arc<Binding>>> = BTreeMap::new();
        for binding in known.bindings.values() {
            bound.entry(&binding.policy).or_default().push(binding.clone());
        }
        let hooks: Vec<Hook> = bound
            .into_iter()
            .filter_map(|(name, bindings)| {
                let policy = known.policies.get(name)?.clone();
                Some(Hook { policy, bindings: bindings.into() })
            })
            .collect();
        let names: Vec<&str> = hooks.iter().flat_map(|hook| hook.policy.constraints.resources()).collect();
        let of = |name: &str| hooks.iter().filter(|hook| hook.policy.constraints.may_concern(name)).cloned().collect();
        let by_resource = names.iter().map(|name| ((*name).to_owned(), of(name))).collect();
        let others = hooks.iter().filter(|hook| hook.policy.constraints.has_wildcard()).cloned().collect();
        Self { by_resource, others }
    }

    fn hooks_of(&self, resource: &str) -> &[Hook] {
        self.by_resource.get(resource).unwrap_or(&self.others)
    }
}

impl Set {
    fn change(&self, change: impl FnOnce(&mut Known)) {
        let mut known = self.known.lock();
        change(&mut known);
        self.index.store(Arc::new(Index::new(&known)));
    }

    /// The policies that a write may concern; mostly none.
    fn hooks(&self, attributes: &Attributes<'_>) -> Vec<Hook> {
        let index = self.index.load();
        let hooks = index.hooks_of(&attributes.def.resource);
        if hooks.is_empty() || is_exempt(attributes) || is_question(attributes) { Vec::new() } else { hooks.to_vec() }
    }
}

/// Reviews are asked all the time and change nothing: upstream keeps policies off them.
fn is_question(attributes: &Attributes<'_>) -> bool {
    matches!(
        (&*attributes.def.group, &*attributes.def.resource),
        ("authentication.k8s.io", "selfsubjectreviews" | "tokenreviews")
            | (
                "authorization.k8s.io",
                "localsubjectaccessreviews"
                    | "selfsubjectaccessreviews"
                    | "selfsubjectrulesreviews"
                    | "subjectaccessreviews"
            )
    )
}

fn name_of(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

impl Policies {
    fn set(&self, flavor: Flavor) -> &Set {
        match flavor {
            Flavor::Validating => &self.validating,
            Flavor::Mutating => &self.mutating,
        }
    }

    /// A policy is new or was changed. What was compiled is kept when its specification is the same.
    pub fn set_policy(&self, flavor: Flavor, policy: &Value) {
        self.set(flavor).change(|known| {
            let name = name_of(policy);
            let same = known.policies.get(&name).is_some_and(|kept| kept.spec == policy["spec"]);
            if !same {
                known.policies.insert(name, Arc::new(Policy::new(flavor, policy)));
            }
        });
    }

    pub fn remove_policy(&self, flavor: Flavor, name: &str) {
        self.set(flavor).change(|known| drop(known.policies.remove(name)));
    }

    /// A binding is new or was changed.
    pub fn set_binding(&self, flavor: Flavor, binding: &Value) {
        self.set(flavor).change(|known| {
            known.bindings.insert(name_of(binding), Arc::new(Binding::new(binding)));
        });
    }

    pub fn remove_binding(&self, flavor: Flavor, name: &str) {
        self.set(flavor).change(|known| drop(known.bindings.remove(name)));
    }
}

//! Webhooks: other servers that change and judge writes, as MutatingWebhookConfiguration and
//! ValidatingWebhookConfiguration name them.
//!
//! The API server follows both kinds and hands every change to [`Webhooks::set`] and [`Webhooks::remove`]. A request
//! that no hook names costs one look-up by its resource.

mod call;
mod conditions;
mod config;
mod dispatch;
mod exchange;
mod matching;
mod metrics;
pub(crate) mod review;
#[cfg(test)]
mod tests;

pub use config::Flavor;
pub use dispatch::Reinvocation;

use crate::policy::Access;
use arc_swap::ArcSwap;
use config::Hook;
use parking_lot::Mutex;
use pintle_aggregator::Address;
use pintle_registry::Registry;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tokio::time::Instant;

/// All hooks, and what they share.
pub struct Webhooks {
    mutating: Hooks,
    validating: Hooks,
    metrics: metrics::Metrics,
}

/// What a dispatch needs of the server around it.
#[derive(Clone, Copy)]
pub struct World<'a> {
    pub registry: &'a Registry,
    /// Where this server itself listens: hooks may name the service `default/kubernetes`.
    pub itself: Option<&'a Address>,
    /// The request is given up then, whatever a hook's own timeout.
    pub deadline: Option<Instant>,
    /// Answers what `authorizer` asks.
    pub access: &'a dyn Access,
}

/// The hooks of one flavor.
#[derive(Default)]
struct Hooks {
    /// By the configuration's name, which is their order.
    configurations: Mutex<BTreeMap<String, Vec<Arc<Hook>>>>,
    index: ArcSwap<Index>,
}

/// Which hooks may concern a resource. Rules are looked at in full only for those.
#[derive(Default)]
struct Index {
    by_resource: HashMap<String, Vec<Placed>>,
    /// For resources that no rule names: the hooks with a wildcard.
    others: Vec<Placed>,
}

/// A hook and its place among all hooks of its flavor, by which the audit log names it.
type Placed = (usize, Arc<Hook>);

impl Index {
    fn new(hooks: &[Arc<Hook>]) -> Self {
        let chosen = |keep: &dyn Fn(&Hook) -> bool| -> Vec<Placed> {
            hooks.iter().cloned().enumerate().filter(|(_, hook)| keep(hook)).collect()
        };
        let names = hooks.iter().flat_map(|hook| hook.resources());
        let by_resource = names.map(|name| (name.to_owned(), chosen(&|hook| hook.may_concern(name)))).collect();
        Self { by_resource, others: chosen(&|hook| hook.has_wildcard()) }
    }

    fn hooks_of(&self, resource: &str) -> &[Placed] {
        self.by_resource.get(resource).unwrap_or(&self.others)
    }
}

impl Hooks {
    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, Vec<Arc<Hook>>>)) {
        let mut configurations = self.configurations.lock();
        change(&mut configurations);
        let all: Vec<Arc<Hook>> = configurations.values().flatten().cloned().collect();
        self.index.store(Arc::new(Index::new(&all)));
    }
}

impl Webhooks {
    /// No hooks yet. Counts go to `metrics` under upstream's names.
    pub fn new(metrics: &pintle_metrics::Registry) -> Self {
        Self { mutating: Hooks::default(), validating: Hooks::default(), metrics: metrics::Metrics::new(metrics) }
    }

    fn hooks(&self, flavor: Flavor) -> &Hooks {
        match flavor {
            Flavor::Mutating => &self.mutating,
            Flavor::Validating => &self.validating,
        }
    }

    /// A configuration is new or was changed. Connections to servers that it still names are kept.
    pub fn set(&self, flavor: Flavor, configuration: &Value) {
        let name = configuration["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        self.hooks(flavor).change(|all| {
            let before = all.remove(&name).unwrap_or_default();
            let hooks = Hook::all_of(flavor, configuration, &before);
            all.insert(name, hooks);
        });
    }

    /// A configuration is gone.
    pub fn remove(&self, flavor: Flavor, name: &str) {
        self.hooks(flavor).change(|all| drop(all.remove(name)));
    }
}

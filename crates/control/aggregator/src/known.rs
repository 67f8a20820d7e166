//! The APIServices that other servers answer, as the request path looks them up.

use crate::availability::Condition;
use crate::remote::{Remote, RemoteError, Trust};
use crate::spec::Spec;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pintle_pki::Identity;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Notify;

/// One APIService of another server, with the newest that is known of it.
pub struct Known {
    pub spec: Spec,
    /// Why there is no way to the server, if its trust can't be set up.
    pub remote: Result<Remote, RemoteError>,
    /// Told when this is no longer what is known.
    pub replaced: Notify,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    condition: Option<Condition>,
    /// The last `APIResourceList` that was read.
    discovery: Option<Arc<Value>>,
}

impl Known {
    pub fn is_available(&self) -> bool {
        self.state.lock().condition.as_ref().is_some_and(|c| c.available)
    }

    /// The last discovery that was read, however old.
    pub fn discovery(&self) -> Option<Arc<Value>> {
        self.state.lock().discovery.clone()
    }

    /// Notes what a check found. The discovery of before stays when there is no new one.
    pub fn note(&self, condition: Condition, discovery: Option<Value>) {
        let mut state = self.state.lock();
        state.condition = Some(condition);
        if let Some(discovery) = discovery {
            state.discovery = Some(Arc::new(discovery));
        }
    }
}

/// All that other servers answer. Reading costs a pointer; nothing is kept while there is none.
#[derive(Default)]
pub struct Aggregator {
    /// By `VERSION.GROUP`.
    services: ArcSwap<BTreeMap<String, Arc<Known>>>,
}

impl Aggregator {
    /// The server that answers a group and version, if it is another one.
    pub fn find(&self, group: &str, version: &str) -> Option<Arc<Known>> {
        let services = self.services.load();
        if services.is_empty() {
            return None;
        }
        services.get(&format!("{version}.{group}")).cloned()
    }

    pub fn all(&self) -> Vec<Arc<Known>> {
        self.services.load().values().cloned().collect()
    }

    pub fn is_empty(&self) -> bool {
        self.services.load().is_empty()
    }

    /// Takes an APIService up, or what changed of it. Answers the new state if the service must be checked from now
    /// on; nothing if it is known like this already, or local.
    pub fn set(&self, spec: Spec, identity: Option<&Identity>) -> Option<Arc<Known>> {
        let Some(service) = &spec.service else {
            self.remove(&spec.name);
            return None;
        };
        let services = self.services.load_full();
        let before = services.get(&spec.name);
        if before.is_some_and(|known| known.spec == spec) {
            return None;
        }
        let trust = match (spec.insecure, spec.ca_bundle.is_empty()) {
            (true, _) => Trust::Nobody,
            (false, true) => Trust::Machine,
            (false, false) => Trust::Bundle(spec.ca_bundle.clone()),
        };
        let remote = Remote::new(&service.host(), &trust, identity);
        let state = Mutex::new(State { condition: None, discovery: before.and_then(|b| b.discovery()) });
        let known = Arc::new(Known { remote, replaced: Notify::new(), state, spec });
        let mut services = (*services).clone();
        let old = services.insert(known.spec.name.clone(), known.clone());
        self.services.store(Arc::new(services));
        old.inspect(|old| old.replaced.notify_one());
        Some(known)
    }

    pub fn remove(&self, name: &str) {
        let services = self.services.load_full();
        if services.contains_key(name) {
            let mut services = (*services).clone();
            let old = services.remove(name);
            self.services.store(Arc::new(services));
            old.inspect(|old| old.replaced.notify_one());
        }
    }

    /// Whether this is still what is known of an APIService.
    pub fn is_current(&self, known: &Arc<Known>) -> bool {
        self.services.load().get(&known.spec.name).is_some_and(|now| Arc::ptr_eq(now, known))
    }
}

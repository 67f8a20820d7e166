//! Watches claims, slices, rules and pods, and evicts pods when their time is over.

use super::plan::{self, Eviction};
use crate::context::Context;
use crate::node::disrupt;
use crate::pods;
use crate::resourceclaim::claims_of_pod;
use parking_lot::Mutex;
use pintle_client::{Client, ClientError};
use pintle_devices::VERSION_OF_RULES;
use pintle_informer::{Change, EventType, Informer, Outcome, Queue, run_reconciler};
use pintle_types::k8s::api::core::v1::Pod;
use pintle_types::k8s::api::resource::v1::{DeviceRequestAllocationResult, DeviceTaint, ResourceClaim, ResourceSlice};
use pintle_types::k8s::api::resource::v1beta2::DeviceTaintRule;
use pintle_types::{Kind, ObjectKey};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Slices and allocated claims by driver and pool.
const BY_POOL: &str = "device-pool";
const WORKERS: usize = 4;
/// The shortest time between two updates of a rule's status.
pub(super) const STATUS_PERIOD: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Pod(ObjectKey),
    Rule(String),
}

pub(super) struct Controller {
    pub(super) context: Context,
    /// Who tells rules of their status.
    pub(super) teller: Client,
    pub(super) queue: Queue<Key>,
    pub(super) pods: Informer<Pod>,
    pub(super) claims: Informer<ResourceClaim>,
    pub(super) slices: Informer<ResourceSlice>,
    /// Nothing where rules are not served.
    pub(super) rules: Option<Informer<DeviceTaintRule>>,
    pub(super) memory: Mutex<Memory>,
}

/// What objects do not tell.
#[derive(Default)]
pub(super) struct Memory {
    /// Pods that are going to be evicted, and that were, by uid.
    pending: HashSet<String>,
    evicted: HashSet<String>,
    /// How many pods rules have evicted, by the rule's uid.
    pub(super) counts: HashMap<String, usize>,
}

fn pool(driver: &str, pool: &str) -> String {
    format!("{driver}/{pool}")
}

fn pools_of_claim(claim: &ResourceClaim) -> Vec<String> {
    let mut pools: Vec<String> = plan::devices(claim).map(|device| pool(&device.driver, &device.pool)).collect();
    pools.sort();
    pools.dedup();
    pools
}

fn pool_of_slice(slice: &ResourceSlice) -> Vec<String> {
    vec![pool(&slice.spec.driver, &slice.spec.pool.name)]
}

fn is_allocated(claim: &ResourceClaim) -> bool {
    claim.status.as_ref().is_some_and(|status| status.allocation.is_some())
}

/// Runs the controller until the context's stop, from the first allocated claim, or where rules are served, on.
/// `teller` may write the status of rules.
pub async fn run(context: Context, teller: Client) {
    let claims = context.informers.of::<ResourceClaim>();
    let seen = Arc::new(Notify::new());
    let tell = Arc::clone(&seen);
    claims.on_change(move |change| {
        if change.new().is_some_and(|claim| is_allocated(claim)) {
            tell.notify_one();
        }
    });
    let Some(ruled) = context.stop.run_until_cancelled(context.client.serves(VERSION_OF_RULES)).await else { return };
    if !ruled && context.stop.run_until_cancelled(seen.notified()).await.is_none() {
        return;
    }
    let controller = Arc::new(Controller {
        teller,
        queue: Queue::new(),
        pods: context.informers.of(),
        claims,
        slices: context.informers.of(),
        rules: ruled.then(|| context.informers.of()),
        memory: Mutex::default(),
        context: context.clone(),
    });
    controller.claims.index(BY_POOL, pools_of_claim);
    controller.slices.index(BY_POOL, pool_of_slice);
    controller.claims.synced().await;
    controller.slices.synced().await;
    controller.pods.synced().await;
    if let Some(rules) = &controller.rules {
        rules.synced().await;
    }
    watch(&controller);
    let reconcile = |key| controller.reconcile(key);
    let queue = controller.queue.clone();
    run_reconciler("device-taint-eviction-controller", queue, WORKERS, reconcile, context.stop.clone()).await;
}

fn watch(controller: &Arc<Controller>) {
    let own = Arc::clone(controller);
    controller.claims.on_change(move |change| own.claim_changed(change));
    let own = Arc::clone(controller);
    controller.slices.on_change(move |change| own.slice_changed(change));
    let own = Arc::clone(controller);
    controller.pods.on_change(move |change| {
        let look = |pod: &Pod| {
            let names = pod.status.as_ref().and_then(|status| status.resource_claim_statuses.clone());
            (pods::node_name(pod).to_owned(), names)
        };
        let Some(new) = change.new() else { return own.forget(change.object()) };
        let claims = new.spec.as_ref().and_then(|spec| spec.resource_claims.as_ref());
        if claims.is_some() && change.old().is_none_or(|old| look(old) != look(new)) {
            own.queue.add(Key::Pod(new.key()));
        }
    });
    let Some(rules) = &controller.rules else { return };
    let own = Arc::clone(controller);
    rules.on_change(move |change| own.rule_changed(change));
}

impl Controller {
    fn claim_changed(&self, change: &Change<ResourceClaim>) {
        let look =
            |claim: &ResourceClaim| claim.status.as_ref().map(|s| (s.allocation.clone(), s.reserved_for.clone()));
        if change.old().zip(change.new()).is_some_and(|(old, new)| look(old) == look(new)) {
            return;
        }
        change.old().into_iter().chain(change.new()).for_each(|claim| self.add_pods(claim));
    }

    /// The pods that use a claim.
    fn add_pods(&self, claim: &ResourceClaim) {
        let consumers = claim.status.iter().flat_map(|status| status.reserved_for.iter().flatten());
        for consumer in consumers.filter(|consumer| consumer.resource == "pods") {
            self.queue.add(Key::Pod(ObjectKey::new(claim.namespace(), consumer.name.as_str())));
        }
    }

    fn slice_changed(&self, change: &Change<ResourceSlice>) {
        let tainted = |slice: &Arc<ResourceSlice>| {
            let mut devices = slice.spec.devices.iter().flatten();
            devices.any(|device| device.taints.iter().flatten().any(|taint| taint.effect == "NoExecute"))
        };
        // A new generation may hide the taints of another slice.
        let generation = |slice: &Arc<ResourceSlice>| slice.spec.pool.generation;
        let moved = change.old().map(generation) != change.new().map(generation);
        if moved || change.old().is_some_and(tainted) || change.new().is_some_and(tainted) {
            for name in pool_of_slice(change.object()) {
                self.claims.by_index(BY_POOL, &name).iter().for_each(|claim| self.add_pods(claim));
            }
        }
    }

    fn rule_changed(&self, change: &Change<DeviceTaintRule>) {
        if change.old().zip(change.new()).is_some_and(|(old, new)| old.spec == new.spec) {
            return;
        }
        match change.new() {
            Some(rule) => self.queue.add(Key::Rule(rule.name().to_owned())),
            None => drop(self.memory.lock().counts.remove(change.object().uid())),
        }
        self.claims.list().iter().for_each(|claim| self.add_pods(claim));
    }

    fn forget(&self, pod: &Pod) {
        let mut memory = self.memory.lock();
        memory.pending.remove(pod.uid());
        memory.evicted.remove(pod.uid());
    }

    async fn reconcile(&self, key: Key) -> Result<Outcome, ClientError> {
        match key {
            Key::Pod(key) => self.reconcile_pod(&key).await,
            Key::Rule(name) => self.reconcile_rule(&name).await,
        }
    }

    async fn reconcile_pod(&self, key: &ObjectKey) -> Result<Outcome, ClientError> {
        let Some(pod) = self.pods.get(key) else { return Ok(Outcome::Done) };
        let recorder = &self.context.recorder;
        let Some(eviction) = self.eviction(&pod, &self.evicting()) else {
            if self.memory.lock().pending.remove(pod.uid()) {
                recorder.event(&*pod, EventType::Normal, "DeviceTaintManagerEviction", "Cancelling deletion");
            }
            return Ok(Outcome::Done);
        };
        if pod.is_deleting() || self.memory.lock().evicted.contains(pod.uid()) {
            return Ok(Outcome::Done);
        }
        for rule in &eviction.rules {
            self.queue.add_after(Key::Rule(rule.clone()), STATUS_PERIOD);
        }
        let left = crate::context::seconds_between(self.context.now(), eviction.at);
        if let Some(left) = u64::try_from(left).ok().filter(|left| *left > 0) {
            self.memory.lock().pending.insert(pod.uid().to_owned());
            return Ok(Outcome::After(Duration::from_secs(left)));
        }
        recorder.event(&*pod, EventType::Normal, "DeviceTaintManagerEviction", "Marking for deletion");
        let words = "Device Taint manager: deleting due to NoExecute taint";
        disrupt(&self.context, &pod, "DeletionByDeviceTaintManager", words).await?;
        self.note(&pod, &eviction);
        Ok(Outcome::Done)
    }

    fn note(&self, pod: &Pod, eviction: &Eviction) {
        let mut memory = self.memory.lock();
        memory.pending.remove(pod.uid());
        memory.evicted.insert(pod.uid().to_owned());
        for name in &eviction.rules {
            let rule = self.rules.as_ref().and_then(|rules| rules.get(&ObjectKey::new("", name.as_str())));
            rule.iter().for_each(|rule| *memory.counts.entry(rule.uid().to_owned()).or_default() += 1);
        }
    }

    /// The rules that evict.
    pub(super) fn evicting(&self) -> Vec<Arc<DeviceTaintRule>> {
        let all = self.rules.as_ref().map(Informer::list).unwrap_or_default();
        all.into_iter().filter(|rule| rule.spec.taint.effect == "NoExecute").collect()
    }

    /// When the pod has to go, by any of its claims.
    pub(super) fn eviction(&self, pod: &Pod, rules: &[Arc<DeviceTaintRule>]) -> Option<Eviction> {
        if pods::node_name(pod).is_empty() {
            return None;
        }
        let claims = claims_of_pod(pod).into_iter();
        let claims = claims.filter_map(|name| self.claims.get(&ObjectKey::new(pod.namespace(), name)));
        let its = claims.filter(|claim| {
            let mut consumers = claim.status.iter().flat_map(|status| status.reserved_for.iter().flatten());
            consumers.any(|consumer| consumer.uid == pod.uid())
        });
        its.filter_map(|claim| plan::eviction(&claim, |device| self.taints(device), rules)).reduce(Eviction::and)
    }

    /// What the driver says of a device now.
    fn taints(&self, device: &DeviceRequestAllocationResult) -> Vec<DeviceTaint> {
        let slices = self.slices.by_index(BY_POOL, &pool(&device.driver, &device.pool));
        let newest = slices.iter().map(|slice| slice.spec.pool.generation).max();
        let current = slices.iter().filter(|slice| Some(slice.spec.pool.generation) == newest);
        let mut devices = current.flat_map(|slice| slice.spec.devices.iter().flatten());
        devices.find(|known| known.name == device.device).and_then(|known| known.taints.clone()).unwrap_or_default()
    }
}

//! Watches the store itself, and checks at every revision what must hold whatever goes wrong.

use crate::budgets::Budgets;
use crate::model::{LIMITED, QUOTA_PODS};
use crate::node::{MAX_PODS, PROCESSORS};
use futures::StreamExt;
use parking_lot::Mutex;
use pintle_clock::{Clock, Timestamp};
use pintle_kubelet::fake::FakeRuntime;
use pintle_store::{Event, KeyRange, Store};
use pintle_types::quantity::Quantity;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Violations that are told; those after them are only counted.
const TOLD: usize = 20;

/// What the observer has seen.
#[derive(Default)]
struct Seen {
    /// By key: the live pods.
    pods: BTreeMap<String, Value>,
    budgets: Budgets,
    violations: Vec<String>,
    events: u64,
    digest: Sha256,
}

/// Sees every change in its order.
pub(crate) struct Observer {
    seen: Mutex<Seen>,
    clock: Arc<dyn Clock>,
    runtimes: Vec<(String, Arc<FakeRuntime>)>,
}

impl Observer {
    /// Follows the store until dropped; `runtimes` are those of all nodes.
    pub(crate) async fn start(
        store: &Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        runtimes: Vec<(String, Arc<FakeRuntime>)>,
    ) -> anyhow::Result<Arc<Self>> {
        let observer = Arc::new(Self { seen: Mutex::default(), clock, runtimes });
        let mut changes = store.watch(KeyRange::prefix("/registry/"), 0).await?;
        let me = Arc::downgrade(&observer);
        tokio::spawn(async move {
            while let Some(batch) = changes.next().await {
                let Some(observer) = me.upgrade() else { return };
                match batch {
                    Ok(batch) => batch.events.iter().for_each(|event| observer.see(batch.revision, event)),
                    Err(error) => return observer.violated(format!("the store's watch ended: {error}")),
                }
            }
        });
        Ok(observer)
    }

    /// What was violated so far, and a digest of all changes: equal for runs that were the same.
    pub(crate) fn report(&self) -> (Vec<String>, u64, String) {
        let seen = self.seen.lock();
        let digest: String = seen.digest.clone().finalize().iter().take(8).map(|b| format!("{b:02x}")).collect();
        (seen.violations.clone(), seen.events, digest)
    }

    pub(crate) fn violated(&self, what: String) {
        let mut seen = self.seen.lock();
        if seen.violations.len() < TOLD {
            seen.violations.push(what);
        }
    }

    fn see(&self, revision: u64, event: &Event) {
        let (key, value, old) = match event {
            Event::Put { kv, prev } => (&kv.key, Some(&kv.value), prev.as_ref()),
            Event::Delete { kv, prev } => (&kv.key, None, prev.as_ref()),
        };
        let key = String::from_utf8_lossy(key).into_owned();
        {
            let mut seen = self.seen.lock();
            seen.events += 1;
            seen.digest.update(revision.to_be_bytes());
            seen.digest.update(key.as_bytes());
            // The authority's key is the one thing that does not come from the seed.
            let same = !key.ends_with("/kube-root-ca.crt");
            seen.digest.update(value.filter(|_| same).map(AsRef::as_ref).unwrap_or_default());
        }
        tracing::trace!(revision, key, value = value.map(|v| String::from_utf8_lossy(v).into_owned()), "changed");
        let parse = |bytes: &bytes::Bytes| serde_json::from_slice::<Value>(bytes).unwrap_or_default();
        let (new, old) = (value.map(parse), old.map(|kv| parse(&kv.value)));
        if let (Some(new), Some(old)) = (&new, &old) {
            self.object_changed(revision, &key, old, new);
        }
        self.check_budgets(revision, &key, old.as_ref(), new.as_ref());
        if key.starts_with("/registry/pods/") {
            self.pod_changed(revision, &key, old.as_ref(), new);
        }
    }

    /// What holds for objects of any kind.
    fn object_changed(&self, revision: u64, key: &str, old: &Value, new: &Value) {
        let number = |object: &Value, path: &str| object.pointer(path).and_then(Value::as_i64).unwrap_or_default();
        if old["metadata"]["uid"] != new["metadata"]["uid"] {
            return;
        }
        if number(new, "/metadata/generation") < number(old, "/metadata/generation") {
            self.violated(format!("revision {revision}: the generation of {key} went back"));
        }
        if number(new, "/status/observedGeneration") > number(new, "/metadata/generation") {
            self.violated(format!("revision {revision}: {key} observed a generation that is not there yet"));
        }
        if old["metadata"]["deletionTimestamp"].is_string() && !new["metadata"]["deletionTimestamp"].is_string() {
            self.violated(format!("revision {revision}: the deletion of {key} was taken back"));
        }
    }

    fn pod_changed(&self, revision: u64, key: &str, old: Option<&Value>, new: Option<Value>) {
        let Some(new) = new else {
            self.seen.lock().pods.remove(key);
            return;
        };
        if let Some(old) = old.filter(|old| old["metadata"]["uid"] == new["metadata"]["uid"]) {
            self.pod_moved(revision, key, old, &new);
        }
        let node = new["spec"]["nodeName"].as_str().unwrap_or_default().to_owned();
        let created = old.is_none();
        if created {
            self.check_index(revision, key, &new);
        }
        self.seen.lock().pods.insert(key.to_owned(), new);
        if created && key.starts_with(&format!("/registry/pods/{LIMITED}/")) {
            self.check_quota(revision);
        }
        if !node.is_empty() && old.is_none_or(|old| old["spec"]["nodeName"].as_str().is_none_or(str::is_empty)) {
            self.check_node(revision, &node);
        }
        self.check_ordinals(revision);
    }

    fn pod_moved(&self, revision: u64, key: &str, old: &Value, new: &Value) {
        let bound = old["spec"]["nodeName"].as_str().is_some_and(|name| !name.is_empty());
        if bound && old["spec"]["nodeName"] != new["spec"]["nodeName"] {
            self.violated(format!("revision {revision}: {key} moved from one node to another"));
        }
        let phase = |pod: &Value| pod["status"]["phase"].as_str().unwrap_or_default().to_owned();
        if is_finished(old) && phase(old) != phase(new) {
            self.violated(format!("revision {revision}: {key} went from {} to {}", phase(old), phase(new)));
        }
    }

    fn check_budgets(&self, revision: u64, key: &str, old: Option<&Value>, new: Option<&Value>) {
        let (mut seen, now) = (self.seen.lock(), self.clock.now());
        let wrong = if key.starts_with("/registry/pods/") {
            seen.budgets.pod_changed(now, old, new)
        } else if key.starts_with("/registry/poddisruptionbudgets/") {
            seen.budgets.budget_changed(now, old, new)
        } else {
            None
        };
        drop(seen);
        if let Some(wrong) = wrong {
            self.violated(format!("revision {revision}: {key}: {wrong}"));
        }
    }

    fn check_quota(&self, revision: u64) {
        let (seen, now) = (self.seen.lock(), self.clock.now());
        let prefix = format!("/registry/pods/{LIMITED}/");
        // A pod that should have ended by now is not counted: its node may never say so.
        let overdue = |pod: &Value| {
            let deleted = pod["metadata"]["deletionTimestamp"].as_str().and_then(|at| at.parse::<Timestamp>().ok());
            deleted.is_some_and(|at| at < now)
        };
        let counts = |pod: &Value| !is_finished(pod) && !overdue(pod);
        let counted = seen.pods.iter().filter(|(key, pod)| key.starts_with(&prefix) && counts(pod)).count();
        drop(seen);
        if counted > QUOTA_PODS {
            self.violated(format!("revision {revision}: {counted} pods where a quota allows {QUOTA_PODS}"));
        }
    }

    /// An index of a Job has one pod at a time, and none after one that succeeded.
    fn check_index(&self, revision: u64, key: &str, new: &Value) {
        let index = &new["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"];
        if !index.is_string() {
            return;
        }
        let same = |pod: &Value| {
            pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"] == *index
                && pod["metadata"]["ownerReferences"][0]["uid"] == new["metadata"]["ownerReferences"][0]["uid"]
        };
        let holds = |pod: &Value| match pod["status"]["phase"].as_str() {
            Some("Failed") => false,
            Some("Succeeded") => true,
            _ => !pod["metadata"]["deletionTimestamp"].is_string(),
        };
        let seen = self.seen.lock();
        let other = seen.pods.iter().find(|(_, pod)| same(pod) && holds(pod)).map(|(other, _)| other.clone());
        drop(seen);
        if let Some(other) = other {
            self.violated(format!("revision {revision}: {key} has the index of {other}"));
        }
    }

    fn check_node(&self, revision: u64, node: &str) {
        let seen = self.seen.lock();
        let there: Vec<&Value> =
            seen.pods.values().filter(|pod| pod["spec"]["nodeName"] == *node && !is_finished(pod)).collect();
        let (pods, cpu) = (there.len(), there.iter().map(|pod| milli_cpu(pod)).sum::<i64>());
        drop(seen);
        if pods > MAX_PODS as usize || cpu > i64::from(PROCESSORS) * 1000 {
            self.violated(format!("revision {revision}: {node} was given {pods} pods that ask for {cpu}m"));
        }
    }

    /// Never two running pods for one ordinal of a StatefulSet, wherever they are.
    pub(crate) fn check_ordinals(&self, revision: u64) {
        let mut running: BTreeMap<(String, String), BTreeSet<(String, String)>> = BTreeMap::new();
        for (node, runtime) in &self.runtimes {
            for (_, labels) in runtime.running_containers() {
                let label = |name: &str| labels.get(&format!("io.kubernetes.pod.{name}")).cloned().unwrap_or_default();
                if label("name").starts_with("set-") {
                    let pod = (label("namespace"), label("name"));
                    running.entry(pod).or_default().insert((node.clone(), label("uid")));
                }
            }
        }
        for ((namespace, name), places) in running.into_iter().filter(|(_, places)| places.len() > 1) {
            self.violated(format!("revision {revision}: {namespace}/{name} runs more than once: {places:?}"));
        }
    }
}

/// Whether a pod has come to its end.
pub(crate) fn is_finished(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
}

fn milli_cpu(pod: &Value) -> i64 {
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let requests = containers.filter_map(|c| c["resources"]["requests"]["cpu"].as_str()?.parse::<Quantity>().ok());
    requests.map(|quantity| quantity.milli()).sum()
}

//! Tells rules, in their status, what they came to.

use super::plan::{self, Counts};
use super::reconcile::{Controller, STATUS_PERIOD};
use pintle_client::{ClientError, Patch, PatchOptions};
use pintle_devices::is_about;
use pintle_informer::Outcome;
use pintle_types::k8s::api::resource::v1beta2::DeviceTaintRule;
use pintle_types::k8s::apimachinery::pkg::apis::meta::v1::Condition;
use pintle_types::{Kind, ObjectKey};
use serde_json::json;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

const CONDITION: &str = "EvictionInProgress";
/// Who applies the status, by upstream's name.
const MANAGER: &str = "device-taint-eviction-controller";

impl Controller {
    /// Tells a rule what it came to, at once when it is new and not more often than now and then after.
    pub(super) async fn reconcile_rule(&self, name: &str) -> Result<Outcome, ClientError> {
        let Some(rule) = self.rules.as_ref().and_then(|rules| rules.get(&ObjectKey::new("", name))) else {
            return Ok(Outcome::Done);
        };
        let conditions = rule.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let known = conditions.iter().find(|condition| condition.type_ == CONDITION);
        if let Some(known) = known.filter(|known| known.observed_generation == rule.metadata.generation) {
            let since = crate::context::seconds_between(known.last_transition_time.0, self.context.now());
            let left = STATUS_PERIOD.saturating_sub(Duration::from_secs(u64::try_from(since).unwrap_or_default()));
            if !left.is_zero() {
                return Ok(Outcome::After(left));
            }
        }
        let (status, reason, message) = plan::condition(&rule.spec.taint.effect, self.counts(&rule));
        let same = |known: &Condition| {
            (known.status.as_str(), known.reason.as_str(), &known.message) == (status, reason, &message)
                && known.observed_generation == rule.metadata.generation
        };
        if !known.is_some_and(same) {
            let condition = json!({
                "type": CONDITION, "status": status, "reason": reason, "message": message,
                "observedGeneration": rule.metadata.generation, "lastTransitionTime": self.context.time(),
            });
            let patch = json!({
                "apiVersion": "resource.k8s.io/v1beta2", "kind": "DeviceTaintRule",
                "metadata": { "name": name, "uid": rule.uid() },
                "status": { "conditions": [condition] },
            });
            let options = PatchOptions { field_manager: MANAGER.into(), force: true, ..PatchOptions::status() };
            self.teller.patch::<DeviceTaintRule>("", name, Patch::Apply(patch), &options).await?;
        }
        Ok(Outcome::Done)
    }

    fn counts(&self, rule: &Arc<DeviceTaintRule>) -> Counts {
        let mut counts =
            Counts { evicted: self.memory.lock().counts.get(rule.uid()).copied().unwrap_or(0), ..Counts::default() };
        let mut rules = self.evicting();
        match rule.spec.taint.effect.as_str() {
            "NoExecute" => (),
            "None" => {
                // What it would do.
                let mut evicting = DeviceTaintRule::clone(rule);
                evicting.spec.taint.effect = "NoExecute".into();
                rules.push(Arc::new(evicting));
                (counts.published, counts.allocated) = (self.published(rule), self.allocated(rule));
            }
            _ => return counts,
        }
        let mut namespaces: BTreeSet<String> = BTreeSet::new();
        for pod in self.pods.list().iter().filter(|pod| !pod.is_deleting()) {
            let eviction = self.eviction(pod, &rules);
            if eviction.is_some_and(|eviction| eviction.rules.contains(rule.name())) {
                counts.pods += 1;
                namespaces.insert(pod.namespace().to_owned());
            }
        }
        Counts { namespaces: namespaces.len(), ..counts }
    }

    /// How many devices of slices the rule is about.
    fn published(&self, rule: &DeviceTaintRule) -> usize {
        let slices = self.slices.list();
        let mut newest: HashMap<(&str, &str), i64> = HashMap::new();
        let place = |slice: usize| (slices[slice].spec.driver.as_str(), slices[slice].spec.pool.name.as_str());
        for (at, slice) in slices.iter().enumerate() {
            let known = newest.entry(place(at)).or_insert(i64::MIN);
            *known = slice.spec.pool.generation.max(*known);
        }
        let current = slices.iter().enumerate();
        let current = current.filter(|(at, slice)| newest.get(&place(*at)) == Some(&slice.spec.pool.generation));
        let devices = current.flat_map(|(at, slice)| slice.spec.devices.iter().flatten().map(move |it| (at, it)));
        devices.filter(|(at, it)| is_about(rule, place(*at).0, place(*at).1, &it.name)).count()
    }

    /// How many allocated devices the rule is about.
    fn allocated(&self, rule: &DeviceTaintRule) -> usize {
        let claims = self.claims.list();
        let devices = claims.iter().flat_map(|claim| plan::devices(claim));
        devices.filter(|it| is_about(rule, &it.driver, &it.pool, &it.device)).count()
    }
}

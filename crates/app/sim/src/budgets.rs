//! Checks that evictions respect disruption budgets: what is taken off a budget leaves as many healthy pods as it wants,
//! and no healthy pod is evicted without its budget having been asked.
//!
//! Whoever counts for a budget learns late of pods that end by themselves, so the pods that are healthy at the moment
//! may be too few. What must hold is that at some moment of the last while enough were, without all evicted since.

use pintle_clock::Timestamp;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How late a controller may learn of a change: watches lag, end, and are begun again by a controller that was killed.
const LAG_SECONDS: i64 = 60;
/// Evictions of which nobody hears after this time are no longer counted by upstream's controller, nor by ours.
const FORGOTTEN_SECONDS: i64 = 120;
/// An eviction looks for budgets before it changes the pod: one that is as new as this may have come in between.
const NEW_SECONDS: i64 = 10;

/// A namespace with the value of the label `app`, by which budgets select here.
type App = (String, String);

/// What was seen of the pods of an application.
#[derive(Default)]
struct Pods {
    /// Those that are healthy, by uid, from when on: as many sets as a late controller may think of.
    healthy: VecDeque<(Timestamp, BTreeSet<String>)>,
    /// When an eviction of them was taken off their budget, by uid.
    evicted: BTreeMap<String, Timestamp>,
    /// The uids of those that are there and not going, by name.
    standing: BTreeMap<String, String>,
}

/// What was seen of budgets and their pods.
#[derive(Default)]
pub(crate) struct Budgets {
    pods: BTreeMap<App, Pods>,
    /// Since when a budget is there.
    since: BTreeMap<App, Timestamp>,
}

impl Budgets {
    /// Takes in a change of a pod; what was wrong with it.
    pub(crate) fn pod_changed(&mut self, now: Timestamp, old: Option<&Value>, new: Option<&Value>) -> Option<String> {
        let pod = new.or(old)?;
        let app = app_of(pod, &pod["metadata"]["labels"])?;
        let (name, uid) = (text(&pod["metadata"]["name"]), text(&pod["metadata"]["uid"]));
        let asked = self.pods.get(&app).is_some_and(|pods| pods.evicted.contains_key(&uid));
        let has_budget = self.since.get(&app).is_some_and(|since| seconds(*since, now) > NEW_SECONDS);
        let pods = self.pods.entry(app).or_default();
        let there = new.filter(|pod| !pod["metadata"]["deletionTimestamp"].is_string());
        match there {
            Some(_) => drop(pods.standing.insert(name.clone(), uid.clone())),
            None => pods.standing.retain(|_, known| *known != uid),
        }
        pods.set_healthy(now, &uid, there.is_some_and(is_ready));
        let evicted = old.zip(new).is_some_and(|(old, new)| is_evicted(new) && !is_evicted(old) && counts(old));
        (evicted && has_budget && !asked).then(|| format!("{name} was evicted, and its budget was not asked"))
    }

    /// Takes in a change of a budget; what was wrong with it.
    pub(crate) fn budget_changed(
        &mut self,
        now: Timestamp,
        old: Option<&Value>,
        new: Option<&Value>,
    ) -> Option<String> {
        let budget = new.or(old)?;
        let app = app_of(budget, &budget["spec"]["selector"]["matchLabels"])?;
        let Some(new) = new else {
            self.since.remove(&app);
            return None;
        };
        self.since.entry(app.clone()).or_insert(now);
        // Only an eviction adds to these.
        let times = |budget: &Value| budget["status"]["disruptedPods"].as_object().cloned().unwrap_or_default();
        let before = old.map(times).unwrap_or_default();
        let taken: Vec<String> =
            times(new).into_iter().filter(|(pod, at)| before.get(pod) != Some(at)).map(|(pod, _)| pod).collect();
        if taken.is_empty() {
            return None;
        }
        let pods = self.pods.entry(app).or_default();
        let uids: Vec<String> = taken.iter().filter_map(|name| pods.standing.get(name).cloned()).collect();
        pods.evicted.extend(uids.into_iter().map(|uid| (uid, now)));
        let (most, desired) = (pods.most_left(now), new["status"]["desiredHealthy"].as_u64().unwrap_or_default());
        let name = text(&new["metadata"]["name"]);
        (most < desired)
            .then(|| format!("{taken:?} may go, where the budget {name} wants {desired} and at most {most} are left"))
    }
}

impl Pods {
    fn set_healthy(&mut self, now: Timestamp, uid: &str, healthy: bool) {
        let mut set = self.healthy.back().map(|(_, set)| set.clone()).unwrap_or_default();
        let changed = if healthy { set.insert(uid.to_owned()) } else { set.remove(uid) };
        if changed {
            self.healthy.push_back((now, set));
        }
        // Of those that nobody can still think of, the newest was there when the time began.
        while self.healthy.get(1).is_some_and(|(from, _)| seconds(*from, now) > LAG_SECONDS) {
            self.healthy.pop_front();
        }
    }

    /// The pods of the best moment of the last while that have not been evicted since.
    fn most_left(&mut self, now: Timestamp) -> u64 {
        let standing: BTreeSet<&String> = self.standing.values().collect();
        self.evicted.retain(|uid, at| !standing.contains(uid) || seconds(*at, now) <= FORGOTTEN_SECONDS);
        while self.healthy.get(1).is_some_and(|(from, _)| seconds(*from, now) > LAG_SECONDS) {
            self.healthy.pop_front();
        }
        let left = |set: &BTreeSet<String>| set.iter().filter(|uid| !self.evicted.contains_key(*uid)).count() as u64;
        self.healthy.iter().map(|(_, set)| left(set)).max().unwrap_or_default()
    }
}

fn seconds(from: Timestamp, to: Timestamp) -> i64 {
    to.as_second() - from.as_second()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn app_of(object: &Value, labels: &Value) -> Option<App> {
    Some((text(&object["metadata"]["namespace"]), labels["app"].as_str()?.to_owned()))
}

fn condition<'a>(pod: &'a Value, kind: &str) -> Option<&'a Value> {
    let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.find(|condition| condition["type"] == kind && condition["status"] == "True")
}

fn is_ready(pod: &Value) -> bool {
    condition(pod, "Ready").is_some()
}

fn is_evicted(pod: &Value) -> bool {
    condition(pod, "DisruptionTarget").is_some_and(|condition| condition["reason"] == "EvictionByEvictionAPI")
}

/// Whether a pod is one that may not be evicted unless its budget allows it.
fn counts(pod: &Value) -> bool {
    is_ready(pod) && pod["status"]["phase"] == "Running" && !pod["metadata"]["deletionTimestamp"].is_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn pod(name: &str, ready: bool, evicted: bool) -> Value {
        let mut conditions = vec![json!({"type": "Ready", "status": if ready { "True" } else { "False" }})];
        if evicted {
            conditions.push(json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}));
        }
        json!({
            "metadata": {"name": name, "namespace": "n", "uid": format!("uid-{name}"), "labels": {"app": "web"}},
            "status": {"phase": "Running", "conditions": conditions},
        })
    }

    /// A budget that wants two, off which evictions of these were taken.
    fn budget(taken: &[&str]) -> Value {
        let taken: BTreeMap<&str, &str> = taken.iter().map(|name| (*name, "2026-01-01T00:00:00Z")).collect();
        json!({
            "metadata": {"name": "web", "namespace": "n"},
            "spec": {"selector": {"matchLabels": {"app": "web"}}},
            "status": {"desiredHealthy": 2, "disruptedPods": taken},
        })
    }

    /// Three ready pods, and a budget that is not new.
    fn three() -> Budgets {
        let mut budgets = Budgets::default();
        for name in ["a", "b", "c"] {
            assert_eq!(budgets.pod_changed(at(0), None, Some(&pod(name, true, false))), None);
        }
        assert_eq!(budgets.budget_changed(at(0), None, Some(&budget(&[]))), None);
        budgets
    }

    #[test]
    fn an_eviction_that_a_budget_allows_is_fine() {
        let mut budgets = three();
        assert_eq!(budgets.budget_changed(at(100), Some(&budget(&[])), Some(&budget(&["a"]))), None);
        assert_eq!(budgets.pod_changed(at(100), Some(&pod("a", true, false)), Some(&pod("a", true, true))), None);
    }

    #[test]
    fn two_evictions_are_too_many() {
        let mut budgets = three();
        assert_eq!(budgets.budget_changed(at(100), Some(&budget(&[])), Some(&budget(&["a"]))), None);
        assert_eq!(budgets.pod_changed(at(101), Some(&pod("a", true, true)), None), None);
        let told = budgets.budget_changed(at(102), Some(&budget(&["a"])), Some(&budget(&["a", "b"]))).unwrap();
        assert!(told.contains("wants 2 and at most 1 are left"), "{told}");
    }

    #[test]
    fn what_a_controller_may_not_know_yet_is_no_fault() {
        for (eviction, fine) in [(150, true), (161, false)] {
            let mut budgets = three();
            let (ready, not) = (pod("c", true, false), pod("c", false, false));
            assert_eq!(budgets.pod_changed(at(100), Some(&ready), Some(&not)), None);
            let told = budgets.budget_changed(at(eviction), Some(&budget(&[])), Some(&budget(&["a"])));
            assert_eq!(told.is_none(), fine, "{told:?}");
        }
    }

    #[test]
    fn a_healthy_pod_does_not_go_unasked() {
        let evict = |budgets: &mut Budgets, second, ready| {
            budgets.pod_changed(at(second), Some(&pod("a", ready, false)), Some(&pod("a", ready, true)))
        };
        assert!(evict(&mut three(), 100, true).unwrap().contains("not asked"));
        assert_eq!(evict(&mut three(), 100, false), None, "it counts for nothing");
        assert_eq!(evict(&mut three(), 5, true), None, "the budget is too new");
    }
}

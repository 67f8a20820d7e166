//! What the cluster has to look like once nothing goes wrong any more: as its objects ask.

use crate::model::{self, CONFIG_MAPS, LIMITED};
use crate::node::SimNode;
use crate::observer::is_finished;
use crate::users::{Known, Users};
use bytes::Bytes;
use pintle_store::{KeyRange, RangeRequest, Store};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Everything that is stored, by key.
type Objects = BTreeMap<String, Arc<Value>>;

/// Reads everything that is stored; parses what has changed since the last look.
pub(crate) struct Look {
    store: Arc<dyn Store>,
    parsed: HashMap<Bytes, (u64, Arc<Value>)>,
}

impl Look {
    pub(crate) fn new(store: &Arc<dyn Store>) -> Self {
        Self { store: Arc::clone(store), parsed: HashMap::new() }
    }

    async fn objects(&mut self) -> anyhow::Result<Objects> {
        let request = RangeRequest { range: KeyRange::prefix("/registry/"), at: None, limit: 0 };
        let stored = self.store.range(request).await?.kvs;
        let mut objects = Objects::new();
        for kv in stored {
            let known = self.parsed.get(&kv.key).filter(|(revision, _)| *revision == kv.mod_revision);
            let value = match known {
                Some((_, value)) => Arc::clone(value),
                None => Arc::new(serde_json::from_slice(&kv.value).unwrap_or_default()),
            };
            self.parsed.insert(kv.key.clone(), (kv.mod_revision, Arc::clone(&value)));
            objects.insert(String::from_utf8_lossy(&kv.key).into_owned(), value);
        }
        Ok(objects)
    }
}

/// What still differs from what was asked for; nothing when the cluster is at rest.
pub(crate) async fn unrest(look: &mut Look, nodes: &[SimNode]) -> anyhow::Result<Vec<String>> {
    let objects = look.objects().await?;
    let mut unrest = Vec::new();
    for (key, object) in &objects {
        if object["metadata"]["deletionTimestamp"].is_string() {
            unrest.push(format!("{key} is still being deleted"));
        } else if let Some(why) = unfinished(key, object) {
            unrest.push(format!("{key}: {why}"));
        }
    }
    orphans(&objects, &mut unrest);
    containers(&objects, nodes, &mut unrest);
    endpoints(&objects, &mut unrest);
    Ok(unrest)
}

/// Acknowledged writes that are not there, and acknowledged deletions that are.
pub(crate) async fn lost(look: &mut Look, users: &Users) -> anyhow::Result<Vec<String>> {
    let objects = look.objects().await?;
    let mut lost = Vec::new();
    let maps = users.maps.lock();
    for ((namespace, name), known) in maps.iter() {
        let found = objects.get(&format!("/registry/configmaps/{namespace}/{name}"));
        let value = found.and_then(|map| map["data"]["value"].as_str());
        if let Known::There(written) = known
            && value != Some(written)
        {
            lost.push(format!(
                "{} {namespace}/{name}: {written} was acknowledged, {value:?} is there",
                CONFIG_MAPS.kind
            ));
        }
    }
    for key in objects.keys().filter_map(|key| key.strip_prefix("/registry/configmaps/")) {
        let Some((namespace, name)) = key.split_once('/') else { continue };
        let ours = name.starts_with("map-") && model::NAMESPACES.contains(&namespace);
        if ours && !maps.contains_key(&(namespace.to_owned(), name.to_owned())) {
            lost.push(format!("{} {key} was deleted, and is there", CONFIG_MAPS.kind));
        }
    }
    Ok(lost)
}

/// What a workload's status still lacks.
fn unfinished(key: &str, object: &Value) -> Option<String> {
    let number = |path: &str| object.pointer(path).and_then(Value::as_i64).unwrap_or_default();
    let resource = key.strip_prefix("/registry/")?.split('/').next()?;
    let limited = object["metadata"]["namespace"] == LIMITED;
    let wanted = match resource {
        "deployments" | "statefulsets" | "replicasets" => number("/spec/replicas"),
        "daemonsets" => number("/status/desiredNumberScheduled"),
        "jobs" => return unfinished_job(object).filter(|_| !limited),
        "pods" if !is_finished(object) && !is_ready(object) => {
            return Some("is not ready".to_owned()).filter(|_| !limited);
        }
        _ => return None,
    };
    let fields: &[&str] = match resource {
        "deployments" => &["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"],
        "statefulsets" => &["replicas", "readyReplicas", "updatedReplicas", "currentReplicas"],
        "replicasets" => &["replicas", "readyReplicas"],
        _ => &["currentNumberScheduled", "numberReady", "updatedNumberScheduled"],
    };
    if number("/status/observedGeneration") != number("/metadata/generation") {
        return Some("its newest form was not seen".to_owned());
    }
    if number("/status/numberMisscheduled") != 0 {
        return Some("pods are on the wrong nodes".to_owned());
    }
    // A quota may forbid what is asked for.
    let differs = |field: &&&str| number(&format!("/status/{field}")) != wanted;
    let field = fields.iter().find(differs).filter(|_| !limited)?;
    Some(format!("{field} is {}, not {wanted}", number(&format!("/status/{field}"))))
}

fn unfinished_job(job: &Value) -> Option<String> {
    let ended = |c: &Value| (c["type"] == "Complete" || c["type"] == "Failed") && c["status"] == "True";
    let done = job["status"]["conditions"].as_array().into_iter().flatten().any(ended);
    let active = job["status"]["active"].as_i64().unwrap_or_default();
    match (done, active) {
        (true, 0) => None,
        (true, active) => Some(format!("is done and has {active} active pods")),
        // The jobs of a CronJob go on coming.
        (false, _) if job["metadata"]["ownerReferences"][0]["kind"] == "CronJob" => None,
        (false, _) => Some("is not done".to_owned()),
    }
}

fn is_ready(pod: &Value) -> bool {
    let ready = |c: &Value| c["type"] == "Ready" && c["status"] == "True";
    pod["status"]["conditions"].as_array().into_iter().flatten().any(ready)
}

/// Objects whose owners are all gone.
fn orphans(objects: &Objects, unrest: &mut Vec<String>) {
    let uids: BTreeSet<&str> = objects.values().filter_map(|o| o["metadata"]["uid"].as_str()).collect();
    for (key, object) in objects {
        let Some(owners) = object["metadata"]["ownerReferences"].as_array().filter(|owners| !owners.is_empty()) else {
            continue;
        };
        if !owners.iter().any(|owner| owner["uid"].as_str().is_some_and(|uid| uids.contains(uid))) {
            unrest.push(format!("{key} has lost its owners"));
        }
    }
}

/// What runs on the nodes is what their pods say.
fn containers(objects: &Objects, nodes: &[SimNode], unrest: &mut Vec<String>) {
    for node in nodes {
        let runs: BTreeSet<String> = node
            .runtime
            .running_containers()
            .into_iter()
            .filter_map(|(_, labels)| labels.get("io.kubernetes.pod.uid").cloned())
            .collect();
        let pods = objects.iter().filter(|(key, _)| key.starts_with("/registry/pods/")).map(|(_, pod)| pod);
        let asked: BTreeSet<String> = pods
            .filter(|pod| pod["spec"]["nodeName"] == *node.name && !is_finished(pod) && is_ready(pod))
            .filter_map(|pod| pod["metadata"]["uid"].as_str().map(str::to_owned))
            .collect();
        let mut differences: Vec<_> = runs.symmetric_difference(&asked).collect();
        differences.truncate(3);
        if !differences.is_empty() {
            unrest.push(format!("{} does not run what its pods say: {differences:?}", node.name));
        }
    }
}

/// The addresses of each service are those of its ready pods.
fn endpoints(objects: &Objects, unrest: &mut Vec<String>) {
    let services = objects.iter().filter_map(|(key, s)| Some((key.strip_prefix("/registry/services/specs/")?, s)));
    for (key, service) in services {
        let Some(app) = service["spec"]["selector"]["app"].as_str() else { continue };
        let namespace = &service["metadata"]["namespace"];
        let of_pods = objects.iter().filter(|(key, _)| key.starts_with("/registry/pods/")).map(|(_, pod)| pod);
        let ready: BTreeSet<&str> = of_pods
            .filter(|pod| pod["metadata"]["namespace"] == *namespace && pod["metadata"]["labels"]["app"] == app)
            .filter(|pod| is_ready(pod) && !is_finished(pod))
            .filter_map(|pod| pod["status"]["podIP"].as_str())
            .collect();
        let slices = objects.iter().filter(|(key, _)| key.starts_with("/registry/endpointslices/")).map(|(_, s)| s);
        let told: BTreeSet<&str> = slices
            .filter(|slice| slice["metadata"]["namespace"] == *namespace)
            .filter(|slice| slice["metadata"]["labels"]["kubernetes.io/service-name"] == service["metadata"]["name"])
            .flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten())
            .filter(|endpoint| endpoint["conditions"]["ready"] == true)
            .filter_map(|endpoint| endpoint["addresses"][0].as_str())
            .collect();
        if ready != told {
            unrest.push(format!("service {key} tells {} addresses where {} pods are ready", told.len(), ready.len()));
        }
    }
}

/// Names, for a short report.
pub(crate) fn short(list: &[String]) -> String {
    let shown: Vec<&str> = list.iter().take(8).map(String::as_str).collect();
    let more = list.len().saturating_sub(shown.len());
    if more == 0 { shown.join("; ") } else { format!("{}; and {more} more", shown.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_deployment_is_at_rest_when_its_status_says_what_its_spec_asks() {
        let mut object = json!({
            "metadata": {"generation": 2}, "spec": {"replicas": 2},
            "status": {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2},
        });
        let key = "/registry/deployments/alpha/web";
        assert_eq!(unfinished(key, &object).as_deref(), Some("availableReplicas is 0, not 2"));
        object["status"]["availableReplicas"] = 2.into();
        assert_eq!(unfinished(key, &object), None);
        object["metadata"]["generation"] = 3.into();
        assert_eq!(unfinished(key, &object).as_deref(), Some("its newest form was not seen"));
    }

    #[test]
    fn an_object_without_any_of_its_owners_is_an_orphan() {
        let owned = json!({"metadata": {"uid": "b", "ownerReferences": [{"uid": "a"}]}});
        let mut objects = Objects::from([("/b".to_owned(), Arc::new(owned))]);
        let mut unrest = Vec::new();
        orphans(&objects, &mut unrest);
        assert_eq!(unrest, ["/b has lost its owners"]);
        objects.insert("/a".into(), Arc::new(json!({"metadata": {"uid": "a"}})));
        unrest.clear();
        orphans(&objects, &mut unrest);
        assert!(unrest.is_empty());
    }
}

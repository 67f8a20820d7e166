//! What people do to the cluster: they make, change and delete workloads, drain nodes, and remember what they were
//! told had been done.

use crate::chance::Chance;
use crate::link::Link;
use crate::model::{self, *};
use parking_lot::Mutex;
use pintle_client::{Client, ClientError, Patch, PatchOptions};
use pintle_types::k8s::api::core::v1::Node;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Between two things that are done.
const PAUSE: std::ops::Range<Duration> = Duration::from_millis(500)..Duration::from_secs(12);
/// Names of each kind of workload.
const NAMES: u64 = 3;

/// What is known of an object that only users write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// The server said that it has this value.
    There(String),
    /// A request got no answer: it may be there or not.
    Perhaps,
}

/// The users of a cluster.
pub(crate) struct Users {
    client: Client,
    chance: Chance,
    nodes: Vec<String>,
    /// ConfigMaps by namespace and name, as the server acknowledged them.
    pub(crate) maps: Mutex<BTreeMap<(String, String), Known>>,
    counter: Mutex<u64>,
}

impl Users {
    pub(crate) fn new(link: &Arc<Link>, chance: Chance, nodes: Vec<String>) -> Arc<Self> {
        let client = link.client("kubectl");
        Arc::new(Self { client, chance, nodes, maps: Mutex::default(), counter: Mutex::new(0) })
    }

    /// Makes the namespaces and the quota.
    pub(crate) async fn arrive(&self) -> Result<(), ClientError> {
        for name in NAMESPACES {
            self.client.json(http::Method::POST, "/api/v1/namespaces", Some(&model::namespace(name))).await?;
        }
        self.client.json(http::Method::POST, &QUOTAS.path(LIMITED), Some(&model::quota())).await?;
        Ok(())
    }

    /// Works until dropped. Failures are what users live with: they go on with something else.
    pub(crate) async fn work(self: Arc<Self>) {
        loop {
            tokio::time::sleep(self.chance.time(PAUSE)).await;
            if let Err(error) = self.act().await {
                tracing::debug!(%error, "a user was refused");
            }
        }
    }

    fn next(&self) -> u64 {
        let mut counter = self.counter.lock();
        *counter += 1;
        *counter
    }

    async fn act(&self) -> Result<(), ClientError> {
        let namespace = *self.chance.pick(&NAMESPACES).unwrap_or(&NAMESPACES[0]);
        let number = self.chance.number(0..NAMES);
        match self.chance.number(0..20) {
            0..=3 => self.workload(DEPLOYMENTS, namespace, &format!("web-{number}")).await,
            4..=6 => self.workload(STATEFUL_SETS, namespace, &format!("set-{number}")).await,
            7 | 8 => self.workload(DAEMON_SETS, namespace, &format!("agent-{number}")).await,
            9..=11 => self.job(namespace).await,
            12 => self.cron_job(namespace, &format!("cron-{number}")).await,
            13..=15 => self.map(namespace).await,
            16 => self.kill_pod(namespace).await,
            17 | 18 => self.drain().await,
            _ => self.uncordon().await,
        }
    }

    async fn send(&self, method: http::Method, path: &str, body: Option<&Value>) -> Result<Value, ClientError> {
        self.client.json(method, path, body).await
    }

    async fn create(&self, place: Place, namespace: &str, object: &Value) -> Result<Value, ClientError> {
        self.send(http::Method::POST, &place.path(namespace), Some(object)).await
    }

    /// Makes a workload, or changes or deletes the one that is there.
    async fn workload(&self, place: Place, namespace: &str, name: &str) -> Result<(), ClientError> {
        let path = place.object_path(namespace, name);
        let found = match self.send(http::Method::GET, &path, None).await {
            Err(error) if error.is_not_found() => return self.begin(place, namespace, name).await,
            found => found?,
        };
        match self.chance.number(0..6) {
            0 => self.delete(&path).await,
            1..=3 => {
                let mut changed = found;
                changed["spec"]["template"]["spec"]["containers"][0]["image"] = format!("app:{}", self.next()).into();
                self.send(http::Method::PUT, &path, Some(&changed)).await.map(drop)
            }
            _ if place == DAEMON_SETS => Ok(()),
            _ => {
                let mut changed = found;
                changed["spec"]["replicas"] = self.chance.number(0..6).into();
                self.send(http::Method::PUT, &path, Some(&changed)).await.map(drop)
            }
        }
    }

    async fn begin(&self, place: Place, namespace: &str, name: &str) -> Result<(), ClientError> {
        let (replicas, variant) = (self.chance.number(1..5), self.chance.happens(0.3));
        let object = match place.kind {
            "Deployment" => model::deployment(name, replicas, variant),
            "StatefulSet" => model::stateful_set(name, replicas, variant),
            _ => model::daemon_set(name),
        };
        self.create(place, namespace, &object).await?;
        if self.chance.happens(0.5) {
            // They may be there from the workload before.
            let _ = self.create(SERVICES, namespace, &model::service(name)).await;
            let _ = self.create(BUDGETS, namespace, &model::budget(name)).await;
        }
        Ok(())
    }

    async fn delete(&self, path: &str) -> Result<(), ClientError> {
        let policies = ["Background", "Foreground", "Background"];
        let policy = self.chance.pick(&policies).copied().unwrap_or("Background");
        let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy});
        self.send(http::Method::DELETE, path, Some(&options)).await.map(drop)
    }

    async fn job(&self, namespace: &str) -> Result<(), ClientError> {
        let containers = ["task", "task", "long-task", "failing-task"];
        let container = self.chance.pick(&containers).copied().unwrap_or("task");
        let name = format!("job-{}", self.next());
        let object =
            model::job(&name, self.chance.number(1..4), self.chance.number(1..3), container, self.chance.happens(0.5));
        self.create(JOBS, namespace, &object).await.map(drop)
    }

    async fn cron_job(&self, namespace: &str, name: &str) -> Result<(), ClientError> {
        match self.create(CRON_JOBS, namespace, &model::cron_job(name)).await {
            Err(error) if error.is_already_exists() => self.delete(&CRON_JOBS.object_path(namespace, name)).await,
            result => result.map(drop),
        }
    }

    /// Writes or deletes a ConfigMap, and remembers what the server says about it.
    async fn map(&self, namespace: &str) -> Result<(), ClientError> {
        let name = format!("map-{}", self.chance.number(0..8));
        let key = (namespace.to_owned(), name.clone());
        let value = self.next();
        let known = self.maps.lock().insert(key.clone(), Known::Perhaps);
        let object = model::config_map(&name, value);
        let path = CONFIG_MAPS.object_path(namespace, &name);
        let result = match known {
            None => self.create(CONFIG_MAPS, namespace, &object).await.map(|_| Some(value)),
            Some(Known::There(_)) if self.chance.happens(0.3) => self.delete(&path).await.map(|()| None),
            Some(_) => self.send(http::Method::PUT, &path, Some(&object)).await.map(|_| Some(value)),
        };
        match result {
            Ok(Some(value)) => drop(self.maps.lock().insert(key, Known::There(value.to_string()))),
            Ok(None) => drop(self.maps.lock().remove(&key)),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn kill_pod(&self, namespace: &str) -> Result<(), ClientError> {
        let pods = self.send(http::Method::GET, &PODS.path(namespace), None).await?;
        let names: Vec<&str> = pods["items"].as_array().into_iter().flatten().filter_map(name_of).collect();
        let Some(name) = self.chance.pick(&names) else { return Ok(()) };
        self.send(http::Method::DELETE, &PODS.object_path(namespace, name), None).await.map(drop)
    }

    /// As `kubectl drain` does it, without waiting for the end.
    async fn drain(&self) -> Result<(), ClientError> {
        let Some(node) = self.chance.pick(&self.nodes) else { return Ok(()) };
        self.set_unschedulable(node, true).await?;
        let path = format!("{}?fieldSelector=spec.nodeName%3D{node}", PODS.path(""));
        let pods = self.send(http::Method::GET, &path, None).await?;
        for pod in pods["items"].as_array().into_iter().flatten() {
            let owned_by = &pod["metadata"]["ownerReferences"][0]["kind"];
            let (Some(namespace), Some(name)) = (pod["metadata"]["namespace"].as_str(), name_of(pod)) else { continue };
            if owned_by == "DaemonSet" {
                continue;
            }
            let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
            let path = format!("{}/eviction", PODS.object_path(namespace, name));
            // Budgets may forbid it.
            let _ = self.send(http::Method::POST, &path, Some(&eviction)).await;
        }
        Ok(())
    }

    async fn uncordon(&self) -> Result<(), ClientError> {
        let Some(node) = self.chance.pick(&self.nodes) else { return Ok(()) };
        self.set_unschedulable(node, false).await
    }

    async fn set_unschedulable(&self, node: &str, to: bool) -> Result<(), ClientError> {
        let patch = Patch::Merge(json!({"spec": {"unschedulable": to}}));
        self.client.patch::<Node>("", node, patch, &PatchOptions::default()).await.map(drop)
    }

    /// Undoes every drain.
    pub(crate) async fn uncordon_all(&self) -> Result<(), ClientError> {
        for node in &self.nodes {
            self.set_unschedulable(node, false).await?;
        }
        Ok(())
    }
}

/// The name of an object.
pub(crate) fn name_of(object: &Value) -> Option<&str> {
    object["metadata"]["name"].as_str()
}

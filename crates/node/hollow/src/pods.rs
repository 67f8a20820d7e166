//! The pods that are bound to pretending nodes: follows them, and says what kubelets would say when it is time.
//!
//! Of a pod is kept only what has to be said of it. The plan is [`Stage::of`]: a pod is at one stage, and each stage
//! has one thing to do when its time has come.

use crate::{Config, Times, Watching, count, object};
use futures::future::join_all;
use parking_lot::Mutex;
use pintle_client::{ClientError, DeleteOptions, EventType, Patch, PatchOptions, RawEvent};
use pintle_informer::{Outcome, Queue, Sink, Source, reflect, run_reconciler};
use pintle_types::ObjectKey;
use pintle_types::k8s::api::core::v1::Pod;
use serde::Deserialize;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Requests at a time.
const WORKERS: usize = 32;
const JSON: &str = "application/json";

/// What a pod waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// To be started.
    Bound,
    /// To come to its end.
    Finite,
    /// To be ended.
    Deleted,
    /// Nothing.
    Settled,
}

/// What is kept of a pod.
#[derive(Clone, Debug)]
pub struct Known {
    pub uid: String,
    /// The number of its node.
    pub node: u32,
    pub host_network: bool,
    /// Names and images.
    pub containers: Vec<(String, String)>,
    stage: Stage,
    /// When the stage's work is to be done.
    due: Instant,
    /// Whether the phase says already that it has ended.
    over: bool,
    /// Whether a pod of this kind is expected to end by itself.
    finite: bool,
}

/// The part of a pod that matters.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Seen {
    metadata: Metadata,
    spec: Spec,
    status: Status,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    name: String,
    namespace: String,
    uid: String,
    resource_version: String,
    deletion_timestamp: Option<String>,
    deletion_grace_period_seconds: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    node_name: String,
    host_network: bool,
    restart_policy: String,
    containers: Vec<Container>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Container {
    name: String,
    image: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    phase: String,
}

impl Stage {
    fn of(pod: &Seen) -> Self {
        match pod.status.phase.as_str() {
            _ if pod.metadata.deletion_timestamp.is_some() => Self::Deleted,
            "Succeeded" | "Failed" => Self::Settled,
            "Running" if pod.is_finite() => Self::Finite,
            "Running" => Self::Settled,
            _ => Self::Bound,
        }
    }

    /// How long the stage lasts.
    fn length(self, pod: &Seen, times: &Times) -> Duration {
        let grace = Duration::from_secs(pod.metadata.deletion_grace_period_seconds.unwrap_or_default());
        match self {
            Self::Bound => times.start,
            Self::Finite => times.run,
            Self::Deleted => times.end.min(grace),
            Self::Settled => Duration::ZERO,
        }
    }
}

impl Seen {
    fn is_finite(&self) -> bool {
        !matches!(self.spec.restart_policy.as_str(), "" | "Always")
    }

    fn key(&self) -> ObjectKey {
        ObjectKey::new(self.metadata.namespace.as_str(), self.metadata.name.as_str())
    }
}

/// The pods of all nodes of the process.
struct Pods {
    nodes: HashMap<String, u32>,
    times: Times,
    known: Mutex<HashMap<ObjectKey, Known>>,
    queue: Queue<ObjectKey>,
    /// How many pods each node has started: the next one's address.
    turns: Mutex<HashMap<u32, u32>>,
}

impl Pods {
    fn saw(&self, pod: Seen) {
        let (key, stage) = (pod.key(), Stage::of(&pod));
        let Some(&node) = self.nodes.get(&pod.spec.node_name) else { return };
        let mut known = self.known.lock();
        if known.get(&key).is_some_and(|known| known.stage == stage && known.uid == pod.metadata.uid) {
            return;
        }
        let wait = stage.length(&pod, &self.times);
        let new = Known {
            node,
            stage,
            due: Instant::now() + wait,
            over: matches!(pod.status.phase.as_str(), "Succeeded" | "Failed"),
            finite: pod.is_finite(),
            uid: pod.metadata.uid,
            host_network: pod.spec.host_network,
            containers: pod.spec.containers.into_iter().map(|c| (c.name, c.image)).collect(),
        };
        known.insert(key.clone(), new);
        drop(known);
        if stage != Stage::Settled {
            self.queue.add_after(key, wait);
        }
    }

    async fn reconcile(&self, config: &Config, key: ObjectKey) -> Result<Outcome, ClientError> {
        let Some(pod) = self.known.lock().get(&key).cloned() else { return Ok(Outcome::Done) };
        let left = pod.due.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            return Ok(if pod.stage == Stage::Settled { Outcome::Done } else { Outcome::After(left) });
        }
        match pod.stage {
            Stage::Settled => {}
            Stage::Bound => {
                let address = object::pod_address(pod.node, self.turn(pod.node));
                tell(config, &key, object::running(&pod, address, config.clock.now_seconds())).await?;
                count(&config.figures.started);
            }
            Stage::Finite => {
                tell(config, &key, object::ended(&pod, true, config.clock.now_seconds())).await?;
                count(&config.figures.ended);
            }
            Stage::Deleted => {
                if !pod.over {
                    // What was to run for ever and is told to end has done well.
                    tell(config, &key, object::ended(&pod, !pod.finite, config.clock.now_seconds())).await?;
                }
                remove(config, &key, &pod.uid).await?;
                count(&config.figures.ended);
            }
        }
        Ok(Outcome::Done)
    }

    fn turn(&self, node: u32) -> u32 {
        let mut turns = self.turns.lock();
        let turn = turns.entry(node).or_default();
        *turn = turn.wrapping_add(1);
        *turn
    }
}

async fn tell(config: &Config, key: &ObjectKey, patch: serde_json::Value) -> Result<(), ClientError> {
    let options = PatchOptions::status();
    match config.client.patch::<Pod>(&key.namespace, &key.name, Patch::Strategic(patch), &options).await {
        // It is gone, or another one of the same name by now.
        Err(error) if error.is_not_found() || error.is_conflict() || error.is_invalid() => Ok(()),
        result => result.map(drop),
    }
}

async fn remove(config: &Config, key: &ObjectKey, uid: &str) -> Result<(), ClientError> {
    let options = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::of_uid(uid) };
    match config.client.delete::<Pod>(&key.namespace, &key.name, &options).await {
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        result => result,
    }
}

/// One watch: of all bound pods, or of one node's.
struct Follower {
    pods: Arc<Pods>,
    /// What the list that is being read holds so far.
    listed: Mutex<HashSet<ObjectKey>>,
    /// The keys that came by this watch.
    own: Mutex<HashSet<ObjectKey>>,
}

impl Follower {
    fn saw(&self, object: &[u8]) -> Option<(ObjectKey, String)> {
        let pod = parse(object)?;
        let (key, version) = (pod.key(), pod.metadata.resource_version.clone());
        if self.pods.nodes.contains_key(&pod.spec.node_name) {
            self.own.lock().insert(key.clone());
            self.pods.saw(pod);
        }
        Some((key, version))
    }

    fn gone(&self, key: &ObjectKey) {
        self.own.lock().remove(key);
        self.pods.known.lock().remove(key);
    }
}

fn parse(object: &[u8]) -> Option<Seen> {
    let parsed = serde_json::from_slice(object);
    parsed.inspect_err(|error| tracing::warn!(%error, "a pod can't be read and is left alone")).ok()
}

impl Sink for Follower {
    fn list_begins(&self) {
        self.listed.lock().clear();
    }

    fn listed(&self, object: &[u8]) {
        if let Some((key, _)) = self.saw(object) {
            self.listed.lock().insert(key);
        }
    }

    fn list_ends(&self) {
        let listed = std::mem::take(&mut *self.listed.lock());
        let gone: Vec<ObjectKey> = self.own.lock().difference(&listed).cloned().collect();
        gone.iter().for_each(|key| self.gone(key));
    }

    fn event(&self, event: &RawEvent) -> Option<String> {
        match event.event_type {
            EventType::Bookmark => parse(&event.object).map(|mark| mark.metadata.resource_version),
            EventType::Deleted => {
                let pod = parse(&event.object)?;
                self.gone(&pod.key());
                Some(pod.metadata.resource_version)
            }
            _ => self.saw(&event.object).map(|(_, version)| version),
        }
    }
}

/// Follows the pods until `stop`.
pub async fn run(config: &Config, stop: &CancellationToken) {
    let pods = Arc::new(Pods {
        nodes: config.numbers().map(|number| (config.name(number), number)).collect(),
        times: config.times.clone(),
        known: Mutex::default(),
        queue: Queue::new(),
        turns: Mutex::default(),
    });
    let selectors: Vec<String> = match config.watching {
        Watching::Together => vec!["spec.nodeName!=".into()],
        Watching::Each => pods.nodes.keys().map(|name| format!("spec.nodeName={name}")).collect(),
    };
    let watches = join_all(selectors.into_iter().map(|field_selector| {
        let source = Source {
            path: "/api/v1/pods".into(),
            accept: JSON.into(),
            watch_accept: JSON.into(),
            field_selector,
            ..Source::default()
        };
        let follower = Follower { pods: Arc::clone(&pods), listed: Mutex::default(), own: Mutex::default() };
        reflect(config.client.clone(), source, Arc::new(follower), stop.clone())
    }));
    let queue = pods.queue.clone();
    let work = |key| {
        let pods = Arc::clone(&pods);
        async move {
            let result = pods.reconcile(config, key).await;
            if result.is_err() {
                count(&config.figures.failures);
            }
            result
        }
    };
    tokio::join!(watches, run_reconciler("hollow", queue, WORKERS, work, stop.clone()));
}

//! Registers the node, keeps its status current and its lease alive.

mod lease;
pub mod machine;
mod object;

use crate::config::Config;
use crate::host::Host;
use machine::Machine;
use pintle_client::{ClientError, Patch, PatchOptions};
use pintle_cri::VersionResponse;
use pintle_informer::{EventType, Recorder, Selector};
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{Node, ObjectReference};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How often the node looks at itself; a look that finds nothing new tells nobody.
const LOOK: Duration = Duration::from_secs(10);
/// A status that did not change is told again after this.
const TELL_ANYWAY: Duration = Duration::from_secs(300);
const RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(7);

/// What the node's object is made from.
pub struct Facts {
    pub config: Config,
    pub host: Arc<Host>,
    pub machine: Machine,
    pub runtime: VersionResponse,
}

/// Registers the node and reports on it until `stop`.
pub async fn run(
    config: Config,
    host: Arc<Host>,
    machine: Machine,
    runtime: VersionResponse,
    recorder: Recorder,
    stop: CancellationToken,
) {
    let facts = Facts { config, host, machine, runtime };
    let work = async {
        let node = register(&facts).await;
        recorder.event_on(reference(&facts.config.node_name), EventType::Normal, "Starting", "Starting kubelet.");
        tokio::join!(lease::renew(&facts.config, node.uid()), report(&facts, &recorder));
    };
    // Ends with `stop`: neither of the two has an end of its own.
    let _ended = stop.run_until_cancelled(work).await;
}

/// Events about nodes name them without a uid of the API's: it is the name again, as upstream has it.
pub fn reference(node_name: &str) -> ObjectReference {
    ObjectReference {
        kind: Some("Node".into()),
        name: Some(node_name.to_owned()),
        uid: Some(node_name.to_owned()),
        ..Default::default()
    }
}

/// Makes the Node object, or takes up the one that is there. Tries until it succeeds.
async fn register(facts: &Facts) -> Node {
    let mut delay = Duration::from_millis(100);
    loop {
        match try_register(facts).await {
            Ok(node) => return node,
            Err(error) => tracing::debug!(%error, "the node can't be registered yet; trying again"),
        }
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(LAST_RETRY);
    }
}

async fn try_register(facts: &Facts) -> Result<Node, ClientError> {
    let client = &facts.config.client;
    let status = object::status(facts, None).await;
    let wanted = object::node(facts, status);
    match client.create(&wanted).await {
        Err(error) if error.is_already_exists() => {}
        result => return result,
    }
    let marks = json!({"metadata": {"labels": wanted.metadata.labels, "annotations": wanted.metadata.annotations}});
    client.patch::<Node>("", &facts.config.node_name, Patch::Strategic(marks), &PatchOptions::default()).await
}

/// Tells the status whenever it changes, and now and then anyway; follows the pod CIDRs that the node is given.
async fn report(facts: &Facts, recorder: &Recorder) {
    let config = &facts.config;
    let nodes = config.informers.selected::<Node>(Selector::fields(format!("metadata.name={}", config.node_name)));
    let changed = Arc::new(Notify::new());
    let wake = Arc::clone(&changed);
    nodes.on_change(move |_| wake.notify_one());
    let (mut told_at, mut cidrs, mut was_ready) = (None, Vec::new(), None);
    loop {
        let key = pintle_types::ObjectKey::new("", &config.node_name);
        let Some(node) = nodes.get(&key) else {
            if nodes.is_synced() {
                // Somebody deleted the node while it is running: it comes back.
                register(facts).await;
            }
            wait(&changed, RETRY).await;
            continue;
        };
        tell_cidrs(config, &node, &mut cidrs).await;
        let status = object::status(facts, Some(&node)).await;
        let ready = object::is_ready(&status);
        if was_ready.replace(ready) != Some(ready) {
            let word = if ready { "NodeReady" } else { "NodeNotReady" };
            let message = format!("Node {} status is now: {word}", config.node_name);
            recorder.event_on(reference(&config.node_name), EventType::Normal, word, message);
        }
        let due = told_at.is_none_or(|at: tokio::time::Instant| at.elapsed() >= TELL_ANYWAY);
        if (due || object::differs(&node, &status)) && tell(facts, status).await {
            told_at = Some(tokio::time::Instant::now());
        }
        tokio::select! {
            () = wait(&changed, LOOK) => {}
            () = facts.host.pressures.changed.notified() => {}
            () = facts.host.ending.changed.notified() => {}
            () = facts.host.placement.changed() => {}
        }
    }
}

async fn wait(changed: &Notify, at_most: Duration) {
    // Either is a reason to look again.
    let _ = tokio::time::timeout(at_most, changed.notified()).await;
}

async fn tell(facts: &Facts, mut status: Value) -> bool {
    let (client, name) = (&facts.config.client, &facts.config.node_name);
    // Patches tell addresses apart by their type, of which two families have two: the list is replaced, as upstream's
    // kubelet does it.
    if let Some(addresses) = status["addresses"].as_array_mut().filter(|_| facts.config.node_ips.len() > 1) {
        addresses.push(json!({"$patch": "replace"}));
    }
    let patch = Patch::Strategic(json!({ "status": status }));
    match client.patch::<Node>("", name, patch, &PatchOptions::status()).await {
        Ok(_) => true,
        Err(error) => {
            tracing::debug!(%error, "the node's status can't be told; trying again");
            false
        }
    }
}

/// Tells the node's network, and then the runtime, whose own network may need them; again until it has taken them.
async fn tell_cidrs(config: &Config, node: &Node, known: &mut Vec<String>) {
    let spec = node.spec.as_ref();
    let list = spec.and_then(|s| s.pod_cidrs.clone()).or_else(|| Some(vec![spec?.pod_cidr.clone()?]));
    let cidrs = list.unwrap_or_default();
    if cidrs != *known && !cidrs.is_empty() {
        if let Some(callback) = &config.on_pod_cidrs {
            callback(&cidrs);
        }
        match config.runtime.update_pod_cidrs(&cidrs).await {
            Ok(()) => *known = cidrs,
            Err(error) => tracing::warn!(%error, "the runtime can't be told the pods' ranges; trying again"),
        }
    }
}

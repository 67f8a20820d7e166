//! Keeps, for each static pod, a mirror of it in the API: made again when it is deleted or differs, and deleted once
//! the static pod is gone.

use super::{HASH, MIRROR, is_mirror};
use parking_lot::Mutex;
use pintle_client::{Client, ClientError, DeleteOptions, Preconditions};
use pintle_informer::{Informer, Outcome, Queue, run_reconciler};
use pintle_types::k8s::api::core::v1::{Node, Pod};
use pintle_types::k8s::apimachinery::pkg::apis::meta::v1::OwnerReference;
use pintle_types::{Kind, ObjectKey};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What the loop of pods and the mirrors share.
pub struct Mirrors {
    client: Client,
    node_name: String,
    api: Informer<Pod>,
    queue: Queue<ObjectKey>,
    wanted: Mutex<Wanted>,
}

#[derive(Default)]
struct Wanted {
    pods: HashMap<ObjectKey, Arc<Pod>>,
    /// Static pods that still run, though they may not be wanted any more.
    running: HashSet<ObjectKey>,
}

/// What is to be done about one mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    Create,
    Delete,
    Replace,
}

impl Mirrors {
    pub fn new(client: Client, node_name: String, api: Informer<Pod>) -> Arc<Self> {
        Arc::new(Self { client, node_name, api, queue: Queue::new(), wanted: Mutex::default() })
    }

    /// The static pods that there are to be.
    pub fn want(&self, pods: &HashMap<ObjectKey, Arc<Pod>>) {
        let before = std::mem::replace(&mut self.wanted.lock().pods, pods.clone());
        before.keys().chain(pods.keys()).for_each(|key| self.queue.add(key.clone()));
    }

    /// The static pod of that name.
    pub fn pod(&self, key: &ObjectKey) -> Option<Arc<Pod>> {
        self.wanted.lock().pods.get(key).cloned()
    }

    /// Says whether a static pod of that name is still there.
    pub fn running(&self, key: &ObjectKey, runs: bool) {
        let mut wanted = self.wanted.lock();
        if runs {
            wanted.running.insert(key.clone());
        } else {
            wanted.running.remove(key);
        }
        self.queue.add(key.clone());
    }

    /// The mirror of that name came, changed or went.
    pub fn look_at(&self, key: ObjectKey) {
        self.queue.add(key);
    }

    /// Works until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let synced = stop.run_until_cancelled(self.api.synced()).await;
        if synced.is_none() {
            return;
        }
        let queue = self.queue.clone();
        run_reconciler("mirror-pods", queue, 1, |key| self.reconcile(key), stop).await;
    }

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ClientError> {
        let (pod, running) = {
            let wanted = self.wanted.lock();
            (wanted.pods.get(&key).cloned(), wanted.running.contains(&key))
        };
        let mirror = self.api.get(&key);
        let step = step(pod.as_deref(), mirror.as_deref(), running);
        if let (Step::Delete | Step::Replace, Some(mirror)) = (step, &mirror) {
            self.delete(mirror).await?;
        }
        if let (Step::Create | Step::Replace, Some(pod)) = (step, &pod) {
            self.create(pod).await?;
        }
        Ok(Outcome::Done)
    }

    async fn delete(&self, mirror: &Pod) -> Result<(), ClientError> {
        let options = DeleteOptions {
            grace_period_seconds: Some(0),
            preconditions: Preconditions::uid(mirror.uid()),
            ..Default::default()
        };
        match self.client.delete::<Pod>(mirror.namespace(), mirror.name(), &options).await {
            // Another one, or none: the watch will say so.
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            result => result,
        }
    }

    async fn create(&self, pod: &Pod) -> Result<(), ClientError> {
        let node = self.client.get::<Node>("", &self.node_name).await?;
        self.client.create(&mirror_of(pod, &node)).await.map(drop)
    }
}

fn step(pod: Option<&Pod>, mirror: Option<&Pod>, running: bool) -> Step {
    let hash = |pod: &Pod, name: &str| pod.metadata.annotations.as_ref().and_then(|a| a.get(name)).cloned();
    match (pod, mirror) {
        (None, Some(mirror)) if is_mirror(mirror) && !running => Step::Delete,
        (None, _) => Step::Nothing,
        (Some(_), None) => Step::Create,
        // Somebody's pod has that name: the mirror waits for it to go.
        (Some(_), Some(mirror)) if !is_mirror(mirror) => Step::Nothing,
        (Some(pod), Some(mirror)) => {
            let same = hash(pod, HASH) == hash(mirror, MIRROR);
            if same && !mirror.is_deleting() { Step::Nothing } else { Step::Replace }
        }
    }
}

/// The object that stands for a static pod in the API; its node owns it.
fn mirror_of(pod: &Pod, node: &Node) -> Pod {
    let mut mirror = pod.clone();
    let meta = &mut mirror.metadata;
    let annotations = meta.annotations.get_or_insert_default();
    if let Some(hash) = annotations.get(HASH).cloned() {
        annotations.insert(MIRROR.into(), hash);
    }
    meta.uid = None;
    meta.owner_references = Some(vec![OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: node.name().to_owned(),
        uid: node.uid().to_owned(),
        controller: Some(true),
        ..Default::default()
    }]);
    mirror
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::pods::pod;
    use serde_json::json;

    fn with(annotations: serde_json::Value, deleting: bool) -> Pod {
        let mut pod = pod(json!({"containers": []})).to_value();
        pod["metadata"]["annotations"] = annotations;
        if deleting {
            pod["metadata"]["deletionTimestamp"] = "2024-01-01T00:00:00Z".into();
        }
        Pod::from_value(pod).unwrap()
    }

    #[test]
    fn mirrors_follow_their_pods() {
        let pod = with(json!({HASH: "1"}), false);
        let mirror = |hash: &str, deleting| with(json!({HASH: hash, MIRROR: hash}), deleting);
        let (same, other, dying) = (mirror("1", false), mirror("2", false), mirror("1", true));
        for (pod, mirror, running, expected) in [
            (Some(&pod), None, false, Step::Create),
            (Some(&pod), Some(&same), true, Step::Nothing),
            (Some(&pod), Some(&other), true, Step::Replace),
            (Some(&pod), Some(&dying), true, Step::Replace),
            (Some(&pod), Some(&pod), true, Step::Nothing),
            (None, Some(&same), true, Step::Nothing),
            (None, Some(&same), false, Step::Delete),
            (None, Some(&pod), false, Step::Nothing),
            (None, None, false, Step::Nothing),
        ] {
            assert_eq!(step(pod, mirror, running), expected, "{mirror:?}");
        }
    }

    #[test]
    fn a_mirror_belongs_to_its_node() {
        let node = Node::from_value(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "uid": "u"}}));
        let mirror = mirror_of(&with(json!({HASH: "1"}), false), &node.unwrap());
        assert_eq!(mirror.metadata.annotations.unwrap()[MIRROR], "1");
        assert_eq!(mirror.metadata.uid, None);
        let owner = &mirror.metadata.owner_references.unwrap()[0];
        assert_eq!((owner.kind.as_str(), owner.uid.as_str(), owner.controller), ("Node", "u", Some(true)));
    }
}

//! Watches claims, volumes and nodes, and does what the plan says.

use super::directory;
use super::plan::{self, ClaimStep, FINALIZER, HOSTNAME, VolumeStep};
use crate::context::Context;
use crate::node::is_ready;
use pintle_client::{ClientError, DeleteOptions, Patch, PatchOptions};
use pintle_informer::{Change, EventType, Informer, Outcome, Queue, run_reconciler};
use pintle_storage::{LOCAL_PATH, PROVISIONED_BY, SELECTED_NODE, class_of_claim};
use pintle_types::k8s::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use pintle_types::k8s::api::storage::v1::StorageClass;
use pintle_types::{Kind, ObjectKey, Status};
use serde_json::json;
use std::sync::Arc;

/// Claims and volumes that are looked at at a time: a directory with much in it takes long to remove.
const WORKERS: usize = 4;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Claim(ObjectKey),
    Volume(ObjectKey),
}

struct Controller {
    context: Context,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    classes: Informer<StorageClass>,
    nodes: Informer<Node>,
    queue: Queue<Key>,
}

/// Runs the controller until the context's stop.
pub async fn run(context: Context) {
    let informers = &context.informers;
    let controller = Controller {
        claims: informers.of(),
        volumes: informers.of(),
        classes: informers.of(),
        nodes: informers.of(),
        queue: Queue::new(),
        context: context.clone(),
    };
    controller.watch();
    controller.claims.synced().await;
    controller.volumes.synced().await;
    controller.classes.synced().await;
    controller.nodes.synced().await;
    let reconcile = |key| controller.reconcile(key);
    let queue = controller.queue.clone();
    run_reconciler("local-path-provisioner", queue, WORKERS, reconcile, context.stop.clone()).await;
}

fn is_ours(volume: &PersistentVolume) -> bool {
    volume.annotation(PROVISIONED_BY) == Some(LOCAL_PATH)
}

impl Controller {
    fn watch(&self) {
        let queue = self.queue.clone();
        self.claims.on_change(move |change| {
            if let Some(claim) = change.new() {
                queue.add(Key::Claim(claim.key()));
            }
        });
        let queue = self.queue.clone();
        self.volumes.on_change(move |change| {
            if let Some(volume) = change.new().filter(|volume| is_ours(volume)) {
                queue.add(Key::Volume(volume.key()));
            }
        });
        let (queue, volumes) = (self.queue.clone(), self.volumes.clone());
        self.nodes.on_change(move |change| {
            let is_back = match change {
                Change::Modified(old, new) => !is_ready(old) && is_ready(new),
                Change::Deleted(_) => true,
                Change::Added(_) => false,
            };
            if is_back {
                let ours = volumes.list().into_iter().filter(|volume| is_ours(volume));
                ours.for_each(|volume| queue.add(Key::Volume(volume.key())));
            }
        });
    }

    async fn reconcile(&self, key: Key) -> Result<Outcome, ClientError> {
        match key {
            Key::Claim(key) => match self.claims.get(&key) {
                Some(claim) => self.claim(&claim).await?,
                None => return Ok(Outcome::Done),
            },
            Key::Volume(key) => match self.volumes.get(&key) {
                Some(volume) => self.volume(&volume).await?,
                None => return Ok(Outcome::Done),
            },
        }
        Ok(Outcome::Done)
    }

    fn warn<K: Kind>(&self, object: &K, reason: &'static str, message: String) {
        self.context.recorder.event(object, EventType::Warning, reason, message);
    }

    async fn claim(&self, claim: &PersistentVolumeClaim) -> Result<(), ClientError> {
        let class = self.classes.get(&ObjectKey::new("", class_of_claim(claim)));
        let name = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default();
        let volume = self.volumes.get(&ObjectKey::new("", name));
        match (plan::claim(claim, class.as_deref(), volume.as_deref()), class, volume) {
            (ClaimStep::Refuse(why), Some(class), _) => {
                self.provisioning_failed(claim, &class, why);
                Ok(())
            }
            (ClaimStep::Provision(node), Some(class), _) => self.provision(claim, &class, &node).await,
            (ClaimStep::Expand, _, Some(volume)) => self.expand(claim, &volume).await,
            _ => Ok(()),
        }
    }

    fn provisioning_failed(&self, claim: &PersistentVolumeClaim, class: &StorageClass, why: impl std::fmt::Display) {
        let message = format!("failed to provision volume with StorageClass \"{}\": {why}", class.name());
        self.warn(claim, "ProvisioningFailed", message);
    }

    async fn provision(
        &self,
        claim: &PersistentVolumeClaim,
        class: &StorageClass,
        node: &str,
    ) -> Result<(), ClientError> {
        let name = plan::name_for(claim);
        if self.volumes.get(&ObjectKey::new("", name.as_str())).is_some() {
            return Ok(());
        }
        let Some(node) = self.nodes.get(&ObjectKey::new("", node)) else {
            self.provisioning_failed(
                claim,
                class,
                format_args!("failed to get target node: nodes \"{node}\" not found"),
            );
            return self.let_scheduler_choose(claim).await;
        };
        let recorder = &self.context.recorder;
        let message = format!("External provisioner is provisioning volume for claim \"{}\"", claim.key());
        recorder.event(claim, EventType::Normal, "Provisioning", message);
        let made = directory::make(&self.context.client, node.name(), &name).await;
        let directory = made.inspect_err(|error| self.provisioning_failed(claim, class, error))?;
        let host_name = node.label(HOSTNAME).unwrap_or(node.name());
        let volume = plan::made(claim, class, &directory, host_name).map_err(|e| Status::internal(e.to_string()))?;
        match self.context.client.create(&volume).await {
            Err(error) if !error.is_already_exists() => {
                self.provisioning_failed(claim, class, &error);
                return Err(error);
            }
            _ => {}
        }
        let message = format!("Successfully provisioned volume {name}");
        recorder.event(claim, EventType::Normal, "ProvisioningSucceeded", message);
        Ok(())
    }

    /// The node is gone; the scheduler finds another one.
    async fn let_scheduler_choose(&self, claim: &PersistentVolumeClaim) -> Result<(), ClientError> {
        let patch = json!({ "metadata": { "uid": claim.uid(), "annotations": { SELECTED_NODE: null } } });
        let (client, options) = (&self.context.client, PatchOptions::default());
        client
            .patch::<PersistentVolumeClaim>(claim.namespace(), claim.name(), Patch::Merge(patch), &options)
            .await
            .map(drop)
    }

    /// A directory has no size of its own: volume and claim say the new one, and that is all.
    async fn expand(&self, claim: &PersistentVolumeClaim, volume: &Arc<PersistentVolume>) -> Result<(), ClientError> {
        let requests = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
        let Some(size) = requests.and_then(|list| list.get("storage")) else { return Ok(()) };
        let (client, recorder) = (&self.context.client, &self.context.recorder);
        let message = format!("External resizer is resizing volume {}", volume.name());
        recorder.event(claim, EventType::Normal, "Resizing", message);
        let patch = Patch::Merge(json!({ "spec": { "capacity": { "storage": size } } }));
        client.patch::<PersistentVolume>("", volume.name(), patch, &PatchOptions::default()).await?;
        let status = json!({
            "capacity": { "storage": size },
            "allocatedResources": { "storage": size },
            "allocatedResourceStatuses": null,
        });
        let patch = Patch::Merge(json!({ "metadata": { "uid": claim.uid() }, "status": status }));
        let options = PatchOptions::status();
        client.patch::<PersistentVolumeClaim>(claim.namespace(), claim.name(), patch, &options).await?;
        recorder.event(claim, EventType::Normal, "VolumeResizeSuccessful", "Resize volume succeeded");
        Ok(())
    }

    async fn volume(&self, volume: &PersistentVolume) -> Result<(), ClientError> {
        match plan::volume(volume) {
            VolumeStep::Nothing => Ok(()),
            VolumeStep::LetGo => self.let_go(volume).await,
            VolumeStep::Delete(host_name) => {
                let there = |node: &Arc<Node>| node.label(HOSTNAME).unwrap_or(node.name()) == host_name;
                // With a node that left the cluster its directories are gone.
                if let Some(node) = self.nodes.list().into_iter().find(there) {
                    let removed = directory::remove(&self.context.client, node.name(), volume.name()).await;
                    removed.inspect_err(|error| self.warn(volume, "VolumeFailedDelete", error.to_string()))?;
                }
                if !volume.is_deleting() {
                    let options = DeleteOptions::of_uid(volume.uid());
                    gone_is_fine(self.context.client.delete::<PersistentVolume>("", volume.name(), &options).await)?;
                }
                self.let_go(volume).await
            }
        }
    }

    /// Takes our finalizer off, of whatever version the volume is by now.
    async fn let_go(&self, volume: &PersistentVolume) -> Result<(), ClientError> {
        let Some(mut fresh) = self.context.client.get_opt::<PersistentVolume>("", volume.name()).await? else {
            return Ok(());
        };
        if fresh.uid() != volume.uid() || !fresh.is_deleting() {
            return Ok(());
        }
        fresh.metadata.finalizers.iter_mut().for_each(|list| list.retain(|it| it != FINALIZER));
        gone_is_fine(self.context.client.update(&fresh).await.map(drop))
    }
}

fn gone_is_fine(result: Result<(), ClientError>) -> Result<(), ClientError> {
    result.or_else(|error| if error.is_not_found() { Ok(()) } else { Err(error) })
}

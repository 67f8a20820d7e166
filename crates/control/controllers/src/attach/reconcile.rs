//! Watches pods, claims, volumes, nodes and attachments, and does what the plan says.

use super::plan::{self, Care, Handle, OnNode, Step, is_managed, is_shared};
use crate::context::{Context, seconds_between};
use crate::node::{BY_NODE, is_ready, node_of};
use crate::pods;
use crate::protection::{BY_CLAIM, claims_of_placed};
use parking_lot::Mutex;
use pintle_client::{ClientError, DeleteOptions, Patch, PatchOptions, unless_missing};
use pintle_informer::{Change, EventType, Informer, Outcome, Queue, run_reconciler};
use pintle_types::k8s::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use pintle_types::k8s::api::storage::v1::{CSIDriver, VolumeAttachment};
use pintle_types::{Kind, ObjectKey};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Volumes by their handle, as [`Handle::unique`] writes it.
const BY_HANDLE: &str = "csi-handle";
/// Attachments by the volume that they name, and by their node.
const BY_VOLUME: &str = "attached-volume";
const OF_NODE: &str = "attached-node";
/// Nodes by the volumes that their status says are attached.
const REPORTED: &str = "reported-volume";
/// Volumes that are looked at at a time.
const WORKERS: usize = 4;

/// A volume on a node.
type Place = (Handle, String);

struct Controller {
    context: Context,
    pods: Informer<Pod>,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    nodes: Informer<Node>,
    attachments: Informer<VolumeAttachment>,
    drivers: Informer<CSIDriver>,
    queue: Queue<Handle>,
    memory: Mutex<Memory>,
}

/// What objects do not tell.
#[derive(Default)]
struct Memory {
    /// Attachments that were made and are not seen yet, by name.
    made: HashMap<String, Arc<VolumeAttachment>>,
    /// Since when no pod wants a volume that is on a node.
    unwanted: HashMap<Place, Instant>,
    /// What pods were told last of a volume on their node.
    told: HashMap<Place, String>,
    /// What nodes had in use when they left the cluster.
    left: HashMap<String, Vec<String>>,
}

fn handles(volume: &PersistentVolume) -> Vec<String> {
    Handle::of(volume).iter().map(Handle::unique).collect()
}

fn named_volume(attachment: &VolumeAttachment) -> Vec<String> {
    attachment.spec.source.persistent_volume_name.iter().cloned().collect()
}

fn named_node(attachment: &VolumeAttachment) -> Vec<String> {
    vec![attachment.spec.node_name.clone()]
}

/// What the status of the node says is attached.
fn reported(node: &Node) -> Vec<String> {
    let attached = node.status.iter().flat_map(|status| status.volumes_attached.iter().flatten());
    attached.map(|volume| volume.name.clone()).collect()
}

fn in_use(node: &Node) -> Vec<String> {
    node.status.as_ref().and_then(|status| status.volumes_in_use.clone()).unwrap_or_default()
}

/// Runs the controller until the context's stop, from the first volume of a CSI driver on.
pub async fn run(context: Context) {
    let volumes = context.informers.of::<PersistentVolume>();
    let seen = Arc::new(Notify::new());
    let tell = Arc::clone(&seen);
    volumes.on_change(move |change| {
        if Handle::of(change.object()).is_some() {
            tell.notify_one();
        }
    });
    if context.stop.run_until_cancelled(seen.notified()).await.is_none() {
        return;
    }
    let informers = &context.informers;
    let controller = Arc::new(Controller {
        pods: informers.of(),
        claims: informers.of(),
        volumes,
        nodes: informers.of(),
        attachments: informers.of(),
        drivers: informers.of(),
        queue: Queue::new(),
        memory: Mutex::default(),
        context: context.clone(),
    });
    controller.index();
    controller.attachments.synced().await;
    controller.drivers.synced().await;
    controller.nodes.synced().await;
    controller.claims.synced().await;
    controller.pods.synced().await;
    watch(&controller);
    let reconcile = |handle| controller.reconcile(handle);
    let queue = controller.queue.clone();
    run_reconciler("attachdetach-controller", queue, WORKERS, reconcile, context.stop.clone()).await;
}

fn watch(controller: &Arc<Controller>) {
    let own = Arc::clone(controller);
    controller.volumes.on_change(move |change| own.add(change.object()));
    let own = Arc::clone(controller);
    controller.claims.on_change(move |change| own.claim_changed(change.object()));
    let own = Arc::clone(controller);
    controller.pods.on_change(move |change| {
        let look = |pod: &Pod| (pods::node_name(pod).to_owned(), pods::is_finished(pod));
        if change.old().zip(change.new()).is_none_or(|(old, new)| look(old) != look(new)) {
            own.pod_changed(change.object());
        }
    });
    let own = Arc::clone(controller);
    controller.nodes.on_change(move |change| own.node_changed(change));
    let own = Arc::clone(controller);
    controller.attachments.on_change(move |change| {
        own.memory.lock().made.remove(change.object().name());
        own.attachment_changed(change.object());
    });
    let own = Arc::clone(controller);
    controller.drivers.on_change(move |change| {
        let required = |driver: &CSIDriver| driver.spec.attach_required;
        if change.old().map(|old| required(old)) != change.new().map(|new| required(new)) {
            own.driver_changed(change.object().name());
        }
    });
}

impl Controller {
    fn index(&self) {
        self.volumes.index(BY_HANDLE, handles);
        self.attachments.index(BY_VOLUME, named_volume);
        self.attachments.index(OF_NODE, named_node);
        self.nodes.index(REPORTED, reported);
        self.pods.index(BY_CLAIM, claims_of_placed);
        self.pods.index(BY_NODE, node_of);
    }

    fn add(&self, volume: &PersistentVolume) {
        Handle::of(volume).into_iter().for_each(|handle| self.queue.add(handle));
    }

    fn claim_changed(&self, claim: &PersistentVolumeClaim) {
        let name = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default();
        if !name.is_empty() {
            self.volumes.get(&ObjectKey::new("", name)).iter().for_each(|volume| self.add(volume));
        }
    }

    fn pod_changed(&self, pod: &Pod) {
        for used in pintle_storage::claims_of(pod) {
            let key = ObjectKey::new(pod.namespace(), used.name);
            self.claims.get(&key).iter().for_each(|claim| self.claim_changed(claim));
        }
    }

    fn attachment_changed(&self, attachment: &VolumeAttachment) {
        for name in named_volume(attachment) {
            self.volumes.get(&ObjectKey::new("", name)).iter().for_each(|volume| self.add(volume));
        }
    }

    fn driver_changed(&self, driver: &str) {
        let volumes = self.volumes.list();
        let handles = volumes.iter().filter_map(|volume| Handle::of(volume));
        handles.filter(|handle| handle.driver == driver).for_each(|handle| self.queue.add(handle));
    }

    fn node_changed(&self, change: &Change<Node>) {
        let node = change.object();
        match change {
            Change::Added(_) => drop(self.memory.lock().left.remove(node.name())),
            Change::Deleted(_) => drop(self.memory.lock().left.insert(node.name().to_owned(), in_use(node))),
            Change::Modified(old, new) => {
                let look = |node: &Node| {
                    let taints = node.spec.as_ref().and_then(|spec| spec.taints.clone());
                    (in_use(node), reported(node), taints, is_ready(node), is_managed(node))
                };
                if look(old) == look(new) {
                    return;
                }
            }
        }
        let told = reported(node);
        told.iter().filter_map(|unique| Handle::parse(unique)).for_each(|handle| self.queue.add(handle));
        let attachments = self.attachments.by_index(OF_NODE, node.name());
        attachments.iter().for_each(|attachment| self.attachment_changed(attachment));
        self.pods.by_index(BY_NODE, node.name()).iter().for_each(|pod| self.pod_changed(pod));
    }

    async fn reconcile(&self, handle: Handle) -> Result<Outcome, ClientError> {
        let volumes = self.volumes.by_index(BY_HANDLE, &handle.unique());
        let name = volumes.first().map_or("", |volume| volume.name()).to_owned();
        let shared = volumes.iter().all(|volume| is_shared(volume));
        let places = self.places(&handle, &volumes);
        let steps = plan::plan(&name, &handle, shared, &places);
        let mut again: Option<Duration> = None;
        for (place, step) in places.iter().zip(steps) {
            let wait = self.act(&handle, &name, place, step).await?;
            again = again.into_iter().chain(wait).min();
        }
        Ok(again.map_or(Outcome::Done, Outcome::After))
    }

    /// The nodes that have to do with the volume, in the order of their names.
    fn places(&self, handle: &Handle, volumes: &[Arc<PersistentVolume>]) -> Vec<OnNode> {
        let mut wanted = if self.attaches(handle) { self.wanted(volumes) } else { BTreeMap::new() };
        let mut names: BTreeSet<String> = wanted.keys().cloned().collect();
        let attachments = volumes.iter().flat_map(|volume| self.attachments.by_index(BY_VOLUME, volume.name()));
        names.extend(attachments.map(|attachment| attachment.spec.node_name.clone()));
        names.extend(self.nodes.by_index(REPORTED, &handle.unique()).iter().map(|node| node.name().to_owned()));
        let made: Vec<String> = self.memory.lock().made.values().map(|it| it.spec.node_name.clone()).collect();
        names.extend(made.into_iter().filter(|node| self.attachment(handle, node).is_some()));
        names.into_iter().map(|node| self.place(handle, wanted.remove(&node).unwrap_or_default(), node)).collect()
    }

    fn place(&self, handle: &Handle, pods: Vec<Arc<Pod>>, name: String) -> OnNode {
        let node = self.nodes.get(&ObjectKey::new("", name.as_str()));
        let attachment = self.attachment(handle, &name);
        let unique = handle.unique();
        let created = attachment.as_ref().and_then(|it| it.metadata.creation_timestamp.as_ref());
        let age = created.map_or(0, |created| seconds_between(created.0, self.context.now()));
        let mut memory = self.memory.lock();
        let used = match &node {
            Some(node) => in_use(node).contains(&unique),
            None => memory.left.get(&name).is_some_and(|used| used.contains(&unique)),
        };
        let told = node.as_ref().is_some_and(|node| reported(node).contains(&unique));
        let place = (handle.clone(), name.clone());
        if pods.is_empty() {
            memory.told.remove(&place);
        }
        let unwanted = if pods.is_empty() && (attachment.is_some() || told) {
            memory.unwanted.entry(place).or_insert_with(Instant::now).elapsed()
        } else {
            memory.unwanted.remove(&place);
            Duration::ZERO
        };
        OnNode {
            pods,
            attachment,
            age: Duration::from_secs(u64::try_from(age).unwrap_or_default()),
            reported: told,
            in_use: used,
            care: node.as_ref().map_or(Care::ForAWhile, |node| plan::care(node)),
            unwanted,
            node: name,
        }
    }

    fn attachment(&self, handle: &Handle, node: &str) -> Option<Arc<VolumeAttachment>> {
        let name = handle.attachment(node);
        let seen = self.attachments.get(&ObjectKey::new("", name.as_str()));
        seen.or_else(|| self.memory.lock().made.get(&name).cloned())
    }

    /// Whether the driver wants to be asked at all. One that says nothing does.
    fn attaches(&self, handle: &Handle) -> bool {
        let driver = self.drivers.get(&ObjectKey::new("", handle.driver.as_str()));
        driver.is_none_or(|driver| driver.spec.attach_required != Some(false))
    }

    /// The pods that want any of the volumes, by their nodes.
    fn wanted(&self, volumes: &[Arc<PersistentVolume>]) -> BTreeMap<String, Vec<Arc<Pod>>> {
        let mut out: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
        for volume in volumes {
            let Some(reference) = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) else { continue };
            let (Some(namespace), Some(name)) = (&reference.namespace, &reference.name) else { continue };
            let Some(claim) = self.claims.get(&ObjectKey::new(namespace.as_str(), name.as_str())) else { continue };
            if !is_bound(&claim, volume) || reference.uid.as_deref() != Some(claim.uid()) {
                continue;
            }
            for pod in self.pods.by_index(BY_CLAIM, &format!("{namespace}/{name}")) {
                let node = pods::node_name(&pod).to_owned();
                let managed = self.nodes.get(&ObjectKey::new("", node.as_str())).is_some_and(|node| is_managed(&node));
                if managed && !pods::is_finished(&pod) {
                    out.entry(node).or_default().push(pod);
                }
            }
        }
        out
    }

    /// Does the step; returns when to look again, if time alone changes anything.
    async fn act(
        &self,
        handle: &Handle,
        volume: &str,
        place: &OnNode,
        step: Step,
    ) -> Result<Option<Duration>, ClientError> {
        match step {
            Step::Nothing => Ok(None),
            Step::Wait(time) => Ok(Some(time)),
            Step::Attach => self.attach(handle, volume, place).await.map(Some),
            Step::Report => self.report(handle, volume, place).await.map(|()| None),
            Step::Unreport => self.tell_node(handle, &place.node, false).await.map(|()| None),
            Step::Failed(error, again) => {
                let message = format!("AttachVolume.Attach failed for volume \"{volume}\" : {error}");
                let news = news_of(place, &message);
                self.tell_once(handle, place, news, |_| message.clone());
                Ok(again)
            }
            Step::Refuse(messages) => {
                self.tell_once(handle, place, "refused".to_owned(), |at| messages[at].clone());
                Ok(None)
            }
            Step::Detach => {
                if place.reported {
                    // What is about to go is not safe to use any more.
                    self.tell_node(handle, &place.node, false).await?;
                }
                let name = handle.attachment(&place.node);
                let options = DeleteOptions::default();
                unless_missing(self.context.client.delete::<VolumeAttachment>("", &name, &options).await)?;
                self.memory.lock().made.remove(&name);
                Ok(None)
            }
        }
    }

    async fn attach(&self, handle: &Handle, volume: &str, place: &OnNode) -> Result<Duration, ClientError> {
        let name = handle.attachment(&place.node);
        let mut attachment = VolumeAttachment::default();
        attachment.metadata.name = Some(name.clone());
        attachment.spec.attacher.clone_from(&handle.driver);
        attachment.spec.node_name.clone_from(&place.node);
        attachment.spec.source.persistent_volume_name = Some(volume.to_owned());
        match self.context.client.create(&attachment).await {
            Ok(made) => {
                let mut memory = self.memory.lock();
                // Its own event may have been here first.
                if self.attachments.get(&ObjectKey::new("", name.as_str())).is_none() {
                    memory.made.insert(name, Arc::new(made));
                }
            }
            Err(error) if error.is_already_exists() => (),
            Err(error) => {
                let message = format!("AttachVolume.Attach failed for volume \"{volume}\" : {error}");
                self.tell_once(handle, place, message.clone(), |_| message.clone());
                return Err(error);
            }
        }
        Ok(plan::ATTACH_TIMEOUT)
    }

    /// The cache may show an attachment that is gone: the API server is asked before a kubelet relies on it.
    async fn report(&self, handle: &Handle, volume: &str, place: &OnNode) -> Result<(), ClientError> {
        let fresh = self.context.client.get_opt::<VolumeAttachment>("", &handle.attachment(&place.node)).await?;
        let attached = |it: &VolumeAttachment| !it.is_deleting() && it.status.as_ref().is_some_and(|s| s.attached);
        if !fresh.as_ref().is_some_and(attached) {
            return Ok(());
        }
        self.tell_node(handle, &place.node, true).await?;
        self.memory.lock().told.remove(&(handle.clone(), place.node.clone()));
        let message = format!("AttachVolume.Attach succeeded for volume \"{volume}\" ");
        for pod in &place.pods {
            self.context.recorder.event(&**pod, EventType::Normal, "SuccessfulAttachVolume", message.clone());
        }
        Ok(())
    }

    /// Tells pods what is wrong, unless this was the last news.
    fn tell_once(&self, handle: &Handle, place: &OnNode, news: String, message: impl Fn(usize) -> String) {
        let told = self.memory.lock().told.insert((handle.clone(), place.node.clone()), news.clone());
        if told.as_ref() == Some(&news) {
            return;
        }
        for (at, pod) in place.pods.iter().enumerate() {
            self.context.recorder.event(&**pod, EventType::Warning, "FailedAttachVolume", message(at));
        }
    }

    /// Puts the volume into what the node's status says is attached, or takes it out.
    async fn tell_node(&self, handle: &Handle, node: &str, attached: bool) -> Result<(), ClientError> {
        let Some(fresh) = self.context.client.get_opt::<Node>("", node).await? else { return Ok(()) };
        let mut list = fresh.status.as_ref().and_then(|status| status.volumes_attached.clone()).unwrap_or_default();
        let unique = handle.unique();
        if list.iter().any(|volume| volume.name == unique) == attached {
            return Ok(());
        }
        if attached {
            list.push(pintle_types::k8s::api::core::v1::AttachedVolume { name: unique, ..Default::default() });
        } else {
            list.retain(|volume| volume.name != unique);
        }
        // Other volumes of the node may be told at the same time: whoever is late starts again.
        let version = &fresh.metadata.resource_version;
        let list = (!list.is_empty()).then_some(list);
        let patch = json!({ "metadata": { "resourceVersion": version }, "status": { "volumesAttached": list } });
        let (client, options) = (&self.context.client, PatchOptions::status());
        client.patch::<Node>("", node, Patch::Merge(patch), &options).await.map(drop)
    }
}

/// A driver that fails again says when; of one that says nothing pods are told again each time that its time is over.
fn news_of(place: &OnNode, message: &str) -> String {
    let error = place.attachment.as_ref().and_then(|it| it.status.as_ref()?.attach_error.as_ref()?.time.as_ref());
    let spell = if error.is_some() { 0 } else { place.age.as_secs() / plan::ATTACH_TIMEOUT.as_secs() };
    format!("{message} {error:?} {spell}")
}

fn is_bound(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
    let named = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
    phase == Some("Bound") && named == Some(volume.name())
}

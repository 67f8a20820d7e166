//! Watches claims, volumes, classes and the pods that wait for claims, and does what the plan says.

use super::plan::{self, BOUND, BY_CONTROLLER, ClaimStep, Reclaim, Told, VolumeStep, World};
use crate::context::Context;
use crate::pods;
use pintle_client::{ClientError, unless_missing};
use pintle_informer::{Change, EventType, Informer, Outcome, Queue, run_reconciler};
use pintle_storage::{PROVISIONER, class_of_claim, class_of_volume, is_for};
use pintle_types::k8s::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use pintle_types::k8s::api::storage::v1::StorageClass;
use pintle_types::{Kind, ObjectKey};
use std::sync::Arc;

/// Claims that are not bound, by their class.
const UNBOUND: &str = "unbound-of-class";
/// Claims by the volume that they name.
const BY_VOLUME: &str = "volume-of-claim";
/// Pods without a node, by their claims as `namespace/name`.
const WAITING: &str = "waiting-for-claim";

/// One worker looks at both, so that two claims never take one volume from the same cache.
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
    pods: Informer<Pod>,
    queue: Queue<Key>,
}

fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    claim.annotation(BOUND).is_some()
}

fn unbound_class(claim: &PersistentVolumeClaim) -> Vec<String> {
    if is_bound(claim) { Vec::new() } else { vec![class_of_claim(claim).to_owned()] }
}

fn named_volume(claim: &PersistentVolumeClaim) -> Vec<String> {
    let name = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone());
    name.filter(|name| !name.is_empty()).into_iter().collect()
}

/// The claims that a pod without a node waits for.
fn waited_for(pod: &Pod) -> Vec<String> {
    if !pods::node_name(pod).is_empty() || pods::is_finished(pod) {
        return Vec::new();
    }
    let names = pintle_storage::claims_of(pod).into_iter();
    names.map(|used| format!("{}/{}", pod.namespace(), used.name)).collect()
}

/// Runs the controller until the context's stop.
pub async fn run(context: Context) {
    let informers = &context.informers;
    let controller = Controller {
        claims: informers.of(),
        volumes: informers.of(),
        classes: informers.of(),
        pods: informers.of(),
        queue: Queue::new(),
        context: context.clone(),
    };
    controller.claims.index(UNBOUND, unbound_class);
    controller.claims.index(BY_VOLUME, named_volume);
    controller.pods.index(WAITING, waited_for);
    controller.watch();
    controller.claims.synced().await;
    controller.volumes.synced().await;
    controller.classes.synced().await;
    controller.pods.synced().await;
    let reconcile = |key| controller.reconcile(key);
    let queue = controller.queue.clone();
    run_reconciler("persistentvolume-binder-controller", queue, 1, reconcile, context.stop.clone()).await;
}

fn claim_ref(volume: &PersistentVolume) -> Option<ObjectKey> {
    let reference = volume.spec.as_ref()?.claim_ref.as_ref()?;
    Some(ObjectKey::new(reference.namespace.clone().unwrap_or_default(), reference.name.clone().unwrap_or_default()))
}

impl Controller {
    fn watch(&self) {
        let queue = self.queue.clone();
        self.claims.on_change(move |change| {
            let claim = change.object();
            queue.add(Key::Claim(claim.key()));
            // The volume's phase follows from its claim.
            named_volume(claim).into_iter().for_each(|name| queue.add(Key::Volume(ObjectKey::new("", name))));
        });
        let (queue, claims) = (self.queue.clone(), self.claims.clone());
        self.volumes.on_change(move |change| volume_changed(change, &claims, &queue));
        let (queue, claims) = (self.queue.clone(), self.claims.clone());
        self.classes.on_change(move |change| {
            for class in [change.object().name(), ""] {
                claims.by_index(UNBOUND, class).iter().for_each(|claim| queue.add(Key::Claim(claim.key())));
            }
        });
        let (queue, claims) = (self.queue.clone(), self.claims.clone());
        self.pods.on_change(move |change| {
            if change.old().is_some() || change.new().is_none() {
                return;
            }
            for name in waited_for(change.object()) {
                let (namespace, name) = name.split_once('/').unwrap_or_default();
                let key = ObjectKey::new(namespace, name);
                if claims.get(&key).is_some_and(|claim| !is_bound(&claim)) {
                    queue.add(Key::Claim(key));
                }
            }
        });
    }

    async fn reconcile(&self, key: Key) -> Result<Outcome, ClientError> {
        let result = match key {
            Key::Claim(key) => match self.claims.get(&key) {
                Some(claim) => self.claim(claim).await,
                None => self.claim_gone(&key),
            },
            Key::Volume(key) => match self.volumes.get(&key) {
                Some(volume) => self.volume(volume).await,
                None => Ok(()),
            },
        };
        unless_missing(result)?;
        Ok(Outcome::Done)
    }

    /// What was bound to a claim that is gone is released.
    fn claim_gone(&self, key: &ObjectKey) -> Result<(), ClientError> {
        let was_its = |volume: &Arc<PersistentVolume>| claim_ref(volume).as_ref() == Some(key);
        for volume in self.volumes.list().into_iter().filter(was_its) {
            self.queue.add(Key::Volume(volume.key()));
        }
        Ok(())
    }

    fn tell<K: Kind>(&self, object: &K, told: &Told) {
        self.context.recorder.event(object, told.kind, told.reason, told.message.clone());
    }

    fn decide(&self, claim: &PersistentVolumeClaim) -> ClaimStep {
        let waiting_pods = |claim: &PersistentVolumeClaim| {
            let pods = self.pods.by_index(WAITING, &format!("{}/{}", claim.namespace(), claim.name()));
            let mut names: Vec<String> = pods.iter().map(|pod| pod.name().to_owned()).collect();
            names.sort();
            names
        };
        let world = World {
            volume: &|name| self.volumes.get(&ObjectKey::new("", name)),
            volumes: &|| self.volumes.list(),
            class: &|name| self.classes.get(&ObjectKey::new("", name)),
            classes: &|| self.classes.list(),
            waiting_pods: &waiting_pods,
        };
        plan::claim(claim, &world)
    }

    async fn claim(&self, claim: Arc<PersistentVolumeClaim>) -> Result<(), ClientError> {
        match self.decide(&claim) {
            ClaimStep::Bind(volume) => self.bind(volume, claim).await,
            ClaimStep::Pending(told) => {
                told.iter().for_each(|told| self.tell(&*claim, told));
                self.set_claim_status(&claim, "Pending", None).await.map(drop)
            }
            ClaimStep::Lost(told) => {
                if phase_of(&claim) != "Lost" {
                    self.set_claim_status(&claim, "Lost", None).await?;
                    told.iter().for_each(|told| self.tell(&*claim, told));
                }
                Ok(())
            }
            ClaimStep::SetClass(class) => {
                let mut changed = PersistentVolumeClaim::clone(&claim);
                changed.spec.get_or_insert_default().storage_class_name = Some(class);
                self.context.client.update(&changed).await.map(drop)
            }
            ClaimStep::Provision(provisioner) => self.ask_provisioner(claim, &provisioner).await,
            ClaimStep::Tell(told) => {
                told.iter().for_each(|told| self.tell(&*claim, told));
                Ok(())
            }
        }
    }

    async fn ask_provisioner(&self, claim: Arc<PersistentVolumeClaim>, provisioner: &str) -> Result<(), ClientError> {
        if PROVISIONER.iter().any(|key| claim.annotation(key) != Some(provisioner)) {
            let mut changed = PersistentVolumeClaim::clone(&claim);
            let annotations = changed.metadata.annotations.get_or_insert_default();
            annotations.extend(PROVISIONER.map(|key| (key.to_owned(), provisioner.to_owned())));
            self.context.client.update(&changed).await?;
        }
        let message = format!(
            "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the \
             system administrator. If volume creation is delayed, please verify that the provisioner is running and \
             correctly registered."
        );
        self.context.recorder.event(&*claim, EventType::Normal, "ExternalProvisioning", message);
        Ok(())
    }

    /// Writes both ends of the binding, the volume first, and then both phases.
    async fn bind(&self, volume: Arc<PersistentVolume>, claim: Arc<PersistentVolumeClaim>) -> Result<(), ClientError> {
        let volume = self.bind_volume(volume, &claim).await?;
        let volume = self.set_phase(&volume, "Bound", None).await?;
        let mut changed = PersistentVolumeClaim::clone(&claim);
        let spec = changed.spec.get_or_insert_default();
        let fresh = spec.volume_name.as_deref() != Some(volume.name());
        spec.volume_name = Some(volume.name().to_owned());
        let annotations = changed.metadata.annotations.get_or_insert_default();
        if fresh {
            annotations.entry(BY_CONTROLLER.into()).or_insert_with(|| "yes".into());
        }
        annotations.entry(BOUND.into()).or_insert_with(|| "yes".into());
        let claim = if changed == *claim { changed } else { self.context.client.update(&changed).await? };
        self.set_claim_status(&claim, "Bound", Some(&volume)).await
    }

    async fn bind_volume(
        &self,
        volume: Arc<PersistentVolume>,
        claim: &PersistentVolumeClaim,
    ) -> Result<Arc<PersistentVolume>, ClientError> {
        let known = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        let for_it = is_for(&volume, claim);
        if for_it && known.and_then(|known| known.uid.as_deref()) == Some(claim.uid()) {
            return Ok(volume);
        }
        let mut changed = PersistentVolume::clone(&volume);
        changed.spec.get_or_insert_default().claim_ref = Some(pintle_informer::reference(claim));
        if !for_it {
            let annotations = changed.metadata.annotations.get_or_insert_default();
            annotations.entry(BY_CONTROLLER.into()).or_insert_with(|| "yes".into());
        }
        self.context.client.update(&changed).await.map(Arc::new)
    }

    async fn set_claim_status(
        &self,
        claim: &PersistentVolumeClaim,
        phase: &str,
        volume: Option<&PersistentVolume>,
    ) -> Result<(), ClientError> {
        let mut changed = claim.clone();
        let status = changed.status.get_or_insert_default();
        let was_bound = status.phase.as_deref() == Some("Bound");
        status.phase = Some(phase.to_owned());
        let spec = volume.and_then(|volume| volume.spec.as_ref());
        status.access_modes = spec.and_then(|spec| spec.access_modes.clone());
        match spec {
            None => status.capacity = None,
            // Later it is who resizes the volume that says how large it is.
            Some(spec) if !was_bound || status.capacity.is_none() => {
                status.capacity = spec.capacity.clone();
                status.current_volume_attributes_class_name =
                    spec.volume_attributes_class_name.clone().filter(|name| !name.is_empty());
            }
            Some(_) => (),
        }
        if changed.status != claim.status {
            self.context.client.update_status(&changed).await?;
        }
        Ok(())
    }

    async fn set_phase(
        &self,
        volume: &Arc<PersistentVolume>,
        phase: &str,
        message: Option<String>,
    ) -> Result<Arc<PersistentVolume>, ClientError> {
        if volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some(phase) {
            return Ok(volume.clone());
        }
        let mut changed = PersistentVolume::clone(volume);
        let status = changed.status.get_or_insert_default();
        (status.phase, status.message) = (Some(phase.to_owned()), message);
        self.context.client.update_status(&changed).await.map(Arc::new)
    }

    async fn volume(&self, volume: Arc<PersistentVolume>) -> Result<(), ClientError> {
        let key = claim_ref(&volume);
        let claim = self.claim_of(&volume, key.as_ref()).await?;
        match plan::volume(&volume, claim.as_deref()) {
            VolumeStep::Phase(phase) => drop(self.set_phase(&volume, phase, None).await?),
            VolumeStep::AskClaim => key.into_iter().for_each(|key| self.queue.add(Key::Claim(key))),
            VolumeStep::Mismatch => self.tell_mismatch(&volume, claim.as_deref()),
            VolumeStep::Unbind => self.unbind(&volume).await?,
            VolumeStep::Release { first, reclaim } => {
                let volume = if first { self.set_phase(&volume, "Released", None).await? } else { volume };
                if let Reclaim::Fail(told) = reclaim
                    && volume.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Failed")
                {
                    let volume = self.set_phase(&volume, "Failed", Some(told.message.clone())).await?;
                    self.tell(&*volume, &told);
                }
            }
        }
        Ok(())
    }

    /// The claim that a volume names. Before a volume is released the API server is asked: the cache may be behind.
    async fn claim_of(
        &self,
        volume: &PersistentVolume,
        key: Option<&ObjectKey>,
    ) -> Result<Option<Arc<PersistentVolumeClaim>>, ClientError> {
        let Some(key) = key else { return Ok(None) };
        let known = self.claims.get(key);
        let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
        if known.as_ref().is_some_and(|claim| is_for(volume, claim)) || matches!(phase, Some("Released" | "Failed")) {
            return Ok(known);
        }
        let fresh = self.context.client.get_opt::<PersistentVolumeClaim>(&key.namespace, &key.name).await?;
        Ok(fresh.map(Arc::new))
    }

    fn tell_mismatch(&self, volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>) {
        let Some(claim) = claim else { return };
        let recorder = &self.context.recorder;
        let message = format!(
            "Cannot bind PersistentVolume to requested PersistentVolumeClaim \"{}\" due to incompatible volumeMode.",
            claim.name()
        );
        recorder.event(volume, EventType::Warning, "VolumeMismatch", message);
        let message = format!(
            "Cannot bind PersistentVolume \"{}\" to requested PersistentVolumeClaim due to incompatible volumeMode.",
            volume.name()
        );
        recorder.event(claim, EventType::Warning, "VolumeMismatch", message);
    }

    /// Takes back a binding; what a person wrote of it stays.
    async fn unbind(&self, volume: &PersistentVolume) -> Result<(), ClientError> {
        let mut changed = volume.clone();
        let spec = changed.spec.get_or_insert_default();
        if volume.annotation(BY_CONTROLLER).is_some() {
            spec.claim_ref = None;
            let mut annotations = changed.metadata.annotations.take().unwrap_or_default();
            annotations.remove(BY_CONTROLLER);
            changed.metadata.annotations = (!annotations.is_empty()).then_some(annotations);
        } else if let Some(reference) = &mut spec.claim_ref {
            reference.uid = None;
        }
        let changed = Arc::new(self.context.client.update(&changed).await?);
        self.set_phase(&changed, "Available", None).await.map(drop)
    }
}

fn phase_of(claim: &PersistentVolumeClaim) -> &str {
    claim.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// A volume that is free may be what claims of its class wait for.
fn volume_changed(change: &Change<PersistentVolume>, claims: &Informer<PersistentVolumeClaim>, queue: &Queue<Key>) {
    let volume = change.object();
    queue.add(Key::Volume(volume.key()));
    claims.by_index(BY_VOLUME, volume.name()).iter().for_each(|claim| queue.add(Key::Claim(claim.key())));
    if change.new().is_none() {
        return;
    }
    match claim_ref(volume) {
        Some(key) if claims.get(&key).is_some_and(|claim| !is_bound(&claim)) => queue.add(Key::Claim(key)),
        Some(_) => (),
        None => {
            let waiting = claims.by_index(UNBOUND, class_of_volume(volume));
            waiting.iter().for_each(|claim| queue.add(Key::Claim(claim.key())));
        }
    }
}

//! Decides what is to be done about a claim, and about a volume.

use pintle_informer::EventType;
use pintle_storage as matching;
pub use pintle_storage::{BOUND, BY_CONTROLLER};
use pintle_storage::{PROVISIONED_BY, SELECTED_NODE, class_of_claim, waits_for_consumer};
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use pintle_types::k8s::api::storage::v1::StorageClass;
use std::sync::Arc;

const DEFAULT_CLASS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

/// An event to post.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    pub kind: EventType,
    pub reason: &'static str,
    pub message: String,
}

fn told(kind: EventType, reason: &'static str, message: impl Into<String>) -> Option<Told> {
    Some(Told { kind, reason, message: message.into() })
}

/// What there is besides the claim or volume itself.
pub struct World<'a> {
    pub volume: &'a dyn Fn(&str) -> Option<Arc<PersistentVolume>>,
    pub volumes: &'a dyn Fn() -> Vec<Arc<PersistentVolume>>,
    pub class: &'a dyn Fn(&str) -> Option<Arc<StorageClass>>,
    pub classes: &'a dyn Fn() -> Vec<Arc<StorageClass>>,
    /// Names of pods that use a claim and have no node yet.
    pub waiting_pods: &'a dyn Fn(&PersistentVolumeClaim) -> Vec<String>,
}

/// What to do about a claim.
#[derive(Debug, PartialEq)]
pub enum ClaimStep {
    Bind(Arc<PersistentVolume>),
    /// It stays without a volume.
    Pending(Option<Told>),
    /// Its volume is gone for good.
    Lost(Option<Told>),
    /// It gets the cluster's default class.
    SetClass(String),
    /// An external provisioner of that name is asked for a volume.
    Provision(String),
    /// Nothing changes but that something is told.
    Tell(Option<Told>),
}

/// Decides what to do about a claim.
pub fn claim(claim: &PersistentVolumeClaim, world: &World<'_>) -> ClaimStep {
    let named = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).filter(|name| !name.is_empty());
    match (claim.annotation(BOUND).is_some(), named) {
        (false, None) => find(claim, world),
        (false, Some(name)) => asked_for(claim, (world.volume)(name)),
        (true, None) => {
            let words = "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!";
            ClaimStep::Lost(told(EventType::Warning, "ClaimLost", words))
        }
        (true, Some(name)) => was_bound(claim, (world.volume)(name)),
    }
}

/// A claim that takes any volume that suits it.
fn find(claim: &PersistentVolumeClaim, world: &World<'_>) -> ClaimStep {
    let class = class_of_claim(claim);
    let known = if class.is_empty() { None } else { (world.class)(class) };
    let delayed = known.as_deref().is_some_and(waits_for_consumer);
    if let Some(volume) = matching::best(claim, &(world.volumes)(), delayed) {
        return ClaimStep::Bind(volume);
    }
    if matching::wants_default_class(claim)
        && let Some(class) = default_class(&(world.classes)())
    {
        return ClaimStep::SetClass(class.name().to_owned());
    }
    if delayed && claim.annotation(SELECTED_NODE).is_none() {
        return ClaimStep::Pending(waiting(&(world.waiting_pods)(claim)));
    }
    if !class.is_empty() {
        return provision(class, known.as_deref());
    }
    let words = "no persistent volumes available for this claim and no storage class is set";
    ClaimStep::Pending(told(EventType::Normal, "FailedBinding", words))
}

fn waiting(pods: &[String]) -> Option<Told> {
    let (reason, message) = match pods {
        [] => ("WaitForFirstConsumer", "waiting for first consumer to be created before binding".to_owned()),
        [pod] => ("WaitForPodScheduled", format!("waiting for pod {pod} to be scheduled")),
        pods => ("WaitForPodScheduled", format!("waiting for pods {} to be scheduled", pods.join(","))),
    };
    told(EventType::Normal, reason, message)
}

/// Upstream's own provisioners have names below `kubernetes.io/`, and there are none of them any more.
fn provision(name: &str, class: Option<&StorageClass>) -> ClaimStep {
    let failed = |message: String| ClaimStep::Tell(told(EventType::Warning, "ProvisioningFailed", message));
    match class {
        None => failed(format!("storageclass.storage.k8s.io \"{name}\" not found")),
        Some(class) if class.provisioner.starts_with("kubernetes.io/") => {
            failed(format!("no volume plugin matched name: {}", class.provisioner))
        }
        Some(class) => ClaimStep::Provision(class.provisioner.clone()),
    }
}

/// The newest of the default classes; of equals the first by name.
fn default_class(classes: &[Arc<StorageClass>]) -> Option<&Arc<StorageClass>> {
    let is_default = |class: &&Arc<StorageClass>| DEFAULT_CLASS.iter().any(|key| class.annotation(key) == Some("true"));
    let created = |class: &StorageClass| class.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let order = |a: &&Arc<StorageClass>, b: &&Arc<StorageClass>| {
        created(a).cmp(&created(b)).then_with(|| b.name().cmp(a.name()))
    };
    classes.iter().filter(is_default).max_by(order)
}

/// A claim that names its volume.
fn asked_for(claim: &PersistentVolumeClaim, volume: Option<Arc<PersistentVolume>>) -> ClaimStep {
    let Some(volume) = volume else { return ClaimStep::Pending(None) };
    if volume.spec.as_ref().is_none_or(|spec| spec.claim_ref.is_none()) {
        return match matching::mismatch(&volume, claim) {
            None => ClaimStep::Bind(volume),
            Some(words) => {
                let message = format!("Cannot bind to requested volume \"{}\": {words}", volume.name());
                ClaimStep::Pending(told(EventType::Warning, "VolumeMismatch", message))
            }
        };
    }
    if matching::is_for(&volume, claim) {
        return ClaimStep::Bind(volume);
    }
    let message = format!("volume \"{}\" already bound to a different claim.", volume.name());
    let event = told(EventType::Warning, "FailedBinding", message);
    if claim.annotation(BY_CONTROLLER).is_none() { ClaimStep::Pending(event) } else { ClaimStep::Tell(event) }
}

fn was_bound(claim: &PersistentVolumeClaim, volume: Option<Arc<PersistentVolume>>) -> ClaimStep {
    let Some(volume) = volume else {
        let words = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
        return ClaimStep::Lost(told(EventType::Warning, "ClaimLost", words));
    };
    match volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) {
        None => ClaimStep::Bind(volume),
        Some(reference) if reference.uid.as_deref() == Some(claim.uid()) => ClaimStep::Bind(volume),
        Some(_) => {
            let words = "Two claims are bound to the same volume, this one is bound incorrectly";
            ClaimStep::Lost(told(EventType::Warning, "ClaimMisbound", words))
        }
    }
}

/// What to do about a volume.
#[derive(Debug, PartialEq)]
pub enum VolumeStep {
    Phase(&'static str),
    /// Its claim's turn: that finishes the binding.
    AskClaim,
    /// It can't serve the claim that it is bound to: both are told.
    Mismatch,
    /// Its claim took another one.
    Unbind,
    /// Nobody claims it any more; how it is reclaimed, and whether that is news.
    Release {
        first: bool,
        reclaim: Reclaim,
    },
}

/// What becomes of a released volume.
#[derive(Clone, Debug, PartialEq)]
pub enum Reclaim {
    /// It is kept, or somebody outside deletes it.
    Leave,
    /// It can't be reclaimed.
    Fail(Told),
}

/// Decides what to do about a volume, given the claim that it names, if there is one.
pub fn volume(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>) -> VolumeStep {
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    let Some(uid) = reference.and_then(|reference| reference.uid.as_deref()).filter(|uid| !uid.is_empty()) else {
        return VolumeStep::Phase("Available");
    };
    let Some(claim) = claim.filter(|claim| claim.uid() == uid) else { return release(volume) };
    match claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default() {
        "" if matching::modes_differ(volume, claim) => VolumeStep::Mismatch,
        "" => VolumeStep::AskClaim,
        name if name == volume.name() => VolumeStep::Phase("Bound"),
        _ if volume.annotation(PROVISIONED_BY).is_some() && policy(volume) == "Delete" => release(volume),
        _ => VolumeStep::Unbind,
    }
}

fn policy(volume: &PersistentVolume) -> &str {
    volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref()).unwrap_or_default()
}

/// Why a volume can't be deleted. Upstream has a deleter for directories of nodes that are below `/tmp`, which would
/// delete them where the controllers run; here there is none.
fn undeletable(volume: &PersistentVolume) -> String {
    let directory = volume.spec.as_ref().and_then(|spec| spec.host_path.as_ref()).map(|source| source.path.as_str());
    match directory {
        Some(path) if path.split_once("/tmp/").is_none_or(|(_, rest)| rest.is_empty()) => {
            format!("host_path deleter only supports /tmp/.+ but received provided {path}")
        }
        _ => {
            let name = volume.name();
            format!("error getting deleter volume plugin for volume \"{name}\": no deletable volume plugin matched")
        }
    }
}

fn release(volume: &PersistentVolume) -> VolumeStep {
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    let first = !matches!(phase, Some("Released" | "Failed"));
    let fail =
        |reason, message: String| told(EventType::Warning, reason, message).map_or(Reclaim::Leave, Reclaim::Fail);
    let outside =
        volume.annotation(PROVISIONED_BY).is_some() || volume.spec.as_ref().is_some_and(|spec| spec.csi.is_some());
    let reclaim = match policy(volume) {
        "Retain" => Reclaim::Leave,
        "Delete" if outside => Reclaim::Leave,
        "Delete" => fail("VolumeFailedDelete", undeletable(volume)),
        "Recycle" => fail("VolumeFailedRecycle", "No recycler plugin found for the volume!".into()),
        _ => fail("VolumeUnknownReclaimPolicy", "Volume has unrecognized PersistentVolumeReclaimPolicy".into()),
    };
    VolumeStep::Release { first, reclaim }
}

//! Which claims of devices a pod means, what a template becomes, and what is to become of a claim.
//!
//! Source: KEP-4381 (dynamic resource allocation with structured parameters).

use crate::ownership::{controller_of, controller_ref};
use crate::pods;
use pintle_types::k8s::api::core::v1::{Pod, PodResourceClaim};
use pintle_types::k8s::api::resource::v1::{ResourceClaim, ResourceClaimConsumerReference, ResourceClaimTemplate};
use pintle_types::{Kind, ObjectMeta};

/// On a claim that was made for a pod: the name of the pod's entry.
pub const POD_CLAIM: &str = "resource.kubernetes.io/pod-claim-name";
/// Keeps a claim that devices were given to.
pub const FINALIZER: &str = "resource.kubernetes.io/delete-protection";
/// As many pods at most may share a claim.
const MOST_CONSUMERS: usize = 256;
/// The longest name without the five letters that the server adds, and a dash.
const LONGEST_BASE: usize = 57;

/// The claim that an entry of a pod stands for.
#[derive(Debug, PartialEq, Eq)]
pub enum Named<'a> {
    /// It has this name; one that was made from a template must belong to the pod.
    Claim { name: &'a str, own: bool },
    /// It was found out before that none is needed.
    NotNeeded,
    /// It is to be made from a template, or that it was made is not written down yet.
    NotYet { template: &'a str },
    /// The entry says neither.
    Unknown,
}

/// What an entry of a pod stands for, as far as spec and status of the pod tell.
pub fn named<'a>(pod: &'a Pod, entry: &'a PodResourceClaim) -> Named<'a> {
    if let Some(name) = &entry.resource_claim_name {
        return Named::Claim { name, own: false };
    }
    let Some(template) = &entry.resource_claim_template_name else { return Named::Unknown };
    let statuses = pod.status.iter().flat_map(|status| status.resource_claim_statuses.iter().flatten());
    match statuses.into_iter().find(|status| status.name == entry.name) {
        None => Named::NotYet { template },
        Some(status) => match &status.resource_claim_name {
            Some(name) => Named::Claim { name, own: true },
            None => Named::NotNeeded,
        },
    }
}

/// The entries of a pod.
pub fn entries(pod: &Pod) -> &[PodResourceClaim] {
    pod.spec.as_ref().and_then(|spec| spec.resource_claims.as_deref()).unwrap_or_default()
}

/// The names of the claims that a pod is known to use.
pub fn claims_of(pod: &Pod) -> Vec<&str> {
    let name = |entry| match named(pod, entry) {
        Named::Claim { name, .. } => Some(name),
        _ => None,
    };
    entries(pod).iter().filter_map(name).collect()
}

/// The claim that the scheduler made for resources of the pod that are devices.
pub fn extended_claim(pod: &Pod) -> Option<&str> {
    let status = pod.status.as_ref()?.extended_resource_claim_status.as_ref()?;
    Some(status.resource_claim_name.as_str())
}

/// Whether none of the pod's containers runs or ever will.
pub fn is_done(pod: &Pod) -> bool {
    pods::is_finished(pod) || (pod.is_deleting() && pods::node_name(pod).is_empty())
}

/// The claim that a template becomes for an entry of a pod; without a namespace's look at the rights of its author, which
/// the server takes.
pub fn claim(pod: &Pod, entry: &str, template: &ResourceClaimTemplate) -> ResourceClaim {
    let meta = template.spec.metadata.clone().unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    annotations.insert(POD_CLAIM.into(), entry.into());
    ResourceClaim {
        metadata: ObjectMeta {
            namespace: Some(pod.namespace().to_owned()),
            generate_name: Some(base_name(pod.name(), entry)),
            labels: meta.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![controller_ref(pod)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.spec.clone(),
        status: None,
    }
}

/// `POD-ENTRY-`; of long names each part loses its share.
fn base_name(pod: &str, entry: &str) -> String {
    let whole = format!("{pod}-{entry}-");
    if whole.len() <= LONGEST_BASE {
        return whole;
    }
    let share = |text: &str| text.get(..text.len() * LONGEST_BASE / whole.len()).unwrap_or_default().to_owned();
    format!("{}-{}", share(pod), share(entry))
}

/// The claim among those of a pod that was made for one of its entries.
pub fn made_for<'a>(claims: &'a [std::sync::Arc<ResourceClaim>], entry: &str) -> Option<&'a str> {
    claims.iter().find(|claim| claim.annotation(POD_CLAIM) == Some(entry)).map(|claim| claim.name())
}

/// Whether a claim was made for the pod.
pub fn is_for(claim: &ResourceClaim, pod: &Pod) -> bool {
    controller_of(&claim.metadata).is_some_and(|owner| owner.uid == pod.uid())
}

/// Name and uid of the pod that a claim was made for.
pub fn owning_pod(claim: &ResourceClaim) -> Option<(&str, &str)> {
    let owner = controller_of(&claim.metadata).filter(|owner| owner.kind == "Pod" && owner.api_version == "v1")?;
    Some((&owner.name, &owner.uid))
}

pub fn consumers(claim: &ResourceClaim) -> &[ResourceClaimConsumerReference] {
    claim.status.as_ref().and_then(|status| status.reserved_for.as_deref()).unwrap_or_default()
}

pub fn is_allocated(claim: &ResourceClaim) -> bool {
    claim.status.as_ref().is_some_and(|status| status.allocation.is_some())
}

/// The claim reserved for a pod that is on a node already, past the scheduler; nothing when that is not to be done.
pub fn reserved(claim: &ResourceClaim, pod: &Pod) -> Option<ResourceClaim> {
    let present = consumers(claim);
    let is_there = present.iter().any(|consumer| consumer.uid == pod.uid());
    if !is_allocated(claim) || is_there || present.len() >= MOST_CONSUMERS {
        return None;
    }
    let mut changed = claim.clone();
    let consumer = ResourceClaimConsumerReference {
        api_group: None,
        resource: "pods".into(),
        name: pod.name().to_owned(),
        uid: pod.uid().to_owned(),
    };
    changed.status.get_or_insert_default().reserved_for.get_or_insert_default().push(consumer);
    Some(changed)
}

/// How a claim is let go.
#[derive(Debug, Default, PartialEq)]
pub struct Release {
    /// Write this status first.
    pub status: Option<ResourceClaim>,
    /// Then take the finalizer off.
    pub unprotect: bool,
}

/// What to do about a claim of whose consumers only these are left. Without any, its devices are free for others.
pub fn release(claim: &ResourceClaim, left: Vec<ResourceClaimConsumerReference>) -> Release {
    let protected = claim.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER);
    let (fewer, none) = (left.len() < consumers(claim).len(), left.is_empty());
    let frees = protected && none;
    let goes = frees && claim.is_deleting();
    if !fewer && !goes {
        return Release::default();
    }
    let changes = fewer || (frees && is_allocated(claim));
    let status = changes.then(|| {
        let mut changed = claim.clone();
        let status = changed.status.get_or_insert_default();
        status.reserved_for = (!none).then_some(left);
        if frees {
            status.allocation = None;
            status.devices = None;
        }
        changed
    });
    Release { status, unprotect: frees }
}

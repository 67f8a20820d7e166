//! The claims of one pod, and whether nodes have what they ask for.

use super::allocator::{Failure, allocate};
use super::conditions;
use super::devices::{Devices, selected};
use super::extended::{Extended, Special, may_want};
use crate::pod::PodInfo;
use crate::snapshot::NodeInfo;
use parking_lot::Mutex;
use pintle_types::k8s::api::resource::v1::{AllocationResult, ResourceClaim};
use pintle_types::{Kind, ObjectKey};
use std::sync::Arc;

/// Pods that may use a claim at a time.
const MOST_CONSUMERS: usize = 256;

/// Upstream's words for a claim that is allocated elsewhere.
pub(crate) const UNAVAILABLE: &str = "resourceclaim not available on the node";

/// Whether the pod claims devices, or asks for what could be devices.
pub(crate) fn wants_claims(pod: &PodInfo) -> bool {
    has_claims(pod) || may_want(pod)
}

/// Whether the pod claims devices.
pub(crate) fn has_claims(pod: &PodInfo) -> bool {
    pod.spec().resource_claims.as_ref().is_some_and(|claims| !claims.is_empty())
}

/// The names of the pod's claims, and whether each was made for the pod. Fails while one is still to be made.
pub(crate) fn names(pod: &PodInfo) -> Result<Vec<(&str, bool)>, String> {
    let made = || pod.pod.status.iter().flat_map(|status| status.resource_claim_statuses.iter().flatten());
    let mut out = Vec::new();
    for claim in pod.spec().resource_claims.iter().flatten() {
        if let Some(name) = &claim.resource_claim_name {
            out.push((name.as_str(), false));
        } else if claim.resource_claim_template_name.is_some() {
            let status = made().find(|status| status.name == claim.name);
            let status = status.ok_or_else(|| format!("pod \"{}\": ResourceClaim not created yet", pod.key))?;
            // There are pods whose claim is not needed.
            out.extend(status.resource_claim_name.as_deref().map(|name| (name, true)));
        } else {
            let words = "none of the supported fields are set";
            return Err(format!("pod \"{}\", spec.resourceClaim {:?}: {words}", pod.key, claim.name));
        }
    }
    Ok(out)
}

/// The pod's claims. Fails, in upstream's words, while one is not there or not the pod's to use.
pub(crate) fn claims_of(pod: &PodInfo, devices: &Devices) -> Result<Vec<Arc<ResourceClaim>>, String> {
    let mut out = Vec::new();
    for (name, own) in names(pod)? {
        let claim = devices.claim(&ObjectKey::new(pod.key.namespace.as_str(), name));
        let claim = claim.ok_or_else(|| format!("resourceclaim.resource.k8s.io \"{name}\" not found"))?;
        if claim.is_deleting() {
            return Err(format!("resourceclaim \"{name}\" is being deleted"));
        }
        let owners = || claim.metadata.owner_references.iter().flatten();
        if own && !owners().any(|owner| owner.controller == Some(true) && owner.uid == pod.pod.uid()) {
            let words = "(pod is not owner)";
            return Err(format!("ResourceClaim {} was not created for pod {} {words}", claim.key(), pod.key));
        }
        out.push(Arc::clone(claim));
    }
    Ok(out)
}

pub(super) fn is_reserved_for(claim: &ResourceClaim, pod: &PodInfo) -> bool {
    let consumers = claim.status.iter().flat_map(|status| status.reserved_for.iter().flatten());
    consumers.into_iter().any(|consumer| consumer.uid == pod.pod.uid())
}

pub(super) fn allocation(claim: &ResourceClaim) -> Option<&AllocationResult> {
    claim.status.as_ref()?.allocation.as_ref()
}

/// Whether the claim's devices never became usable: others have to be allocated.
pub(super) fn is_void(claim: &ResourceClaim, devices: &Devices) -> bool {
    match conditions::are_met(claim) {
        Ok(true) => false,
        Ok(false) => devices.is_late(claim),
        Err(_) => true,
    }
}

/// The claims of a pod, looked up once.
#[derive(Clone)]
pub(crate) struct Claims {
    allocated: Vec<Arc<ResourceClaim>>,
    pending: Vec<Arc<ResourceClaim>>,
    /// Resources that nodes may have as devices.
    extended: Option<Extended>,
    /// What is wrong with the claims themselves: nobody knows then whether a node would do.
    failure: Arc<Mutex<Option<String>>>,
}

impl Claims {
    /// Nothing for a pod without claims. Fails when no node will do.
    pub(crate) fn new(pod: &PodInfo, devices: &Devices) -> Result<Option<Self>, String> {
        let extended = Extended::new(pod, devices);
        if !has_claims(pod) && extended.is_none() {
            return Ok(None);
        }
        let claims = claims_of(pod, devices)?;
        for claim in &claims {
            check(claim, pod, devices)?;
        }
        let (allocated, pending) = claims.into_iter().partition(|claim| allocation(claim).is_some());
        Ok(Some(Self { allocated, pending, extended, failure: Arc::default() }))
    }

    /// What is against the node, in upstream's words.
    pub(crate) fn misfit(&self, node: &NodeInfo, devices: &Devices) -> Option<&'static str> {
        let here = |claim: &Arc<ResourceClaim>| {
            let selector = allocation(claim).and_then(|allocation| allocation.node_selector.as_ref());
            selector.is_none_or(|selector| selected(selector, node)) && !is_void(claim, devices)
        };
        if !self.allocated.iter().all(here) {
            return Some(UNAVAILABLE);
        }
        let special = match self.special(node, devices) {
            Ok(special) => special,
            Err(words) => return Some(words),
        };
        if self.pending.is_empty() && special.is_none() {
            return None;
        }
        match self.allocate(node, devices, special.as_ref()) {
            Ok(Some(_)) => None,
            Ok(None) => Some("cannot allocate all claims"),
            Err(Failure::InvalidPools) => Some("invalid resource pools were encountered"),
            Err(Failure::TooLong) => Some("timed out trying to allocate devices"),
            Err(Failure::Wrong(words)) => {
                self.failure.lock().get_or_insert(words);
                Some("cannot allocate all claims")
            }
        }
    }

    /// What is wrong with the claims, if nodes were looked at and something is.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    pub(super) fn pending(&self) -> &[Arc<ResourceClaim>] {
        &self.pending
    }

    pub(super) fn allocated(&self) -> &[Arc<ResourceClaim>] {
        &self.allocated
    }

    /// The claim for what the node has as devices; nothing when the pod asks for none of it.
    pub(super) fn special(&self, node: &NodeInfo, devices: &Devices) -> Result<Option<Special>, &'static str> {
        self.extended.as_ref().map_or(Ok(None), |extended| extended.claim(node, devices))
    }

    /// The allocations of the pending claims, in their order, and of the special one.
    pub(super) fn allocate(
        &self,
        node: &NodeInfo,
        devices: &Devices,
        special: Option<&Special>,
    ) -> Result<Option<Vec<AllocationResult>>, Failure> {
        let pending = self.pending.iter().map(|claim| &**claim);
        let all: Vec<&ResourceClaim> = pending.chain(special.map(|special| &special.claim)).collect();
        allocate(node, &all, devices)
    }
}

fn check(claim: &ResourceClaim, pod: &PodInfo, devices: &Devices) -> Result<(), String> {
    if allocation(claim).is_some() {
        let consumers = claim.status.as_ref().and_then(|status| status.reserved_for.as_ref()).map_or(0, Vec::len);
        let usable = consumers < MOST_CONSUMERS || is_reserved_for(claim, pod);
        return if usable { Ok(()) } else { Err("resourceclaim in use".to_owned()) };
    }
    if devices.is_in_flight(claim) {
        return Err(format!("resource claim {} is in the process of being allocated", claim.key()));
    }
    let known = |request: String, class: &str| match devices.class(class) {
        Some(_) => Ok(()),
        None => Err(format!("request {request}: device class {class} does not exist")),
    };
    for request in claim.spec.devices.iter().flat_map(|devices| devices.requests.iter().flatten()) {
        if let Some(exactly) = &request.exactly {
            known(request.name.clone(), &exactly.device_class_name)?;
        }
        for sub in request.first_available.iter().flatten() {
            known(format!("{}/{}", request.name, sub.name), &sub.device_class_name)?;
        }
    }
    Ok(())
}

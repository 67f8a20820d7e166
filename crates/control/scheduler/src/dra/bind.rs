//! Keeps devices for a pod that has a node, tells the API server of them, and gives them up again.

use super::claims::{Claims, allocation, claims_of, is_reserved_for, wants_claims};
use crate::hints::Event;
use crate::pod::PodInfo;
use crate::shared::Shared;
use crate::snapshot::Snapshot;
use pintle_client::{Client, ClientError, Patch, PatchOptions};
use pintle_types::Kind;
use pintle_types::k8s::api::resource::v1::{AllocationResult, ResourceClaim, ResourceClaimConsumerReference};
use rand::Rng;
use serde_json::json;
use std::sync::Arc;

const FINALIZER: &str = "resource.kubernetes.io/delete-protection";
/// How often a claim that others change meanwhile is tried.
const TRIES: usize = 5;

/// What is to be written before the pod is bound: claims that are not reserved for it, some with their devices.
#[derive(Debug)]
pub(crate) struct Reservation(Vec<(Arc<ResourceClaim>, Option<AllocationResult>)>);

impl Reservation {
    /// The devices are free again.
    pub(crate) fn release(&self, shared: &Shared) {
        let mut snapshot = shared.snapshot.lock();
        self.0.iter().for_each(|(claim, _)| snapshot.devices_mut().release(claim));
        drop(snapshot);
        shared.cluster_changed(&Event::DevicesChanged);
    }
}

/// Keeps the devices of the node for the pod's claims. Nothing when nothing is to be written.
pub(crate) fn reserve(
    pod: &PodInfo,
    node: &str,
    snapshot: &mut Snapshot,
    random: &mut impl Rng,
) -> Result<Option<Reservation>, String> {
    let Some(claims) = Claims::new(pod, snapshot.devices())? else { return Ok(None) };
    let place = snapshot.node(node).ok_or_else(|| format!("node {node} is gone"))?;
    let results = match claims.pending() {
        [] => Vec::new(),
        _ => match claims.allocate(place, snapshot.devices()) {
            Ok(Some(results)) => results,
            _ => return Err("claim allocation not found for node".to_owned()),
        },
    };
    let mut out = Vec::new();
    for (claim, mut result) in claims.pending().iter().zip(results) {
        let devices = result.devices.iter_mut().flat_map(|devices| devices.results.iter_mut().flatten());
        devices.filter_map(|device| device.share_id.as_mut()).for_each(|id| *id = uid(random));
        snapshot.devices_mut().reserve(claim, &result);
        out.push((Arc::clone(claim), Some(result)));
    }
    let unreserved = claims.allocated().iter().filter(|claim| !is_reserved_for(claim, pod));
    out.extend(unreserved.map(|claim| (Arc::clone(claim), None)));
    Ok((!out.is_empty()).then_some(Reservation(out)))
}

/// A random UUID.
fn uid(random: &mut impl Rng) -> String {
    let bits: u128 = random.random();
    let bits = bits & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let text = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..])
}

/// Writes the allocations and reservations. Whatever comes of it, nothing is kept here after.
pub(crate) async fn bind(
    client: &Client,
    shared: &Shared,
    pod: &PodInfo,
    reservation: &Reservation,
) -> Result<(), String> {
    let mut bound = Ok(());
    for (claim, result) in &reservation.0 {
        if bound.is_ok() {
            bound = write(client, pod, claim, result.as_ref()).await.map(|written| {
                shared.snapshot.lock().devices_mut().set_claim(&claim.key(), Some(Arc::new(written)));
            });
        }
        shared.snapshot.lock().devices_mut().release(claim);
    }
    if bound.is_err() {
        // What was kept is free again.
        shared.cluster_changed(&Event::DevicesChanged);
    }
    bound
}

async fn write(
    client: &Client,
    pod: &PodInfo,
    claim: &ResourceClaim,
    result: Option<&AllocationResult>,
) -> Result<ResourceClaim, String> {
    let key = claim.key();
    let mut current = claim.clone();
    for attempt in 1.. {
        if current.is_deleting() {
            return Err(format!("claim {key} got deleted in the meantime"));
        }
        if result.is_some() && allocation(&current).is_some() {
            return Err(format!("claim {key} got allocated elsewhere in the meantime"));
        }
        match write_once(client, pod, current, result).await {
            Ok(written) => return Ok(written),
            Err((_, error)) if error.is_conflict() && attempt < TRIES => {}
            Err((what, error)) => return Err(format!("{what} claim {key}: {error}")),
        }
        let again = client.get::<ResourceClaim>(&key.namespace, &key.name).await;
        current = again.map_err(|error| format!("get updated claim {key} after conflict: {error}"))?;
    }
    Err(format!("claim {key} changes all the time"))
}

/// Fails with what was tried.
async fn write_once(
    client: &Client,
    pod: &PodInfo,
    mut claim: ResourceClaim,
    result: Option<&AllocationResult>,
) -> Result<ResourceClaim, (&'static str, ClientError)> {
    let protected = claim.metadata.finalizers.iter().flatten().any(|name| name == FINALIZER);
    if result.is_some() && !protected {
        claim.metadata.finalizers.get_or_insert_default().push(FINALIZER.to_owned());
        claim = client.update(&claim).await.map_err(|error| ("add finalizer to", error))?;
    }
    let status = claim.status.get_or_insert_default();
    let what = match result {
        Some(result) => {
            status.allocation = Some(result.clone());
            "add allocation and reservation to"
        }
        None => "add reservation to",
    };
    status.reserved_for.get_or_insert_default().push(ResourceClaimConsumerReference {
        api_group: None,
        resource: "pods".to_owned(),
        name: pod.key.name.clone(),
        uid: pod.pod.uid().to_owned(),
    });
    client.update_status(&claim).await.map_err(|error| (what, error))
}

/// Takes the pod out of those that its claims are reserved for: it was not bound.
pub(crate) async fn unreserve(client: &Client, shared: &Shared, pod: &PodInfo) {
    if !wants_claims(pod) {
        return;
    }
    let claims = claims_of(pod, shared.snapshot.lock().devices()).unwrap_or_default();
    for claim in claims.iter().filter(|claim| is_reserved_for(claim, pod)) {
        let patch = json!({
            "metadata": { "uid": claim.uid() },
            "status": { "reservedFor": [{ "$patch": "delete", "uid": pod.pod.uid() }] },
        });
        let (key, options) = (claim.key(), PatchOptions::status());
        let done = client.patch::<ResourceClaim>(&key.namespace, &key.name, Patch::Strategic(patch), &options).await;
        if let Err(error) = done {
            tracing::warn!(claim = %key, pod = %pod.key, %error, "could not take a pod off a claim");
        }
    }
}

/// Gives up the devices of a claim that nobody uses and that is allocated where the pod can't go. Returns whether
/// there was one.
pub(crate) async fn deallocate(client: &Client, shared: &Shared, pod: &PodInfo) -> Result<bool, ClientError> {
    let claims = claims_of(pod, shared.snapshot.lock().devices()).unwrap_or_default();
    let idle = |claim: &&Arc<ResourceClaim>| {
        let consumers = claim.status.as_ref().and_then(|status| status.reserved_for.as_deref()).unwrap_or_default();
        let bound = allocation(claim).is_some_and(|allocation| allocation.node_selector.is_some());
        bound && consumers.iter().all(|consumer| consumer.uid == pod.pod.uid()) && consumers.len() <= 1
    };
    let Some(claim) = claims.iter().find(idle) else { return Ok(false) };
    let mut changed = ResourceClaim::clone(claim);
    let status = changed.status.get_or_insert_default();
    (status.allocation, status.reserved_for) = (None, None);
    client.update_status(&changed).await.map(|_| true)
}

//! Keeps devices for a pod that has a node, tells the API server of them, and gives them up again.

use super::claims::{Claims, allocation, claims_of, has_claims, is_reserved_for, is_void, wants_claims};
use super::conditions;
use super::devices::Devices;
use super::extended::Extended;
use crate::bind::Binder;
use crate::hints::Event;
use crate::pod::PodInfo;
use crate::shared::Shared;
use crate::snapshot::Snapshot;
use pintle_client::{Client, ClientError, DeleteOptions, Patch, PatchOptions, unless_missing};
use pintle_types::k8s::api::core::v1::{ContainerExtendedResourceRequest, Pod};
use pintle_types::k8s::api::resource::v1::{AllocationResult, ResourceClaim, ResourceClaimConsumerReference};
use pintle_types::{Kind, Time};
use rand::Rng;
use serde_json::json;
use std::sync::Arc;

const FINALIZER: &str = "resource.kubernetes.io/delete-protection";
/// How often a claim that others change meanwhile is tried.
const TRIES: usize = 5;

/// A claim that is not reserved for its pod.
#[derive(Debug)]
struct Entry {
    claim: Arc<ResourceClaim>,
    /// Its devices, when they were chosen for this pod.
    result: Option<AllocationResult>,
    /// For a claim that is yet to be made: which container gets what of it.
    mappings: Option<Vec<ContainerExtendedResourceRequest>>,
}

/// What is to be written before the pod is bound. Empty when there is nothing to write and something to wait for.
#[derive(Debug)]
pub(crate) struct Reservation(Vec<Entry>);

impl Reservation {
    /// The devices are free again.
    pub(crate) fn release(&self, shared: &Shared) {
        let mut snapshot = shared.snapshot.lock();
        self.0.iter().for_each(|entry| snapshot.devices_mut().release(&entry.claim));
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
    let special = claims.special(place, snapshot.devices())?;
    let results = match (claims.pending(), &special) {
        ([], None) => Vec::new(),
        _ => match claims.allocate(place, snapshot.devices(), special.as_ref()) {
            Ok(Some(results)) => results,
            _ => return Err("claim allocation not found for node".to_owned()),
        },
    };
    let pending = claims.pending().iter().map(|claim| (Arc::clone(claim), None));
    let special = special.map(|special| (Arc::new(special.claim), Some(special.mappings)));
    let mut out = Vec::new();
    for ((claim, mappings), mut result) in pending.chain(special).zip(results) {
        let devices = result.devices.iter_mut().flat_map(|devices| devices.results.iter_mut().flatten());
        devices.filter_map(|device| device.share_id.as_mut()).for_each(|id| *id = uid(random));
        snapshot.devices_mut().reserve(&claim, &result);
        out.push(Entry { claim, result: Some(result), mappings });
    }
    let unreserved = claims.allocated().iter().filter(|claim| !is_reserved_for(claim, pod));
    out.extend(unreserved.map(|claim| Entry { claim: Arc::clone(claim), result: None, mappings: None }));
    let waits = claims.allocated().iter().any(|claim| conditions::has_any(claim));
    Ok((waits || !out.is_empty()).then_some(Reservation(out)))
}

/// A random UUID.
fn uid(random: &mut impl Rng) -> String {
    let bits: u128 = random.random();
    let bits = bits & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let text = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..])
}

/// Writes the allocations and reservations, and waits for devices that have to be made usable first. Whatever comes of
/// it, nothing is kept here after.
pub(crate) async fn bind(binder: &Binder, pod: &PodInfo, node: &str, reservation: &Reservation) -> Result<(), String> {
    let shared = &*binder.shared;
    let mut bound = Ok(());
    for entry in &reservation.0 {
        if bound.is_ok() {
            bound = write_entry(binder, pod, entry).await;
        }
        shared.snapshot.lock().devices_mut().release(&entry.claim);
    }
    if bound.is_err() {
        // What was kept is free again.
        shared.cluster_changed(&Event::DevicesChanged);
    }
    bound?;
    conditions::met(binder, pod, node).await
}

/// Writes one claim, which is made first if there is none yet.
async fn write_entry(binder: &Binder, pod: &PodInfo, entry: &Entry) -> Result<(), String> {
    let known = |claim: ResourceClaim| {
        binder.shared.snapshot.lock().devices_mut().set_claim(&claim.key(), Some(Arc::new(claim)));
    };
    let Some(mappings) = &entry.mappings else {
        return write(binder, pod, &entry.claim, entry.result.as_ref()).await.map(known);
    };
    let mut claim = ResourceClaim::clone(&entry.claim);
    (claim.metadata.name, claim.metadata.uid) = (None, None);
    let made = binder.client.create(&claim).await;
    let made = made.map_err(|error| format!("create claim for extended resources {}: {error}", entry.claim.key()))?;
    // Known from now on, so that it is found when the rest goes wrong.
    known(made.clone());
    let written = write(binder, pod, &made, entry.result.as_ref()).await?;
    let name = written.name().to_owned();
    known(written);
    let status = json!({ "extendedResourceClaimStatus": { "requestMappings": mappings, "resourceClaimName": name } });
    let patch = Patch::Strategic(json!({ "metadata": { "uid": pod.pod.uid() }, "status": status }));
    let (key, options) = (&pod.key, PatchOptions::status());
    let told = binder.client.patch::<Pod>(&key.namespace, &key.name, patch, &options).await;
    told.map(drop).map_err(|error| format!("update pod {key} ExtendedResourceClaimStatus: {error}"))
}

async fn write(
    binder: &Binder,
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
        match write_once(binder, pod, current, result).await {
            Ok(written) => return Ok(written),
            Err((_, error)) if error.is_conflict() && attempt < TRIES => {}
            Err((what, error)) => return Err(format!("{what} claim {key}: {error}")),
        }
        let again = binder.client.get::<ResourceClaim>(&key.namespace, &key.name).await;
        current = again.map_err(|error| format!("get updated claim {key} after conflict: {error}"))?;
    }
    Err(format!("claim {key} changes all the time"))
}

/// Fails with what was tried.
async fn write_once(
    binder: &Binder,
    pod: &PodInfo,
    mut claim: ResourceClaim,
    result: Option<&AllocationResult>,
) -> Result<ResourceClaim, (&'static str, ClientError)> {
    let client = &binder.client;
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
    if let Some(allocation) = &mut status.allocation {
        allocation.allocation_timestamp.get_or_insert_with(|| Time(binder.clock.now_seconds()));
    }
    status.reserved_for.get_or_insert_default().push(ResourceClaimConsumerReference {
        api_group: None,
        resource: "pods".to_owned(),
        name: pod.key.name.clone(),
        uid: pod.pod.uid().to_owned(),
    });
    client.update_status(&claim).await.map_err(|error| (what, error))
}

/// Takes the pod out of those that its claims are reserved for, and the claim away that was made for it: it was not
/// bound.
pub(crate) async fn unreserve(client: &Client, shared: &Shared, pod: &PodInfo) {
    if !wants_claims(pod) {
        return;
    }
    let (claims, special) = {
        let snapshot = shared.snapshot.lock();
        let devices = snapshot.devices();
        (claims_of(pod, devices).unwrap_or_default(), devices.special(pod.pod.uid()).cloned())
    };
    if let Some(special) = special
        && let Err(error) = delete(client, &special).await
    {
        tracing::warn!(claim = %special.key(), pod = %pod.key, %error, "could not delete the claim of a pod");
    }
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

/// Deletes a claim that was made for a pod, devices and all.
async fn delete(client: &Client, claim: &ResourceClaim) -> Result<(), ClientError> {
    let key = claim.key();
    let Some(mut fresh) = client.get_opt::<ResourceClaim>(&key.namespace, &key.name).await? else { return Ok(()) };
    if fresh.uid() != claim.uid() {
        return Ok(());
    }
    fresh.metadata.finalizers.iter_mut().for_each(|list| list.retain(|name| name != FINALIZER));
    client.update(&fresh).await?;
    unless_missing(
        client.delete::<ResourceClaim>(&key.namespace, &key.name, &DeleteOptions::of_uid(claim.uid())).await,
    )?;
    Ok(())
}

/// Whether the pod claims devices, or asks for resources that are devices.
pub(crate) fn is_concerned(pod: &PodInfo, devices: &Devices) -> bool {
    has_claims(pod) || Extended::new(pod, devices).is_some()
}

/// Gives up what keeps the pod from nodes: a claim that was made for it in an earlier attempt, or the devices of one
/// that nobody else uses and that are elsewhere or never became usable. Returns what was done, in upstream's words.
pub(crate) async fn deallocate(
    client: &Client,
    shared: &Shared,
    pod: &PodInfo,
) -> Result<Option<&'static str>, ClientError> {
    let (claim, special) = {
        let snapshot = shared.snapshot.lock();
        let devices = snapshot.devices();
        let claims = claims_of(pod, devices).unwrap_or_default();
        (claims.into_iter().find(|claim| is_idle(claim, pod, devices)), devices.special(pod.pod.uid()).cloned())
    };
    if let Some(special) = special {
        return delete(client, &special).await.map(|()| Some("deletion of ResourceClaim completed"));
    }
    let Some(claim) = claim else { return Ok(None) };
    let mut changed = ResourceClaim::clone(&claim);
    let status = changed.status.get_or_insert_default();
    (status.allocation, status.reserved_for) = (None, None);
    client.update_status(&changed).await.map(|_| Some("deallocation of ResourceClaim completed"))
}

fn is_idle(claim: &ResourceClaim, pod: &PodInfo, devices: &Devices) -> bool {
    let consumers = claim.status.as_ref().and_then(|status| status.reserved_for.as_deref()).unwrap_or_default();
    let bound = allocation(claim).is_some_and(|allocation| allocation.node_selector.is_some());
    (bound || is_void(claim, devices))
        && consumers.iter().all(|consumer| consumer.uid == pod.pod.uid())
        && consumers.len() <= 1
}

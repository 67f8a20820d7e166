//! Watches ranges, and the addresses whose end may let one go.

use super::plan::{FINALIZER, OWN, condition, has, is_used, name};
use crate::context::Context;
use pintle_client::ClientError;
use pintle_informer::{Informer, Outcome, Queue, run_reconciler};
use pintle_types::k8s::api::networking::v1::{IPAddress, ServiceCIDR};
use pintle_types::{Kind, ObjectKey};

/// Runs the controller until the context's stop.
pub async fn run(context: Context) {
    let (ranges, addresses) = (context.informers.of::<ServiceCIDR>(), context.informers.of::<IPAddress>());
    let queue: Queue<ObjectKey> = Queue::new();
    let (from_ranges, from_addresses, all) = (queue.clone(), queue.clone(), ranges.clone());
    ranges.on_change(move |change| from_ranges.add(change.object().key()));
    addresses.on_change(move |change| {
        if change.new().is_none() {
            all.list().iter().filter(|range| range.is_deleting()).for_each(|range| from_addresses.add(range.key()));
        }
    });
    ranges.synced().await;
    addresses.synced().await;
    let reconcile = |key| reconcile(&context, &ranges, &addresses, key);
    run_reconciler("service-cidr-controller", queue, 1, reconcile, context.stop.clone()).await;
}

async fn reconcile(
    context: &Context,
    ranges: &Informer<ServiceCIDR>,
    addresses: &Informer<IPAddress>,
    key: ObjectKey,
) -> Result<Outcome, ClientError> {
    let Some(range) = ranges.get(&key).filter(|range| range.name() == OWN) else { return Ok(Outcome::Done) };
    let finalizers = range.metadata.finalizers.clone().unwrap_or_default();
    let kept = finalizers.iter().any(|finalizer| finalizer == FINALIZER);
    let used = || is_used(&range, addresses.list().iter().map(|address| name(address)));
    let wanted = match (range.is_deleting(), kept) {
        (false, false) => Some([finalizers, vec![FINALIZER.to_owned()]].concat()),
        (true, true) if !used() => Some(finalizers.into_iter().filter(|it| it != FINALIZER).collect()),
        _ => None,
    };
    let mut changed = ServiceCIDR::clone(&range);
    let condition = condition(range.is_deleting(), context.time());
    let written = if let Some(finalizers) = wanted {
        changed.metadata.finalizers = Some(finalizers);
        // The update is seen, and brings the condition.
        context.client.update(&changed).await
    } else if !has(&range, &condition) {
        changed.status.get_or_insert_default().conditions = Some(vec![condition]);
        context.client.update_status(&changed).await
    } else {
        return Ok(Outcome::Done);
    };
    match written {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(Outcome::Done),
    }
}

//! Watches ranges, and the addresses whose end may let one go.

use super::plan::{FINALIZER, condition, has, is_used, name};
use crate::context::Context;
use pintle_client::{ClientError, unless_missing};
use pintle_informer::{Change, Informer, Outcome, Queue, run_reconciler};
use pintle_types::k8s::api::networking::v1::{IPAddress, ServiceCIDR};
use pintle_types::{Kind, ObjectKey};

/// Runs the controller until the context's stop.
pub async fn run(context: Context) {
    let (ranges, addresses) = (context.informers.of::<ServiceCIDR>(), context.informers.of::<IPAddress>());
    let queue: Queue<ObjectKey> = Queue::new();
    let again = {
        let (all, queue) = (ranges.clone(), queue.clone());
        move || all.list().iter().filter(|range| range.is_deleting()).for_each(|range| queue.add(range.key()))
    };
    let (from_ranges, others) = (queue.clone(), again.clone());
    ranges.on_change(move |change| {
        from_ranges.add(change.object().key());
        // A new range may cover the addresses of one that is to go.
        if matches!(change, Change::Added(_)) {
            others();
        }
    });
    addresses.on_change(move |change| {
        if change.new().is_none() {
            again();
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
    let Some(range) = ranges.get(&key) else { return Ok(Outcome::Done) };
    let finalizers = range.metadata.finalizers.clone().unwrap_or_default();
    let kept = finalizers.iter().any(|finalizer| finalizer == FINALIZER);
    let used = || {
        let all = ranges.list();
        let others = all.iter().filter(|other| !other.is_deleting()).map(|other| &**other);
        is_used(&range, others, addresses.list().iter().map(|address| name(address)))
    };
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
    unless_missing(written)?;
    Ok(Outcome::Done)
}

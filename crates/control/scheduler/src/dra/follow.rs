//! Watches claims, classes, slices and the rules that taint devices, from the first pod on that claims devices.

use super::extended::ANNOTATION;
use crate::hints::Event;
use crate::shared::Shared;
use pintle_client::Client;
use pintle_devices::VERSION_OF_RULES;
use pintle_informer::{Change, Informer, Informers};
use pintle_types::Kind;
use pintle_types::k8s::api::resource::v1::{DeviceClass, ResourceClaim, ResourceSlice};
use pintle_types::k8s::api::resource::v1beta2::DeviceTaintRule;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What is served where there can be devices at all.
const VERSION: &str = "/apis/resource.k8s.io/v1";

/// Watches until `stop`, once a pod with claims was seen. Where devices, or rules that taint them, are not served, none
/// are there: pods are placed without.
pub(crate) async fn follow(client: Client, informers: Informers, shared: Arc<Shared>, stop: CancellationToken) {
    if stop.run_until_cancelled(shared.claims_seen.notified()).await.is_none() {
        return;
    }
    let served = async { (client.serves(VERSION).await, client.serves(VERSION_OF_RULES).await) };
    match stop.run_until_cancelled(served).await {
        Some((true, ruled)) => watch(&informers, &shared, ruled, &stop).await,
        Some((false, _)) => ready(&shared),
        None => {}
    }
}

/// From now on pods are held against what is known.
fn ready(shared: &Shared) {
    shared.snapshot.lock().devices_mut().ready = true;
    shared.claims_changed(None);
}

async fn watch(informers: &Informers, shared: &Arc<Shared>, ruled: bool, stop: &CancellationToken) {
    let claims: Informer<ResourceClaim> = informers.of();
    let classes: Informer<DeviceClass> = informers.of();
    let slices: Informer<ResourceSlice> = informers.of();
    let rules: Option<Informer<DeviceTaintRule>> = ruled.then(|| informers.of());
    let [of_claims, of_classes, of_slices, of_rules] = std::array::from_fn(|_| Arc::clone(shared));
    classes.on_change(move |change| class_changed(&of_classes, change));
    slices.on_change(move |change| slice_changed(&of_slices, change));
    claims.on_change(move |change| claim_changed(&of_claims, change));
    if let Some(rules) = &rules {
        rules.on_change(move |change| rule_changed(&of_rules, change));
    }
    let synced = async {
        classes.synced().await;
        slices.synced().await;
        claims.synced().await;
        if let Some(rules) = &rules {
            rules.synced().await;
        }
    };
    if stop.run_until_cancelled(synced).await.is_some() {
        ready(shared);
        // The informers are held until the end.
        stop.cancelled().await;
    }
}

fn claim_changed(shared: &Shared, change: &Change<ResourceClaim>) {
    let key = change.object().key();
    shared.snapshot.lock().devices_mut().set_claim(&key, change.new().cloned());
    shared.claims_changed(Some(&key.namespace));
    shared.storage_changed.notify_waiters();
    let allocated = |claim: &Arc<ResourceClaim>| claim.status.as_ref().is_some_and(|s| s.allocation.is_some());
    let was = change.old().is_some_and(allocated);
    // A pod waits for the claim of an earlier attempt to go, devices or none.
    let special = change.new().is_none() && change.object().annotation(ANNOTATION).is_some();
    let freed = special || (was && !change.new().is_some_and(allocated));
    // A driver that adds its finalizer changes nothing for pods.
    let same = change.old().zip(change.new()).is_some_and(|(old, new)| old.status == new.status);
    if freed || (change.new().is_some() && !same) {
        shared.cluster_changed(&Event::DeviceClaimChanged { claim: key, freed });
    }
}

fn class_changed(shared: &Shared, change: &Change<DeviceClass>) {
    shared.snapshot.lock().devices_mut().set_class(change.object().name(), change.new().cloned());
    if change.new().is_some() {
        shared.cluster_changed(&Event::DevicesChanged);
    }
}

fn slice_changed(shared: &Shared, change: &Change<ResourceSlice>) {
    shared.snapshot.lock().devices_mut().set_slice(change.object().name(), change.new().cloned());
    if change.new().is_some() {
        shared.cluster_changed(&Event::DevicesChanged);
    }
}

fn rule_changed(shared: &Shared, change: &Change<DeviceTaintRule>) {
    // What became of a rule, in its status, changes nothing for pods.
    if change.old().zip(change.new()).is_some_and(|(old, new)| old.spec == new.spec) {
        return;
    }
    shared.snapshot.lock().devices_mut().set_rule(change.object().name(), change.new().cloned());
    // A new rule takes devices away from those who wait; one that is gone, or says otherwise, may have freed some.
    if change.old().is_some() {
        shared.cluster_changed(&Event::DevicesChanged);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::configuration::Configuration;
    use crate::metrics::Metrics;
    use pintle_fake_api::FakeApi;
    use pintle_types::k8s::api::resource::v1::ResourceClaim;
    use serde_json::json;

    /// Runs it over `api`, as if a pod with claims was there, until pods are held against what is known.
    async fn known(api: &FakeApi) -> Arc<Shared> {
        let stop = CancellationToken::new();
        let shared =
            Arc::new(Shared::new(&Configuration::default(), &Metrics::new(&pintle_metrics::Registry::default())));
        let informers = Informers::new(api.client(), stop.clone());
        shared.claims_seen.notify_one();
        tokio::spawn(follow(api.client(), informers, Arc::clone(&shared), stop.clone()));
        let _stop = stop.drop_guard();
        while !shared.snapshot.lock().devices().ready {
            tokio::task::yield_now().await;
        }
        shared
    }

    fn put(api: &FakeApi) {
        let claim = json!({ "metadata": { "name": "c", "namespace": "d" }, "spec": {} });
        api.put(&ResourceClaim::from_value(claim).unwrap());
        let taint = json!({ "key": "broken", "effect": "NoSchedule" });
        let rule = json!({ "metadata": { "name": "r" }, "spec": { "deviceSelector": {}, "taint": taint } });
        api.put(&DeviceTaintRule::from_value(rule).unwrap());
    }

    #[tokio::test]
    async fn what_is_not_served_is_not_waited_for() {
        let key = pintle_types::ObjectKey::new("d", "c");
        for (versions, claims, rules) in [(&[][..], false, 0), (&["v1"], true, 0), (&["v1", "v1beta2"], true, 1)] {
            let api = FakeApi::new();
            put(&api);
            for version in versions {
                api.serve(&format!("/apis/resource.k8s.io/{version}"), json!({ "resources": [] }));
            }
            let shared = known(&api).await;
            let snapshot = shared.snapshot.lock();
            assert_eq!(snapshot.devices().claim(&key).is_some(), claims, "{versions:?}");
            assert_eq!(snapshot.devices().rules(), rules, "{versions:?}");
        }
    }
}

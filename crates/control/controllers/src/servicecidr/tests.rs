//! A range is ready, and goes after its last address.

use super::{plan::is_used, run};
use crate::testing::Cluster;
use futures::FutureExt;
use pintle_client::DeleteOptions;
use pintle_types::Kind;
use pintle_types::k8s::api::networking::v1::{IPAddress, ServiceCIDR};
use serde_json::json;

#[tokio::test(start_paused = true)]
async fn a_range_waits_for_its_addresses() {
    let cluster = Cluster::new().start(|context| run(context).boxed());
    let range = json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.43.0.0/16"]}});
    cluster.create::<ServiceCIDR>(range).await;
    cluster.create::<IPAddress>(json!({"metadata": {"name": "10.43.0.1"}, "spec": {"parentRef": {}}})).await;
    let ready = |range: ServiceCIDR| range.status?.conditions?.first().map(|it| it.status.clone());
    let get = |api: &pintle_fake_api::FakeApi| api.get::<ServiceCIDR>("", "kubernetes");
    cluster.until("ready", |api| get(api).and_then(ready).as_deref() == Some("True")).await;
    cluster.client.delete::<ServiceCIDR>("", "kubernetes", &DeleteOptions::default()).await.unwrap();
    cluster.until("no longer ready", |api| get(api).and_then(ready).as_deref() == Some("False")).await;
    assert!(get(&cluster.api).unwrap().is_deleting());
    cluster.api.remove::<IPAddress>("", "10.43.0.1");
    cluster.until("it goes", |api| get(api).is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn a_range_goes_when_another_has_its_addresses() {
    let cluster = Cluster::new().start(|context| run(context).boxed());
    let range = |name: &str, net: &str| json!({"metadata": {"name": name}, "spec": {"cidrs": [net]}});
    cluster.create::<ServiceCIDR>(range("small", "10.44.0.0/24")).await;
    cluster.create::<IPAddress>(json!({"metadata": {"name": "10.44.0.1"}, "spec": {"parentRef": {}}})).await;
    let small = |api: &pintle_fake_api::FakeApi| api.get::<ServiceCIDR>("", "small");
    let status = |range: ServiceCIDR| range.status?.conditions?.first().map(|it| it.status.clone());
    cluster.until("ready", |api| small(api).and_then(status).as_deref() == Some("True")).await;
    cluster.client.delete::<ServiceCIDR>("", "small", &DeleteOptions::default()).await.unwrap();
    cluster.until("kept", |api| small(api).and_then(status).as_deref() == Some("False")).await;
    cluster.create::<ServiceCIDR>(range("large", "10.44.0.0/16")).await;
    cluster.until("it goes", |api| small(api).is_none()).await;
}

#[test]
fn addresses_keep_the_ranges_that_only_they_are_in() {
    let range = |nets: &[&str]| {
        ServiceCIDR::from_value(json!({ "metadata": { "name": "r" }, "spec": { "cidrs": nets } })).unwrap()
    };
    for (nets, others, addresses, expected) in [
        (&["10.43.0.0/16"][..], &[][..], &[][..], false),
        (&["10.43.0.0/16"], &[], &["10.43.0.1"], true),
        (&["10.43.0.0/16"], &[], &["10.44.0.1"], false),
        (&["10.43.0.0/24"], &["10.43.0.0/16"], &["10.43.0.1"], false),
        // The larger one has an address that the smaller one has not.
        (&["10.43.0.0/16"], &["10.43.0.0/24"], &["10.43.0.1"], false),
        (&["10.43.0.0/16"], &["10.43.0.0/24"], &["10.43.0.1", "10.43.1.1"], true),
        (&["10.43.0.0/16", "fd00::/112"], &["10.43.0.0/16"], &["10.43.0.1", "fd00::1"], true),
        (&["10.43.0.0/16", "fd00::/112"], &["10.43.0.0/16", "fd00::/64"], &["10.43.0.1", "fd00::1"], false),
    ] {
        let others: Vec<ServiceCIDR> = others.iter().map(|net| range(&[*net])).collect();
        let addresses = addresses.iter().map(|text: &&str| (*text).to_owned());
        assert_eq!(is_used(&range(nets), others.iter(), addresses), expected, "{nets:?}");
    }
}

//! Claims that grow are told what they wait for, once each time that they grow.

use super::{plan, run};
use crate::testing::Cluster;
use futures::FutureExt;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use serde_json::{Value, json};

fn claim(size: &str, has: &str, phase: &str) -> Value {
    json!({
        "metadata": { "name": "data", "namespace": "d", "uid": "u" },
        "spec": { "volumeName": "pv", "resources": { "requests": { "storage": size } } },
        "status": { "phase": phase, "capacity": { "storage": has } },
    })
}

fn volume(uid: &str) -> Value {
    json!({
        "metadata": { "name": "pv" },
        "spec": { "capacity": { "storage": "1Gi" }, "claimRef": { "namespace": "d", "name": "data", "uid": uid } },
    })
}

#[test]
fn a_claim_waits_when_it_asks_for_more_than_it_has() {
    let typed = |value: Value| PersistentVolumeClaim::from_value(value).unwrap();
    let own = PersistentVolume::from_value(volume("u")).unwrap();
    let waits = |size: &str, has: &str| plan::waits(&typed(claim(size, has, "Bound")), &own);
    assert!(waits("2Gi", "1Gi"));
    assert!(!waits("1Gi", "1024Mi"));
    assert!(!waits("1Gi", "2Gi"));
    let others = PersistentVolume::from_value(volume("v")).unwrap();
    assert!(!plan::waits(&typed(claim("2Gi", "1Gi", "Bound")), &others));
    let news = |old: Option<(&str, &str)>, new: (&str, &str), phase: &str| {
        let old = old.map(|(size, has)| typed(claim(size, has, "Bound")));
        plan::is_news(old.as_ref(), &typed(claim(new.0, new.1, phase)))
    };
    assert!(news(None, ("2Gi", "1Gi"), "Bound"));
    assert!(!news(None, ("2Gi", "1Gi"), "Pending"));
    assert!(news(Some(("1Gi", "1Gi")), ("2Gi", "1Gi"), "Bound"));
    assert!(news(Some(("2Gi", "1Gi")), ("2Gi", "2Gi"), "Bound"));
    assert!(!news(Some(("2Gi", "1Gi")), ("2Gi", "1Gi"), "Bound"));
    assert!(!news(Some(("2Gi", "1Gi")), ("1500Mi", "1Gi"), "Bound"));
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_grows_is_told_what_it_waits_for() {
    let cluster = Cluster::new().start(|context| run(context).boxed());
    let mut object = claim("1Gi", "1Gi", "Bound");
    object["metadata"].as_object_mut().unwrap().remove("uid");
    let made = cluster.create::<PersistentVolumeClaim>(object).await;
    cluster.create::<PersistentVolume>(volume(made.uid())).await;
    cluster.pass(1.0).await;
    assert!(cluster.events().is_empty());
    cluster.change::<PersistentVolumeClaim>("d", "data", |claim| {
        let grown = json!({ "storage": "2Gi" });
        let resources = claim.spec.get_or_insert_default().resources.get_or_insert_default();
        resources.requests = serde_json::from_value(grown).unwrap();
    });
    let words = "ExternalExpanding: waiting for an external controller to expand this PVC";
    cluster.until("it is told", |_| cluster.events() == [words]).await;
}

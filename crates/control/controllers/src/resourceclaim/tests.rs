//! Claims come from templates while their pods live, and go, or are free again, after them.

use super::plan::{self, FINALIZER, Named, POD_CLAIM};
use super::run;
use crate::testing::Cluster;
use futures::FutureExt;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::Pod;
use pintle_types::k8s::api::resource::v1::{ResourceClaim, ResourceClaimTemplate};
use serde_json::{Value, json};

fn pod(entries: Value, statuses: Value) -> Pod {
    let meta = json!({ "name": "p", "namespace": "d", "uid": "u" });
    let status = json!({ "resourceClaimStatuses": statuses });
    Pod::from_value(
        json!({ "metadata": meta, "spec": { "containers": [], "resourceClaims": entries }, "status": status }),
    )
    .unwrap()
}

fn consumers(names: &[&str]) -> Value {
    names.iter().map(|name| json!({ "resource": "pods", "name": name, "uid": format!("uid-of-{name}") })).collect()
}

fn claim(finalizers: &[&str], deleting: bool, allocated: bool, reserved: &[&str]) -> ResourceClaim {
    let mut claim = json!({
        "metadata": { "name": "c", "namespace": "d", "uid": "claim", "finalizers": finalizers },
        "spec": {},
        "status": { "reservedFor": consumers(reserved) },
    });
    if deleting {
        claim["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    }
    if allocated {
        claim["status"]["allocation"] = json!({});
    }
    ResourceClaim::from_value(claim).unwrap()
}

#[test]
fn entries_stand_for_claims() {
    let by_name = json!({ "name": "a", "resourceClaimName": "x" });
    let by_template = json!({ "name": "a", "resourceClaimTemplateName": "t" });
    for (entry, statuses, expected) in [
        (&by_name, json!([]), Named::Claim { name: "x", own: false }),
        (&by_template, json!([]), Named::NotYet { template: "t" }),
        (&by_template, json!([{ "name": "b", "resourceClaimName": "y" }]), Named::NotYet { template: "t" }),
        (&by_template, json!([{ "name": "a", "resourceClaimName": "y" }]), Named::Claim { name: "y", own: true }),
        (&by_template, json!([{ "name": "a" }]), Named::NotNeeded),
        (&json!({ "name": "a" }), json!([]), Named::Unknown),
    ] {
        let pod = pod(json!([entry]), statuses);
        assert_eq!(plan::named(&pod, &plan::entries(&pod)[0]), expected, "{entry}");
    }
}

#[test]
fn long_names_lose_their_share() {
    let template = ResourceClaimTemplate::from_value(json!({ "metadata": {}, "spec": { "spec": {} } })).unwrap();
    for (name, entry, expected) in [
        ("p", "gpu", "p-gpu-".to_owned()),
        // Of 60 + 20 letters, two dashes with them, 57 may stay.
        (&*"p".repeat(60), &*"e".repeat(20), format!("{}-{}", "p".repeat(41), "e".repeat(13))),
    ] {
        let mut pod = pod(json!([]), json!([]));
        pod.metadata.name = Some(name.to_owned());
        let made = plan::claim(&pod, entry, &template);
        assert_eq!(made.metadata.generate_name, Some(expected));
        assert!(plan::is_for(&made, &pod) && made.annotation(POD_CLAIM) == Some(entry));
        assert_eq!(plan::owning_pod(&made), Some((name, "u")));
    }
}

#[test]
fn claims_are_let_go_by_degrees() {
    let held: &[&str] = &[FINALIZER];
    // Finalizers, deleting, allocated, reserved for, left; then: written, consumers and allocation of that, unprotected.
    for (finalizers, deleting, allocated, before, left, expected) in [
        (held, false, true, &["a", "b"][..], &["a", "b"][..], (None, false)),
        (held, false, true, &["a", "b"], &["b"], (Some((1, true)), false)),
        (held, false, true, &["a"], &[], (Some((0, false)), true)),
        (&[][..], false, true, &["a"], &[], (Some((0, true)), false)),
        (held, false, true, &[], &[], (None, false)),
        (held, true, true, &[], &[], (Some((0, false)), true)),
        (held, true, false, &[], &[], (None, true)),
        (held, true, true, &["a"], &["a"], (None, false)),
    ] {
        let claim = claim(finalizers, deleting, allocated, before);
        let left = plan::consumers(&claim).iter().filter(|c| left.contains(&c.name.as_str())).cloned().collect();
        let found = plan::release(&claim, left);
        let written = found.status.as_ref().map(|claim| (plan::consumers(claim).len(), plan::is_allocated(claim)));
        assert_eq!((written, found.unprotect), expected, "{finalizers:?} {deleting} {allocated} {before:?}");
    }
}

#[test]
fn what_is_allocated_is_reserved_once() {
    let pod = pod(json!([]), json!([]));
    assert!(plan::reserved(&claim(&[], false, false, &[]), &pod).is_none());
    let reserved = plan::reserved(&claim(&[], false, true, &["a"]), &pod).unwrap();
    assert_eq!(plan::consumers(&reserved).len(), 2);
    assert!(plan::reserved(&reserved, &pod).is_none());
    let many: Vec<String> = (0..256).map(|i| format!("p{i}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(plan::reserved(&claim(&[], false, true, &many), &pod).is_none());
}

async fn start() -> Cluster {
    let cluster = Cluster::new().start(|context| run(context).boxed());
    let spec = json!({ "metadata": { "labels": { "of": "us" } }, "spec": {} });
    let template = json!({ "metadata": { "name": "t", "namespace": "d" }, "spec": spec });
    cluster.create::<ResourceClaimTemplate>(template).await;
    cluster
}

async fn asking(cluster: &Cluster, template: &str) -> Pod {
    let entries = json!([{ "name": "gpu", "resourceClaimTemplateName": template }]);
    let spec = json!({ "containers": [], "resourceClaims": entries });
    cluster.create(json!({ "metadata": { "name": "p", "namespace": "d" }, "spec": spec })).await
}

fn told(cluster: &Cluster) -> Option<String> {
    let pod = cluster.api.get::<Pod>("d", "p")?;
    plan::claims_of(&pod).first().map(|name| (*name).to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_template_becomes_a_claim_that_comes_back_while_the_pod_lives() {
    let cluster = start().await;
    let pod = asking(&cluster, "t").await;
    cluster.until("the pod tells of its claim", |_| told(&cluster).is_some()).await;
    let first = told(&cluster).unwrap();
    let claim = cluster.api.get::<ResourceClaim>("d", &first).unwrap();
    assert!(plan::is_for(&claim, &pod));
    assert_eq!((claim.label("of"), claim.annotation(POD_CLAIM)), (Some("us"), Some("gpu")));
    cluster.pass(10.0).await;
    assert_eq!(cluster.api.all::<ResourceClaim>().len(), 1);
    cluster.api.remove::<ResourceClaim>("d", &first);
    cluster.until("another", |_| told(&cluster).is_some_and(|name| name != first)).await;
    assert_eq!(cluster.api.all::<ResourceClaim>().len(), 1);
    // A pod that has ended holds none.
    cluster.change::<Pod>("d", "p", |pod| pod.status.get_or_insert_default().phase = Some("Succeeded".into()));
    cluster.until("it is deleted", |api| api.all::<ResourceClaim>().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_missing_template_is_told_and_waited_for() {
    let cluster = start().await;
    asking(&cluster, "later").await;
    let said = "FailedResourceClaimCreation: PodResourceClaim gpu: resource claim template \"later\": \
                resourceclaimtemplate.resource.k8s.io \"later\" not found";
    cluster.until("the event", |_| cluster.events().iter().any(|event| event == said)).await;
    let template = json!({ "metadata": { "name": "later", "namespace": "d" }, "spec": { "spec": {} } });
    cluster.create::<ResourceClaimTemplate>(template).await;
    cluster.until("the claim", |_| told(&cluster).is_some()).await;
}

#[tokio::test(start_paused = true)]
async fn devices_are_free_when_the_last_pod_is_gone() {
    let cluster = start().await;
    let entries = json!([{ "name": "gpu", "resourceClaimName": "c" }]);
    let spec = json!({ "containers": [], "resourceClaims": entries });
    let meta = json!({ "name": "p", "namespace": "d" });
    let pod = cluster.create::<Pod>(json!({ "metadata": meta, "spec": spec })).await;
    let mut shared = claim(&[FINALIZER], false, true, &["gone"]);
    let reserved = shared.status.as_mut().unwrap().reserved_for.as_mut().unwrap();
    reserved.push(reserved[0].clone());
    reserved[1].name = "p".into();
    reserved[1].uid = pod.uid().into();
    cluster.api.put(&shared);
    let now = || cluster.api.get::<ResourceClaim>("d", "c").unwrap();
    cluster.until("only the pod is left", |_| plan::consumers(&now()).len() == 1).await;
    assert!(plan::is_allocated(&now()) && plan::consumers(&now())[0].name == "p");
    cluster.api.remove::<Pod>("d", "p");
    cluster.until("it is free", |_| !plan::is_allocated(&now())).await;
    cluster.until("and not held", |_| now().metadata.finalizers.is_none_or(|list| list.is_empty())).await;
    assert!(plan::consumers(&now()).is_empty());
}

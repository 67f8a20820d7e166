//! Pods go when their devices have taints that they don't bear, at the time at which they don't, and rules are told.

use super::plan::{self, Counts, Eviction};
use super::run;
use crate::testing::Cluster;
use futures::FutureExt;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::Pod;
use pintle_types::k8s::api::resource::v1::{DeviceTaint, ResourceClaim, ResourceSlice};
use pintle_types::k8s::api::resource::v1beta2::DeviceTaintRule;
use serde_json::{Value, json};
use std::sync::Arc;

/// When the tests begin.
const START: &str = "2023-11-14T22:13:20Z";
const START_SECOND: i64 = 1_700_000_000;

fn claim(tolerations: Value) -> Value {
    let device = json!({
        "request": "r", "driver": "gpu.example.com", "pool": "m", "device": "gpu-0", "tolerations": tolerations,
    });
    json!({
        "metadata": { "name": "gpu", "namespace": "d" },
        "spec": {},
        "status": { "allocation": { "devices": { "results": [device] } } },
    })
}

fn rule(name: &str, effect: &str, selector: Value) -> Value {
    let taint = json!({ "key": "broken", "effect": effect, "timeAdded": START });
    json!({ "metadata": { "name": name, "generation": 1 }, "spec": { "deviceSelector": selector, "taint": taint } })
}

/// Seconds after the taint was added at which the claim's pods go, with the rules that have to do with it.
fn check(tolerations: Value, taints: Value, rules: &[Value]) -> Option<(i64, Vec<String>)> {
    let claim = ResourceClaim::from_value(claim(tolerations)).unwrap();
    let taints: Vec<DeviceTaint> = serde_json::from_value(taints).unwrap();
    let rules: Vec<Arc<DeviceTaintRule>> =
        rules.iter().map(|rule| Arc::new(DeviceTaintRule::from_value(rule.clone()).unwrap())).collect();
    let Eviction { at, rules } = plan::eviction(&claim, |_| taints.clone(), &rules)?;
    Some((at.as_second() - START_SECOND, rules.into_iter().collect()))
}

#[test]
fn tolerations_say_how_long_a_taint_is_borne() {
    let taint = |effect: &str| json!([{ "key": "broken", "value": "yes", "effect": effect, "timeAdded": START }]);
    let bears = |more: Value| {
        let mut toleration = json!({ "key": "broken", "operator": "Exists", "effect": "NoExecute" });
        more.as_object().unwrap().iter().for_each(|(field, value)| toleration[field] = value.clone());
        toleration
    };
    let execute = || taint("NoExecute");
    assert_eq!(check(json!([]), execute(), &[]), Some((0, vec![])));
    assert_eq!(check(json!([]), taint("NoSchedule"), &[]), None);
    assert_eq!(check(json!([]), json!([{ "key": "broken", "effect": "NoExecute" }]), &[]), None, "never added");
    assert_eq!(check(json!([bears(json!({}))]), execute(), &[]), None);
    assert_eq!(check(json!([bears(json!({ "key": "other" }))]), execute(), &[]), Some((0, vec![])));
    assert_eq!(check(json!([bears(json!({ "effect": null }))]), execute(), &[]), Some((0, vec![])));
    assert_eq!(check(json!([bears(json!({ "operator": "Equal", "value": "yes" }))]), execute(), &[]), None);
    let long = bears(json!({ "tolerationSeconds": 300 }));
    assert_eq!(check(json!([long]), execute(), &[]), Some((300, vec![])));
    let short = bears(json!({ "tolerationSeconds": 60 }));
    assert_eq!(check(json!([long, short]), execute(), &[]), Some((60, vec![])));
    assert_eq!(check(json!([bears(json!({ "tolerationSeconds": -1 }))]), execute(), &[]), Some((0, vec![])));
}

#[test]
fn rules_taint_the_devices_that_they_select() {
    let by = |selector: Value| check(json!([]), json!([]), &[rule("broken", "NoExecute", selector)]).is_some();
    assert!(by(json!({})), "all devices");
    assert!(!by(Value::Null), "none");
    assert!(by(json!({ "driver": "gpu.example.com" })));
    assert!(by(json!({ "driver": "gpu.example.com", "pool": "m", "device": "gpu-0" })));
    assert!(!by(json!({ "driver": "gpu.example.com", "device": "gpu-1" })));
    let both = [rule("b", "NoExecute", json!({})), rule("a", "NoExecute", json!({ "pool": "m" }))];
    assert_eq!(check(json!([]), json!([]), &both), Some((0, vec!["a".into(), "b".into()])));
}

#[test]
fn rules_are_told_what_they_came_to() {
    let check = |effect: &str, counts: Counts, expected: (&str, &str, &str)| {
        let (status, reason, message) = plan::condition(effect, counts);
        assert_eq!((status, reason, message.as_str()), expected);
    };
    let none = Counts::default();
    check("NoExecute", none, ("False", "NotStarted", ""));
    let one = Counts { pods: 1, namespaces: 1, ..none };
    check("NoExecute", one, ("True", "PodsPendingEviction", "1 pod needs to be evicted in 1 namespace."));
    let some = Counts { pods: 3, namespaces: 2, evicted: 1, ..none };
    let words = "3 pods need to be evicted in 2 different namespaces. 1 pod evicted since starting the controller.";
    check("NoExecute", some, ("True", "PodsPendingEviction", words));
    let done = Counts { evicted: 4, ..none };
    check("NoExecute", done, ("False", "Completed", "4 pods evicted since starting the controller."));
    check("NoSchedule", none, ("False", "OtherEffect", "Eviction only happens for the NoExecute effect."));
    let would = Counts { pods: 1, namespaces: 1, published: 2, allocated: 1, ..none };
    let words = "2 published devices selected. 1 allocated device selected. 1 pod would be evicted in 1 namespace if \
                 the effect was NoExecute. This information will not be updated again. Recreate the DeviceTaintRule \
                 to trigger an update.";
    check("None", would, ("False", "NoEffect", words));
}

fn slice(taints: Value) -> Value {
    json!({
        "metadata": { "name": "m-gpus" },
        "spec": {
            "driver": "gpu.example.com", "nodeName": "m",
            "pool": { "name": "m", "generation": 1, "resourceSliceCount": 1 },
            "devices": [{ "name": "gpu-0", "taints": taints }],
        },
    })
}

/// A pod that runs with a claimed device, whose taints these are. Rules are served when `ruled`.
async fn cluster(ruled: bool, tolerations: Value, taints: Value) -> Cluster {
    let cluster = Cluster::new();
    if ruled {
        cluster.api.serve("/apis/resource.k8s.io/v1beta2", json!({ "kind": "APIResourceList", "resources": [] }));
    }
    let cluster = cluster.start(|context| {
        let teller = context.client.clone();
        run(context, teller).boxed()
    });
    let pod = json!({
        "metadata": { "name": "user", "namespace": "d" },
        "spec": {
            "nodeName": "m", "containers": [],
            "resourceClaims": [{ "name": "gpu", "resourceClaimName": "gpu" }],
        },
    });
    let pod: Pod = cluster.create(pod).await;
    cluster.create::<ResourceSlice>(slice(taints)).await;
    let mut claim = claim(tolerations);
    claim["status"]["reservedFor"] = json!([{ "resource": "pods", "name": "user", "uid": pod.uid() }]);
    cluster.create::<ResourceClaim>(claim).await;
    cluster
}

fn is_there(cluster: &Cluster) -> bool {
    cluster.api.get::<Pod>("d", "user").is_some_and(|pod| !pod.is_deleting())
}

#[tokio::test(start_paused = true)]
async fn a_pod_goes_when_its_device_is_tainted_for_longer_than_it_bears() {
    let bears = json!([{ "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60 }]);
    let taint = json!([{ "key": "broken", "effect": "NoExecute", "timeAdded": START }]);
    let cluster = cluster(false, bears, json!([])).await;
    cluster.pass(5.0).await;
    assert!(is_there(&cluster));
    cluster.change::<ResourceSlice>("", "m-gpus", |it| *it = ResourceSlice::from_value(slice(taint.clone())).unwrap());
    cluster.pass(20.0).await;
    assert!(is_there(&cluster), "it bears that for a while");
    cluster.change::<ResourceSlice>("", "m-gpus", |it| *it = ResourceSlice::from_value(slice(json!([]))).unwrap());
    let words = "DeviceTaintManagerEviction: Cancelling deletion";
    cluster.until("it may stay", |_| cluster.events() == [words]).await;
    cluster.pass(60.0).await;
    assert!(is_there(&cluster));
    cluster.change::<ResourceSlice>("", "m-gpus", |it| *it = ResourceSlice::from_value(slice(taint)).unwrap());
    cluster.until("it goes", |_| !is_there(&cluster)).await;
    let words = "DeviceTaintManagerEviction: Marking for deletion";
    cluster.until("it is told", |_| cluster.events().iter().any(|event| event == words)).await;
}

#[tokio::test(start_paused = true)]
async fn a_rule_is_told_of_the_pods_that_it_evicts() {
    let cluster = cluster(true, json!([]), json!([])).await;
    cluster.pass(1.0).await;
    let selector = json!({ "driver": "gpu.example.com" });
    cluster.create::<DeviceTaintRule>(rule("broken", "NoExecute", selector)).await;
    cluster.until("the pod goes", |_| !is_there(&cluster)).await;
    let told = || {
        let status = cluster.api.get::<DeviceTaintRule>("", "broken")?.status?;
        status.conditions?.first().map(|condition| (condition.reason.clone(), condition.message.clone()))
    };
    let words = "1 pod evicted since starting the controller.";
    cluster.until("it is told", |_| told() == Some(("Completed".to_owned(), words.to_owned()))).await;
}

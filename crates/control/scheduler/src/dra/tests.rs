//! Tables of claims, classes and slices, and the allocations and refusals that must follow.

use super::allocator::{Failure, allocate};
use super::devices::Devices;
use super::{conditions, reserve};
use crate::hints::{Event, helps};
use crate::snapshot::NodeInfo;
use crate::tests::{merge, node, pod, schedule, snapshot};
use crate::{Plugins, PodInfo, Snapshot, filter::Plugin};
use pintle_types::k8s::api::resource::v1::{AllocationResult, DeviceClass, ResourceClaim, ResourceSlice};
use pintle_types::k8s::api::resource::v1beta2::DeviceTaintRule;
use pintle_types::{Kind, ObjectKey};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use std::sync::Arc;

const DRIVER: &str = "gpu.example.com";

/// Devices of `node-a`, in a pool of its own.
fn slice(name: &str, devices: Value, more: Value) -> Value {
    let mut value = json!({
        "metadata": { "name": name },
        "spec": {
            "driver": DRIVER, "pool": { "name": "a", "generation": 1, "resourceSliceCount": 1 },
            "nodeName": "node-a", "devices": devices,
        },
    });
    merge(&mut value, more);
    value
}

fn gpu(name: &str, model: &str, numa: i64, memory: &str) -> Value {
    json!({
        "name": name,
        "attributes": { "model": { "string": model }, "numa": { "int": numa } },
        "capacity": { "memory": { "value": memory } },
    })
}

fn gpus() -> Value {
    json!([gpu("gpu-0", "small", 0, "10Gi"), gpu("gpu-1", "large", 0, "40Gi"), gpu("gpu-2", "large", 1, "40Gi")])
}

fn claim(name: &str, requests: Value, more: Value) -> Value {
    let mut value = json!({
        "metadata": { "name": name, "namespace": "default", "uid": format!("uid-{name}") },
        "spec": { "devices": { "requests": requests } },
    });
    merge(&mut value, more);
    value
}

fn exactly(name: &str, more: Value) -> Value {
    let mut value = json!({ "deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1 });
    merge(&mut value, more);
    json!({ "name": name, "exactly": value })
}

fn cel(expression: &str) -> Value {
    json!({ "selectors": [{ "cel": { "expression": expression } }] })
}

fn class(name: &str, expression: &str) -> Value {
    json!({ "metadata": { "name": name }, "spec": cel(expression) })
}

fn fill(devices: &mut Devices, slices: &[Value], claims: &[Value]) {
    let all = format!("device.driver == '{DRIVER}'");
    for value in [class("gpu", &all), class("large", "device.attributes['gpu.example.com'].model == 'large'")] {
        let class = DeviceClass::from_value(value).unwrap();
        let name = class.name().to_owned();
        devices.set_class(&name, Some(Arc::new(class)));
    }
    for value in slices {
        let slice = ResourceSlice::from_value(value.clone()).unwrap();
        let name = slice.name().to_owned();
        devices.set_slice(&name, Some(Arc::new(slice)));
    }
    for value in claims {
        let claim = ResourceClaim::from_value(value.clone()).unwrap();
        devices.set_claim(&claim.key(), Some(Arc::new(claim)));
    }
    devices.ready = true;
}

fn devices(slices: &[Value], claims: &[Value]) -> Devices {
    let mut out = Devices::default();
    fill(&mut out, slices, claims);
    out
}

fn node_a() -> NodeInfo {
    NodeInfo::alone(&node("node-a", json!({ "metadata": { "labels": { "zone": "z1" } } })))
}

fn try_on(node: &NodeInfo, devices: &Devices, claims: &[Value]) -> Result<Option<Vec<AllocationResult>>, Failure> {
    let parsed: Vec<ResourceClaim> = claims.iter().map(|c| ResourceClaim::from_value(c.clone()).unwrap()).collect();
    allocate(node, &parsed.iter().collect::<Vec<_>>(), devices)
}

/// `request=device` of each claim.
fn chosen(results: &[AllocationResult]) -> Vec<Vec<String>> {
    let of = |result: &AllocationResult| {
        let devices = result.devices.iter().flat_map(|devices| devices.results.iter().flatten());
        devices.map(|device| format!("{}={}", device.request, device.device)).collect()
    };
    results.iter().map(of).collect()
}

/// On `node-a`; nothing when there is no allocation.
#[track_caller]
fn check(devices: &Devices, claims: &[Value], expected: &[&[&str]]) {
    let found = try_on(&node_a(), devices, claims).unwrap();
    assert_eq!(found.map(|results| chosen(&results)).unwrap_or_default(), expected);
}

#[test]
fn requests_get_the_first_devices_that_suit() {
    let devices = devices(&[slice("s", gpus(), json!({}))], &[]);
    let large = cel("device.attributes['gpu.example.com'].model == 'large'");
    let roomy = cel("device.capacity['gpu.example.com'].memory.compareTo(quantity('20Gi')) >= 0");
    for (requests, expected) in [
        (json!([exactly("r", json!({}))]), &[&["r=gpu-0"][..]][..]),
        (json!([exactly("r", large.clone())]), &[&["r=gpu-1"]]),
        (json!([exactly("r", roomy)]), &[&["r=gpu-1"]]),
        (json!([exactly("r", json!({ "deviceClassName": "large" }))]), &[&["r=gpu-1"]]),
        (json!([exactly("r", json!({ "count": 2 }))]), &[&["r=gpu-0", "r=gpu-1"]]),
        (json!([exactly("r", json!({ "count": 4 }))]), &[]),
        // The first request goes on when the second needs what it took.
        (
            json!([
                exactly("any", json!({ "count": 2 })),
                exactly(
                    "s",
                    cel(
                        "device.attributes['gpu.example.com'].numa == 0 && device.attributes['gpu.example.com'].model == 'large'"
                    )
                )
            ]),
            &[&["any=gpu-0", "any=gpu-2", "s=gpu-1"]],
        ),
        (json!([exactly("r", json!({ "allocationMode": "All" }))]), &[&["r=gpu-0", "r=gpu-1", "r=gpu-2"]]),
        (
            json!([exactly("r", json!({ "allocationMode": "All", "deviceClassName": "large" }))]),
            &[&["r=gpu-1", "r=gpu-2"]],
        ),
        (json!([exactly("a", json!({})), exactly("r", json!({ "allocationMode": "All" }))]), &[]),
    ] {
        check(&devices, &[claim("c", requests, json!({}))], expected);
    }
    let two = [
        claim("c", json!([exactly("r", large.clone())]), json!({})),
        claim("d", json!([exactly("r", large)]), json!({})),
    ];
    check(&devices, &two, &[&["r=gpu-1"], &["r=gpu-2"]]);
}

#[test]
fn alternatives_are_tried_in_order() {
    let devices = devices(&[slice("s", gpus(), json!({}))], &[]);
    let sub = |name: &str, class: &str, count: i64| json!({ "name": name, "deviceClassName": class, "allocationMode": "ExactCount", "count": count });
    let request = |first: Value, second: Value| json!([{ "name": "r", "firstAvailable": [first, second] }]);
    check(
        &devices,
        &[claim("c", request(sub("a", "large", 2), sub("b", "gpu", 1)), json!({}))],
        &[&["r/a=gpu-1", "r/a=gpu-2"]],
    );
    check(&devices, &[claim("c", request(sub("a", "large", 3), sub("b", "gpu", 1)), json!({}))], &[&["r/b=gpu-0"]]);
}

#[test]
fn constraints_hold_devices_together_or_apart() {
    let devices = devices(&[slice("s", gpus(), json!({}))], &[]);
    let constrained = |constraint: Value, count: i64| {
        let more = json!({ "spec": { "devices": { "constraints": [constraint] } } });
        claim("c", json!([exactly("r", json!({ "count": count }))]), more)
    };
    let model = format!("{DRIVER}/model");
    check(&devices, &[constrained(json!({ "matchAttribute": model }), 2)], &[&["r=gpu-1", "r=gpu-2"]]);
    check(&devices, &[constrained(json!({ "matchAttribute": model }), 3)], &[]);
    check(&devices, &[constrained(json!({ "matchAttribute": format!("{DRIVER}/none") }), 1)], &[]);
    check(
        &devices,
        &[constrained(json!({ "matchAttribute": model, "requests": ["other"] }), 2)],
        &[&["r=gpu-0", "r=gpu-1"]],
    );
    check(
        &devices,
        &[constrained(json!({ "distinctAttribute": format!("{DRIVER}/numa") }), 2)],
        &[&["r=gpu-0", "r=gpu-2"]],
    );
}

fn allocated(name: &str, device: &str, more: Value) -> Value {
    let mut result = json!({ "request": "r", "driver": DRIVER, "pool": "a", "device": device });
    merge(&mut result, more);
    claim(
        name,
        json!([exactly("r", json!({}))]),
        json!({ "status": { "allocation": { "devices": { "results": [result] } } } }),
    )
}

#[test]
fn devices_of_others_are_left_alone_but_by_administrators() {
    let taken = [allocated("x", "gpu-0", json!({})), allocated("y", "gpu-1", json!({ "adminAccess": true }))];
    let mut devices = devices(&[slice("s", gpus(), json!({}))], &taken);
    let plain = claim("c", json!([exactly("r", json!({}))]), json!({}));
    check(&devices, std::slice::from_ref(&plain), &[&["r=gpu-1"]]);
    check(&devices, &[claim("c", json!([exactly("r", json!({ "adminAccess": true }))]), json!({}))], &[&["r=gpu-0"]]);
    devices.set_claim(&ObjectKey::new("default", "x"), None);
    check(&devices, &[plain], &[&["r=gpu-0"]]);
}

#[test]
fn tainted_devices_need_tolerations() {
    let mut all = gpus();
    for device in all.as_array_mut().unwrap() {
        device["taints"] = json!([{ "key": "broken", "value": "fan", "effect": "NoSchedule" }]);
    }
    all[2]["taints"][0]["effect"] = json!("None");
    let devices = devices(&[slice("s", all, json!({}))], &[]);
    let tolerant =
        |toleration: Value| claim("c", json!([exactly("r", json!({ "tolerations": [toleration] }))]), json!({}));
    check(&devices, &[claim("c", json!([exactly("r", json!({}))]), json!({}))], &[&["r=gpu-2"]]);
    check(&devices, &[tolerant(json!({ "operator": "Exists" }))], &[&["r=gpu-0"]]);
    check(&devices, &[tolerant(json!({ "key": "broken", "operator": "Equal", "value": "fan" }))], &[&["r=gpu-0"]]);
    check(&devices, &[tolerant(json!({ "key": "broken", "operator": "Equal", "value": "bolt" }))], &[&["r=gpu-2"]]);
}

#[test]
fn rules_taint_devices_like_their_drivers() {
    let mut all = gpus();
    all[0]["taints"] = json!([{ "key": "own", "effect": "NoSchedule" }]);
    let slices = [slice("s", all, json!({}))];
    let rule = |effect: &str, selector: Value| {
        let taint = json!({ "key": "broken", "value": "fan", "effect": effect });
        let rule = json!({ "metadata": { "name": "r" }, "spec": { "deviceSelector": selector, "taint": taint } });
        Arc::new(DeviceTaintRule::from_value(rule).unwrap())
    };
    let ask = |tolerations: Value| claim("c", json!([exactly("r", json!({ "tolerations": tolerations }))]), json!({}));
    let broken = || json!({ "key": "broken", "operator": "Exists" });
    for (effect, selector, tolerations, expected) in [
        ("NoSchedule", json!({ "driver": DRIVER, "pool": "a", "device": "gpu-1" }), json!([]), &[&["r=gpu-2"][..]][..]),
        ("NoExecute", json!({ "device": "gpu-1" }), json!([]), &[&["r=gpu-2"]]),
        ("None", json!({ "device": "gpu-1" }), json!([]), &[&["r=gpu-1"]]),
        ("NoSchedule", Value::Null, json!([]), &[&["r=gpu-1"]]),
        ("NoSchedule", json!({ "driver": "other.example.com" }), json!([]), &[&["r=gpu-1"]]),
        ("NoSchedule", json!({ "pool": "b" }), json!([]), &[&["r=gpu-1"]]),
        ("NoSchedule", json!({}), json!([]), &[]),
        ("NoSchedule", json!({}), json!([broken()]), &[&["r=gpu-1"]]),
        // A device has the taints of its driver, too.
        ("NoSchedule", json!({}), json!([broken(), { "key": "own", "operator": "Exists" }]), &[&["r=gpu-0"]]),
    ] {
        let mut devices = devices(&slices, &[]);
        devices.set_rule("r", Some(rule(effect, selector)));
        check(&devices, &[ask(tolerations.clone())], expected);
        devices.set_rule("r", None);
        check(&devices, &[ask(json!([]))], &[&["r=gpu-1"]]);
    }
}

#[test]
fn partitions_share_counters() {
    let part = |name: &str, memory: &str| json!({ "name": name, "consumesCounters": [{ "counterSet": "card", "counters": { "memory": { "value": memory } } }] });
    let counters = json!({ "spec": {
        "pool": { "resourceSliceCount": 2 },
        "sharedCounters": [{ "name": "card", "counters": { "memory": { "value": "40Gi" } } }],
    } });
    let sets = slice("sets", json!([]), counters);
    let parts = json!([part("whole", "40Gi"), part("half-0", "20Gi"), part("half-1", "20Gi"), part("third", "13Gi")]);
    let parts = slice("parts", parts, json!({ "spec": { "pool": { "resourceSliceCount": 2 } } }));
    let ask = |count: i64| claim("c", json!([exactly("r", json!({ "count": count }))]), json!({}));
    let slices = [sets, parts];
    check(&devices(&slices, &[]), &[ask(1)], &[&["r=whole"]]);
    check(&devices(&slices, &[]), &[ask(2)], &[&["r=half-0", "r=half-1"]]);
    check(&devices(&slices, &[]), &[ask(3)], &[]);
    check(&devices(&slices, &[allocated("x", "third", json!({}))]), &[ask(1)], &[&["r=half-0"]]);
    check(&devices(&slices, &[allocated("x", "whole", json!({}))]), &[ask(1)], &[]);
}

#[test]
fn capacity_is_shared_by_what_is_asked_for() {
    let shared = json!([{
        "name": "nic", "allowMultipleAllocations": true,
        "capacity": { "bandwidth": { "value": "10G", "requestPolicy": {
            "default": "1G", "validRange": { "min": "1G", "max": "8G", "step": "2G" },
        } } },
    }]);
    let devices = devices(
        &[slice("s", shared, json!({}))],
        &[allocated("x", "nic", json!({ "shareID": "s", "consumedCapacity": { "bandwidth": "5G" } }))],
    );
    let ask = |amount: &str| {
        claim("c", json!([exactly("r", json!({ "capacity": { "requests": { "bandwidth": amount } } }))]), json!({}))
    };
    let consumed = |claims: &[Value]| {
        let found = try_on(&node_a(), &devices, claims).unwrap().unwrap_or_default();
        let all = found.iter().flat_map(|r| r.devices.iter().flat_map(|d| d.results.iter().flatten()));
        all.map(|d| d.consumed_capacity.as_ref().unwrap()["bandwidth"].0.clone()).collect::<Vec<_>>()
    };
    assert_eq!(consumed(&[ask("500M")]), ["1G"]);
    assert_eq!(consumed(&[ask("2500M")]), ["3G"]);
    assert_eq!(consumed(&[ask("3G"), ask("2G")]), [""; 0], "3G and 3G beside 5G");
    assert_eq!(consumed(&[ask("3G"), ask("1G")]), ["3G", "1G"]);
    assert_eq!(consumed(&[claim("c", json!([exactly("r", json!({}))]), json!({}))]), ["1G"]);
    check(&devices, &[ask("9G")], &[]);
}

#[test]
fn pools_are_their_newest_generation() {
    let newer = json!({ "spec": { "pool": { "generation": 2 } } });
    let new = slice("new", json!([gpu("gpu-9", "small", 0, "1Gi")]), newer.clone());
    let plain = claim("c", json!([exactly("r", json!({}))]), json!({}));
    check(&devices(&[slice("s", gpus(), json!({})), new], &[]), std::slice::from_ref(&plain), &[&["r=gpu-9"]]);
    // A pool whose slices are not all there is not used, and "all" of it is an error.
    let half = slice("s", gpus(), json!({ "spec": { "pool": { "resourceSliceCount": 2 } } }));
    check(&devices(std::slice::from_ref(&half), &[]), std::slice::from_ref(&plain), &[]);
    let all = claim("c", json!([exactly("r", json!({ "allocationMode": "All" }))]), json!({}));
    let words = "claim default/c, request r: asks for all devices, but resource pool gpu.example.com/a is currently being \
                 updated";
    assert_eq!(try_on(&node_a(), &devices(&[half], &[]), &[all]), Err(Failure::Wrong(words.to_owned())));
    let twice = slice("s", json!([gpu("gpu-0", "x", 0, "1"), gpu("gpu-0", "x", 0, "1")]), json!({}));
    assert_eq!(try_on(&node_a(), &devices(&[twice], &[]), &[plain]), Err(Failure::InvalidPools));
}

#[test]
fn allocations_say_where_they_can_be_used() {
    let term = json!([{ "matchExpressions": [{ "key": "zone", "operator": "In", "values": ["z1"] }] }]);
    let by_label = json!({ "nodeName": null, "nodeSelector": { "nodeSelectorTerms": term } });
    let own = json!({ "nodeSelectorTerms": [
        { "matchFields": [{ "key": "metadata.name", "operator": "In", "values": ["node-a"] }] },
    ] });
    let mut local = gpus();
    local[1]["nodeName"] = json!("node-a");
    for (spec, devices_there, expected) in [
        (json!({}), gpus(), own.clone()),
        (by_label, gpus(), json!({ "nodeSelectorTerms": term })),
        (json!({ "nodeName": null, "allNodes": true }), gpus(), Value::Null),
        (json!({ "nodeName": null, "perDeviceNodeSelection": true }), local, own),
    ] {
        let devices = devices(&[slice("s", devices_there, json!({ "spec": spec }))], &[]);
        let plain = claim("c", json!([exactly("r", json!({}))]), json!({}));
        let results = try_on(&node_a(), &devices, &[plain]).unwrap().unwrap();
        assert_eq!(serde_json::to_value(&results[0].node_selector).unwrap(), expected);
    }
    let elsewhere = NodeInfo::alone(&node("node-b", json!({})));
    let devices = devices(&[slice("s", gpus(), json!({}))], &[]);
    let plain = claim("c", json!([exactly("r", json!({}))]), json!({}));
    assert_eq!(try_on(&elsewhere, &devices, &[plain]), Ok(None));
}

#[test]
fn configuration_of_classes_and_claims_goes_along() {
    let opaque = |text: &str| json!({ "driver": DRIVER, "parameters": { "is": text } });
    let mut devices = devices(&[slice("s", gpus(), json!({}))], &[]);
    let with = json!({ "metadata": { "name": "gpu" }, "spec": { "config": [{ "opaque": opaque("class") }] } });
    devices.set_class("gpu", Some(Arc::new(DeviceClass::from_value(with).unwrap())));
    let config = json!([{ "requests": ["a"], "opaque": opaque("a") }, { "opaque": opaque("all") }, { "requests": ["x"], "opaque": opaque("x") }]);
    let more = json!({ "spec": { "devices": { "config": config } } });
    let asked = claim("c", json!([exactly("a", json!({})), exactly("b", json!({}))]), more);
    let results = try_on(&node_a(), &devices, &[asked]).unwrap().unwrap();
    let found = serde_json::to_value(&results[0].devices.as_ref().unwrap().config).unwrap();
    let expected = json!([
        { "source": "FromClass", "opaque": opaque("class") },
        { "source": "FromClaim", "requests": ["a"], "opaque": opaque("a") },
        { "source": "FromClaim", "opaque": opaque("all") },
    ]);
    assert_eq!(found, expected);
}

#[test]
fn selectors_that_fail_are_told() {
    let devices = devices(&[slice("s", gpus(), json!({}))], &[]);
    let wrong = claim("c", json!([exactly("r", cel("device.attributes['gpu.example.com'].missing == 1"))]), json!({}));
    let Err(Failure::Wrong(words)) = try_on(&node_a(), &devices, &[wrong]) else { panic!("it did not fail") };
    let expected =
        "claim default/c: selector #0 on device gpu.example.com/a/gpu-0: CEL runtime error: no such key: missing";
    assert!(words.starts_with(expected), "{words}");
}

#[test]
fn a_search_without_end_is_given_up() {
    let many: Vec<Value> = (0..128).map(|i| gpu(&format!("gpu-{i}"), "x", i, "1Gi")).collect();
    let devices = devices(&[slice("s", Value::Array(many), json!({}))], &[]);
    let impossible = cel("device.attributes['gpu.example.com'].numa > 1000");
    let requests = json!([exactly("a", json!({ "count": 10 })), exactly("b", impossible)]);
    assert_eq!(try_on(&node_a(), &devices, &[claim("c", requests, json!({}))]), Err(Failure::TooLong));
}

fn world(claims: &[Value]) -> Snapshot {
    let mut snapshot = snapshot(&[node("node-a", json!({})), node("node-b", json!({}))], &[]);
    fill(snapshot.devices_mut(), &[slice("s", gpus(), json!({}))], claims);
    snapshot
}

fn user(claim: &str) -> Arc<PodInfo> {
    pod(
        "p",
        json!({
            "metadata": { "uid": "uid-p" },
            "spec": { "resourceClaims": [{ "name": "gpu", "resourceClaimName": claim }] },
        }),
    )
}

#[test]
fn pods_go_where_their_devices_are() {
    let plain = claim("c", json!([exactly("r", json!({}))]), json!({}));
    let many = claim("many", json!([exactly("r", json!({ "count": 4 }))]), json!({}));
    let classless = claim("classless", json!([exactly("r", json!({ "deviceClassName": "none" }))]), json!({}));
    let away = json!({ "status": { "allocation": { "nodeSelector": { "nodeSelectorTerms": [
        { "matchFields": [{ "key": "metadata.name", "operator": "In", "values": ["node-z"] }] },
    ] } } } });
    let away = claim("away", json!([exactly("r", json!({}))]), away);
    let others: Vec<Value> =
        (0..256).map(|i| json!({ "resource": "pods", "name": "x", "uid": i.to_string() })).collect();
    let used = claim(
        "used",
        json!([exactly("r", json!({}))]),
        json!({ "status": { "allocation": {}, "reservedFor": others } }),
    );
    let world = world(&[plain, many, classless, away, used]);
    for (name, expected) in [
        ("c", Ok("node-a")),
        ("many", Err("0/2 nodes are available: 2 cannot allocate all claims.")),
        ("classless", Err("0/2 nodes are available: request r: device class none does not exist.")),
        ("away", Err("0/2 nodes are available: 2 resourceclaim not available on the node.")),
        ("used", Err("0/2 nodes are available: resourceclaim in use.")),
        ("gone", Err("0/2 nodes are available: resourceclaim.resource.k8s.io \"gone\" not found.")),
    ] {
        let result = schedule(&user(name), &world, 0, &mut StdRng::seed_from_u64(1)).map_err(|m| m.to_string());
        assert_eq!(result.as_ref().map(|n| *n).map_err(String::as_str), expected);
    }
    let made = pod("p", json!({ "spec": { "resourceClaims": [{ "name": "gpu", "resourceClaimTemplateName": "t" }] } }));
    let words = super::names(&made).unwrap_err();
    assert_eq!(words, "pod \"default/p\": ResourceClaim not created yet");
}

#[test]
fn what_is_reserved_is_taken_until_the_claim_says_so() {
    let plain = |name| claim(name, json!([exactly("r", json!({ "count": 2 }))]), json!({}));
    let mut world = world(&[plain("c"), plain("d")]);
    let mut random = StdRng::seed_from_u64(1);
    reserve(&user("c"), "node-a", &mut world, &mut random).unwrap().unwrap();
    let refused = |world: &Snapshot, name: &str| {
        schedule(&user(name), world, 0, &mut StdRng::seed_from_u64(1)).map(str::to_owned).map_err(|m| m.to_string())
    };
    assert_eq!(refused(&world, "d"), Err("0/2 nodes are available: 2 cannot allocate all claims.".to_owned()));
    let words = "0/2 nodes are available: resource claim default/c is in the process of being allocated.";
    assert_eq!(refused(&world, "c"), Err(words.to_owned()));
    let known = ResourceClaim::clone(world.devices().claim(&ObjectKey::new("default", "c")).unwrap());
    world.devices_mut().release(&known);
    assert_eq!(refused(&world, "d"), Ok("node-a".to_owned()));
}

#[test]
fn news_of_devices_bring_back_whom_they_could_help() {
    let mut refused_by = Plugins::default();
    refused_by.insert(Plugin::DynamicResources);
    let changed = |name: &str, freed| Event::DeviceClaimChanged { claim: ObjectKey::new("default", name), freed };
    let waiting = user("c");
    for (event, expected) in [
        (Event::DevicesChanged, true),
        (changed("c", false), true),
        (changed("x", false), false),
        (changed("x", true), true),
        (Event::PodGone(user("c"), None), false),
        (Event::StorageChanged, false),
    ] {
        assert_eq!(helps(&event, refused_by, &waiting), expected, "{event:?}");
    }
}

/// A pod that asks for an amount of a resource.
fn asks_for(resource: &str, amount: &str) -> Arc<PodInfo> {
    let requests = json!({ "cpu": "100m", resource: amount });
    let container = json!({ "name": "c", "resources": { "requests": requests } });
    pod("p", json!({ "metadata": { "uid": "uid-p" }, "spec": { "containers": [container] } }))
}

#[test]
fn resources_that_are_devices_are_found_where_the_devices_are() {
    let mut world = world(&[]);
    let counted = node("node-c", json!({ "status": { "allocatable": { "example.com/gpu": "1" } } }));
    world.set_node(counted);
    let find = |world: &Snapshot, resource: &str, amount: &str| {
        let pod = asks_for(resource, amount);
        schedule(&pod, world, 0, &mut StdRng::seed_from_u64(1)).map(str::to_owned).map_err(|misfit| misfit.to_string())
    };
    let refused = |words: &str| Err(format!("0/3 nodes are available: {words}."));
    // Nobody says yet what it is.
    assert_eq!(find(&world, "example.com/gpu", "2"), refused("3 Insufficient example.com/gpu"));
    assert_eq!(find(&world, "example.com/gpu", "1"), Ok("node-c".into()));
    let mut named = class("named", &format!("device.driver == '{DRIVER}'"));
    named["spec"]["extendedResourceName"] = "example.com/gpu".into();
    let named = DeviceClass::from_value(named).unwrap();
    world.devices_mut().set_class("named", Some(Arc::new(named)));
    assert_eq!(find(&world, "example.com/gpu", "2"), Ok("node-a".into()));
    let words = "1 Insufficient example.com/gpu, 2 cannot allocate all claims";
    assert_eq!(find(&world, "example.com/gpu", "4"), refused(words));
    assert_eq!(find(&world, "deviceclass.resource.kubernetes.io/large", "2"), Ok("node-a".into()));
    assert_eq!(find(&world, "deviceclass.resource.kubernetes.io/large", "3"), refused("3 cannot allocate all claims"));
    assert_eq!(find(&world, "example.com/other", "1"), refused("3 Insufficient example.com/other"));
    // What is promised to the pod is taken.
    let mut random = StdRng::seed_from_u64(1);
    let pod = asks_for("example.com/gpu", "2");
    reserve(&pod, "node-a", &mut world, &mut random).unwrap().unwrap();
    assert!(find(&world, "example.com/gpu", "2").is_err());
    // A claim of an earlier attempt has to go first.
    let left = json!({
        "metadata": {
            "annotations": { "resource.kubernetes.io/extended-resource-claim": "true" },
            "ownerReferences": [{ "apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "uid-p", "controller": true }],
        },
    });
    let left = ResourceClaim::from_value(claim("left", json!([]), left)).unwrap();
    world.devices_mut().set_claim(&left.key(), Some(Arc::new(left.clone())));
    let words = "1 Insufficient example.com/gpu, 2 cannot schedule extended resource claim";
    assert_eq!(find(&world, "example.com/gpu", "2"), refused(words));
    world.devices_mut().set_claim(&left.key(), None);
    assert!(!find(&world, "example.com/gpu", "2").unwrap_err().contains("cannot schedule"));
}

#[test]
fn the_newest_class_says_what_a_resource_is() {
    let mut devices = Devices::default();
    for (name, created) in [("b", "2026-01-01T00:00:00Z"), ("c", "2026-01-02T00:00:00Z"), ("a", "2026-01-02T00:00:00Z")]
    {
        let value = json!({
            "metadata": { "name": name, "creationTimestamp": created },
            "spec": { "extendedResourceName": "example.com/gpu" },
        });
        devices.set_class(name, Some(Arc::new(DeviceClass::from_value(value).unwrap())));
    }
    assert_eq!(devices.class_of("example.com/gpu"), Some("a"));
    devices.set_class("a", None);
    assert_eq!(devices.class_of("example.com/gpu"), Some("c"));
    assert_eq!(devices.class_of("deviceclass.resource.kubernetes.io/b"), Some("b"));
    assert_eq!(devices.class_of("deviceclass.resource.kubernetes.io/a"), None);
}

/// A claim whose device is to be attached first, and what its driver says of that.
fn attaching(conditions: Value) -> ResourceClaim {
    let device = json!({
        "request": "r", "driver": DRIVER, "pool": "a", "device": "gpu-0",
        "bindingConditions": ["attached", "ready"], "bindingFailureConditions": ["broken"],
    });
    let status = json!({
        "allocation": { "allocationTimestamp": "2026-01-01T00:00:00Z", "devices": { "results": [device] } },
        "devices": conditions,
    });
    ResourceClaim::from_value(claim("c", json!([exactly("r", json!({}))]), json!({ "status": status }))).unwrap()
}

fn says(conditions: &[(&str, &str)]) -> Value {
    let time = "2026-01-01T00:00:00Z";
    let one = |(name, status): &(&str, &str)| json!({ "type": name, "status": status, "reason": "Why", "message": "so", "lastTransitionTime": time });
    let conditions: Vec<Value> = conditions.iter().map(one).collect();
    json!([{ "driver": DRIVER, "pool": "a", "device": "gpu-0", "conditions": conditions }])
}

#[test]
fn devices_that_are_to_be_made_usable_are_waited_for() {
    let met = |conditions: Value| conditions::are_met(&attaching(conditions));
    assert_eq!(met(json!([])), Ok(false));
    assert_eq!(met(says(&[("attached", "True"), ("ready", "False")])), Ok(false));
    assert_eq!(met(says(&[("attached", "True"), ("ready", "True")])), Ok(true));
    let words = "claim c binding failed: reason=Why, message=\"so\"";
    assert_eq!(met(says(&[("attached", "True"), ("broken", "True")])), Err(words.to_owned()));
    let at = |second: i64| pintle_clock::Timestamp::from_second(1_767_225_600 + second).unwrap();
    assert!(!conditions::is_late(&attaching(json!([])), at(600)));
    assert!(conditions::is_late(&attaching(json!([])), at(601)));
    // What never became usable is no reason to go anywhere.
    let find = |claim: ResourceClaim, late: bool| {
        let mut world = world(&[]);
        world.devices_mut().set_claim(&claim.key(), Some(Arc::new(claim.clone())));
        if late {
            world.devices_mut().set_late(&claim);
        }
        let found = schedule(&user("c"), &world, 0, &mut StdRng::seed_from_u64(1));
        found.map(|_| ()).map_err(|misfit| misfit.to_string())
    };
    assert_eq!(find(attaching(json!([])), false), Ok(()));
    let words = "0/2 nodes are available: 2 resourceclaim not available on the node.";
    assert_eq!(find(attaching(json!([])), true), Err(words.to_owned()));
    assert_eq!(find(attaching(says(&[("broken", "True")])), false), Err(words.to_owned()));
}

#[test]
fn devices_that_need_no_waiting_come_first() {
    let slow = json!([{
        "name": "far", "bindsToNode": true, "bindingConditions": ["attached"], "bindingFailureConditions": ["broken"],
    }]);
    let fast = json!([{ "name": "near" }]);
    let of_pool = |pool: &str| json!({ "spec": { "pool": { "name": pool } } });
    let devices = devices(&[slice("s", slow, of_pool("a")), slice("t", fast, of_pool("b"))], &[]);
    check(&devices, &[claim("c", json!([exactly("r", json!({}))]), json!({}))], &[&["r=near"]]);
    let both = claim("c", json!([exactly("r", json!({ "count": 2 }))]), json!({}));
    let results = try_on(&node_a(), &devices, &[both]).unwrap().unwrap();
    let results = results[0].devices.as_ref().unwrap().results.as_ref().unwrap();
    assert_eq!(results[0].binding_conditions, None);
    assert_eq!(results[1].binding_conditions.as_deref(), Some(&["attached".to_owned()][..]));
    assert_eq!(results[1].binding_failure_conditions.as_deref(), Some(&["broken".to_owned()][..]));
}

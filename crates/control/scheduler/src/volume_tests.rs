//! Tables of claims, volumes and nodes, and the choices and refusals that must follow.

use crate::bind::decide;
use crate::csi_nodes::limits_of;
use crate::hints::{Event, helps};
use crate::tests::{merge, node, pod, schedule, snapshot};
use crate::{PodInfo, Snapshot};
use pintle_types::k8s::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use pintle_types::k8s::api::storage::v1::{CSIStorageCapacity, StorageClass};
use pintle_types::{Kind, ObjectKey};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use std::sync::Arc;

fn claim(name: &str, more: Value) -> Value {
    let mut value = json!({
        "metadata": { "name": name, "namespace": "default", "uid": format!("uid-{name}") },
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "late",
            "resources": { "requests": { "storage": "1Gi" } },
        },
        "status": { "phase": "Pending" },
    });
    merge(&mut value, more);
    value
}

fn bound(name: &str, volume: &str, more: Value) -> Value {
    let mut value = claim(
        name,
        json!({
            "metadata": { "annotations": { "pv.kubernetes.io/bind-completed": "yes" } },
            "spec": { "volumeName": volume }, "status": { "phase": "Bound" },
        }),
    );
    merge(&mut value, more);
    value
}

fn volume(name: &str, host: &str, size: &str) -> Value {
    let expression = json!({ "key": "kubernetes.io/hostname", "operator": "In", "values": [host] });
    json!({
        "metadata": { "name": name },
        "spec": {
            "capacity": { "storage": size }, "accessModes": ["ReadWriteOnce"], "storageClassName": "late",
            "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [expression] }] } },
        },
        "status": { "phase": "Available" },
    })
}

fn class(name: &str, provisioner: &str, mode: &str) -> Value {
    json!({ "metadata": { "name": name }, "provisioner": provisioner, "volumeBindingMode": mode })
}

/// Two nodes, and a class of either kind without and with a provisioner.
fn world(claims: &[Value], volumes: &[Value]) -> Snapshot {
    let mut snapshot = snapshot(&[node("a", json!({})), node("b", json!({}))], &[]);
    let storage = snapshot.storage_mut();
    for value in claims {
        let claim = PersistentVolumeClaim::from_value(value.clone()).unwrap();
        storage.set_claim(&claim.key(), Some(Arc::new(claim)));
    }
    for value in volumes {
        let volume = PersistentVolume::from_value(value.clone()).unwrap();
        let volume = Arc::new(volume);
        storage.set_volume(volume.name(), Some(Arc::clone(&volume)));
    }
    for value in [
        class("late", "kubernetes.io/no-provisioner", "WaitForFirstConsumer"),
        class("made", "example.com/maker", "WaitForFirstConsumer"),
        class("early", "example.com/maker", "Immediate"),
    ] {
        let class = StorageClass::from_value(value).unwrap();
        let class = Arc::new(class);
        storage.set_class(class.name(), Some(Arc::clone(&class)));
    }
    snapshot
}

fn user(name: &str, claims: &[&str]) -> Arc<PodInfo> {
    let volume = |claim: &&str| json!({ "name": claim, "persistentVolumeClaim": { "claimName": claim } });
    pod(name, json!({ "spec": { "volumes": claims.iter().map(volume).collect::<Vec<_>>() } }))
}

#[track_caller]
fn check(pod: &PodInfo, snapshot: &Snapshot, expected: Result<&str, &str>) {
    let result = schedule(pod, snapshot, 0, &mut StdRng::seed_from_u64(1)).map_err(|misfit| misfit.to_string());
    assert_eq!(result.as_ref().map(|node| *node).map_err(String::as_str), expected);
}

#[test]
fn claims_that_are_not_as_they_must_be_are_told() {
    let lost = claim("lost", json!({ "spec": { "volumeName": "v" }, "status": { "phase": "Lost" } }));
    let leaving = claim("leaving", json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } }));
    let early = claim("early", json!({ "spec": { "storageClassName": "early" } }));
    let gone = bound("gone", "nowhere", json!({}));
    let world = world(&[lost, leaving, early, gone], &[]);
    for (name, words) in [
        ("none", "persistentvolumeclaim \"none\" not found."),
        ("lost", "persistentvolumeclaim \"lost\" bound to non-existent persistentvolume \"v\"."),
        ("leaving", "persistentvolumeclaim \"leaving\" is being deleted."),
        ("early", "pod has unbound immediate PersistentVolumeClaims."),
        ("gone", "2 node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)."),
    ] {
        check(&user("p", &[name]), &world, Err(&format!("0/2 nodes are available: {words}")));
    }
    let ephemeral = pod("p", json!({ "spec": { "volumes": [{ "name": "v", "ephemeral": {} }] } }));
    let words = "waiting for ephemeral volume controller to create the persistentvolumeclaim \"p-v\".";
    check(&ephemeral, &world, Err(&format!("0/2 nodes are available: {words}")));
}

#[test]
fn a_pod_goes_where_its_volumes_are() {
    let claims = [bound("here", "v", json!({})), bound("there", "w", json!({}))];
    let world = world(&claims, &[volume("v", "b", "1Gi"), volume("w", "c", "1Gi")]);
    check(&user("p", &["here"]), &world, Ok("b"));
    let words = "0/2 nodes are available: 2 node(s) didn't match PersistentVolume's node affinity.";
    check(&user("p", &["there"]), &world, Err(words));
}

#[test]
fn a_claim_takes_the_smallest_volume_of_a_node() {
    let claims = [
        claim("one", json!({})),
        claim("two", json!({})),
        claim("big", json!({ "spec": { "resources": { "requests": { "storage": "9Gi" } } } })),
    ];
    let volumes = [volume("large", "a", "5Gi"), volume("small", "a", "1Gi"), volume("other", "b", "2Gi")];
    let mut world = world(&claims, &volumes);
    check(&user("p", &["one", "two"]), &world, Ok("a"));
    let decision = decide(&user("p", &["one", "two"]), "a", &mut world).unwrap();
    let chosen: Vec<&str> = decision.bindings.iter().map(|(_, volume)| volume.name()).collect();
    assert_eq!(chosen, ["small", "large"]);
    // Both are promised now.
    check(&user("q", &["two"]), &world, Ok("a"));
    let mut further = claim("further", json!({}));
    merge(&mut further, json!({}));
    let further = PersistentVolumeClaim::from_value(further).unwrap();
    world.storage_mut().set_claim(&further.key(), Some(Arc::new(further)));
    check(&user("r", &["further"]), &world, Ok("b"));
    world.storage_mut().release(&decision);
    let words = "0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind.";
    check(&user("s", &["big"]), &world, Err(words));
}

#[test]
fn what_can_be_made_is_made_on_the_chosen_node() {
    let made = |name: &str, more: Value| {
        let mut value = claim(name, json!({ "spec": { "storageClassName": "made" } }));
        merge(&mut value, more);
        value
    };
    let on_b = json!({ "metadata": { "annotations": { "volume.kubernetes.io/selected-node": "b" } } });
    let mut world = world(&[made("new", json!({})), made("begun", on_b)], &[]);
    check(&user("p", &["begun"]), &world, Ok("b"));
    let decision = decide(&user("p", &["new"]), "a", &mut world).unwrap();
    assert_eq!(decision.provisions.len(), 1);
    // Another pod with the same claim must follow.
    for seed in 0..8 {
        let chosen = schedule(&user("q", &["new"]), &world, 0, &mut StdRng::seed_from_u64(seed));
        assert_eq!(chosen.unwrap(), "a");
    }
}

#[test]
fn a_claim_for_one_pod_keeps_others_away() {
    let more = json!({ "spec": { "accessModes": ["ReadWriteOncePod"] } });
    let mut world = world(&[bound("own", "v", more)], &[volume("v", "a", "1Gi")]);
    let first = user("first", &["own"]);
    check(&first, &world, Ok("a"));
    world.set_pod(Arc::clone(&first), "a");
    let words = "0/2 nodes are available: 2 node has pod using PersistentVolumeClaim with the same name and \
                 ReadWriteOncePod access mode.";
    let second = user("second", &["own"]);
    check(&second, &world, Err(words));
    let misfit = schedule(&second, &world, 0, &mut StdRng::seed_from_u64(1)).unwrap_err();
    assert!(helps(&Event::PodGone(first.clone(), None), misfit.plugins, &second));
    assert!(!helps(&Event::PodGone(user("other", &["else"]), None), misfit.plugins, &second));
    world.remove_pod(&first.key);
    check(&second, &world, Ok("a"));
}

#[test]
fn disks_and_zones_are_heeded() {
    let disk = |name: &str, read_only: bool| {
        let source = json!({ "iqn": "iqn.2026-01.example:d", "lun": 0, "targetPortal": "t", "readOnly": read_only });
        pod(name, json!({ "spec": { "nodeName": "", "volumes": [{ "name": "d", "iscsi": source }] } }))
    };
    let nodes = [node("a", json!({}))];
    let held = |read_only| snapshot(&nodes, &[(disk("holder", read_only), "a")]);
    check(&disk("p", true), &held(true), Ok("a"));
    check(&disk("p", false), &held(true), Err("0/1 nodes are available: 1 node(s) had no available disk."));
    let mut zoned = world(
        &[bound("zoned", "z", json!({}))],
        &[json!({ "metadata": { "name": "z", "labels": { "topology.kubernetes.io/zone": "east" } }, "spec": {} })],
    );
    for (name, zone) in [("a", "west"), ("b", "east")] {
        zoned.set_node(node(name, json!({ "metadata": { "labels": { "topology.kubernetes.io/zone": zone } } })));
    }
    check(&user("p", &["zoned"]), &zoned, Ok("b"));
    zoned.remove_node("b");
    let words = "0/1 nodes are available: 1 node(s) had no available volume zone.";
    check(&user("p", &["zoned"]), &zoned, Err(words));
}

#[test]
fn a_node_takes_so_many_volumes_of_a_driver() {
    let volume = |name: &str| {
        let source = json!({ "driver": "d.example", "volumeHandle": format!("handle-{name}") });
        json!({ "metadata": { "name": name }, "spec": { "csi": source } })
    };
    let claims = [bound("one", "v", json!({})), bound("two", "w", json!({}))];
    let mut world = world(&claims, &[volume("v"), volume("w")]);
    world.remove_node("b");
    let first = user("first", &["one"]);
    world.set_pod(Arc::clone(&first), "a");
    check(&user("p", &["two"]), &world, Ok("a"));
    let driver = json!({ "name": "d.example", "nodeID": "n", "allocatable": { "count": 1 } });
    let said = json!({ "metadata": { "name": "a" }, "spec": { "drivers": [driver] } });
    world.storage_mut().set_limits("a", limits_of(&said));
    let second = user("p", &["two"]);
    check(&second, &world, Err("0/1 nodes are available: 1 node(s) exceed max volume count."));
    // A volume that is there already takes no further place.
    check(&user("q", &["one"]), &world, Ok("a"));
    let misfit = schedule(&second, &world, 0, &mut StdRng::seed_from_u64(1)).unwrap_err();
    assert!(helps(&Event::PodGone(first, None), misfit.plugins, &second));
    assert!(!helps(&Event::PodGone(user("other", &[]), None), misfit.plugins, &second));
    world.storage_mut().set_limits("a", limits_of(&json!({})));
    check(&second, &world, Ok("a"));
}

#[test]
fn a_claim_wakes_only_those_who_wait_for_it() {
    let world = world(&[], &[]);
    let waiting = user("p", &["data"]);
    let misfit = schedule(&waiting, &world, 0, &mut StdRng::seed_from_u64(1)).unwrap_err();
    let changed = |namespace: &str, name: &str| Event::ClaimChanged(ObjectKey::new(namespace, name));
    assert!(helps(&changed("default", "data"), misfit.plugins, &waiting));
    assert!(!helps(&changed("default", "other"), misfit.plugins, &waiting));
    assert!(!helps(&changed("elsewhere", "data"), misfit.plugins, &waiting));
    assert!(helps(&Event::StorageChanged, misfit.plugins, &waiting));
    assert!(!helps(&Event::NamespaceChanged, misfit.plugins, &waiting));
}

#[test]
fn volumes_are_made_where_their_driver_has_room() {
    let small = claim("small", json!({ "spec": { "storageClassName": "made" } }));
    let request = json!({ "resources": { "requests": { "storage": "20Gi" } }, "storageClassName": "made" });
    let large = claim("large", json!({ "spec": request }));
    let mut world = world(&[small, large], &[]);
    // A driver that does not count has room everywhere.
    assert!(schedule(&user("p", &["large"]), &world, 0, &mut StdRng::seed_from_u64(1)).is_ok());
    world.storage_mut().set_counting("example.com/maker", true);
    let words = "0/2 nodes are available: 2 node(s) did not have enough free storage.";
    check(&user("p", &["small"]), &world, Err(words));
    let mut set = |name: &str, more: Value| {
        let mut value = json!({ "metadata": { "name": name, "namespace": "default" }, "storageClassName": "made" });
        merge(&mut value, more);
        let capacity = CSIStorageCapacity::from_value(value).unwrap();
        world.storage_mut().set_capacity(&capacity.key(), Some(Arc::new(capacity)));
        world.storage().rooms(
            world.storage().claim(&ObjectKey::new("default", "large")).unwrap(),
            world.storage().class("made").unwrap(),
        )
    };
    let on = |host: &str| json!({ "matchLabels": { "kubernetes.io/hostname": host } });
    assert_eq!(
        set("a", json!({ "capacity": "100Gi", "maximumVolumeSize": "10Gi", "nodeTopology": on("a") })).unwrap().len(),
        0
    );
    assert_eq!(set("nowhere", json!({ "capacity": "100Gi" })).unwrap().len(), 0);
    assert_eq!(
        set("other", json!({ "capacity": "1Ti", "storageClassName": "other", "nodeTopology": {} })).unwrap().len(),
        0
    );
    assert_eq!(set("b", json!({ "capacity": "20Gi", "nodeTopology": on("b") })).unwrap().len(), 1);
    check(&user("p", &["large"]), &world, Ok("b"));
    // Each claim is looked at for itself.
    check(&user("p", &["small", "large"]), &world, Ok("b"));
    world.storage_mut().set_capacity(&ObjectKey::new("default", "b"), None);
    check(&user("p", &["small"]), &world, Ok("a"));
    let words = "0/2 nodes are available: 2 node(s) did not have enough free storage.";
    check(&user("p", &["large"]), &world, Err(words));
}

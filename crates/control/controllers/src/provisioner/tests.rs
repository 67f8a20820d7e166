//! Claims get a volume on their node, larger ones when they ask, and volumes go with their claim.

use super::plan::{self, ClaimStep, FINALIZER, VolumeStep};
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use pintle_types::k8s::api::storage::v1::StorageClass;
use serde_json::{Value, json};

fn claim(change: impl Fn(&mut Value)) -> PersistentVolumeClaim {
    let mut object = json!({
        "metadata": {
            "name": "data", "namespace": "d", "uid": "u",
            "annotations": {
                "volume.kubernetes.io/storage-provisioner": "pintle/local-path",
                "volume.kubernetes.io/selected-node": "node-2",
            },
        },
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "local-path",
            "resources": { "requests": { "storage": "1Gi" } },
        },
        "status": { "phase": "Pending" },
    });
    change(&mut object);
    PersistentVolumeClaim::from_value(object).unwrap()
}

fn class(mode: &str) -> StorageClass {
    let object = json!({
        "metadata": { "name": "local-path" }, "provisioner": "pintle/local-path", "volumeBindingMode": mode,
    });
    StorageClass::from_value(object).unwrap()
}

fn volume(change: impl Fn(&mut Value)) -> PersistentVolume {
    let made = plan::made(&claim(|_| ()), &class("WaitForFirstConsumer"), "/data/pvc-u", "host-2").unwrap();
    let mut object = made.to_value();
    change(&mut object);
    PersistentVolume::from_value(object).unwrap()
}

#[test]
fn a_claim_gets_a_volume_on_its_node() {
    let class = class("WaitForFirstConsumer");
    let step = |change: fn(&mut Value)| plan::claim(&claim(change), Some(&class), None);
    assert_eq!(step(|_| ()), ClaimStep::Provision("node-2".into()));
    let none = |object: &mut Value| object["metadata"]["annotations"] = json!({});
    assert_eq!(step(none), ClaimStep::Nothing, "nobody asked yet");
    let shared = |object: &mut Value| object["spec"]["accessModes"] = json!(["ReadWriteMany"]);
    assert_eq!(step(shared), ClaimStep::Refuse("only ReadWriteOnce and ReadWriteOncePod are supported"));
    let block = |object: &mut Value| object["spec"]["volumeMode"] = "Block".into();
    assert_eq!(step(block), ClaimStep::Refuse("block volumes are not supported"));
    let volume = volume(|_| ()).to_value();
    assert_eq!(volume["metadata"]["name"], "pvc-u");
    assert_eq!(volume["metadata"]["finalizers"][0], FINALIZER);
    assert_eq!(volume["spec"]["capacity"]["storage"], "1Gi");
    assert_eq!(volume["spec"]["claimRef"]["name"], "data");
    assert_eq!(volume["spec"]["local"]["path"], "/data/pvc-u");
    assert_eq!(volume["spec"]["persistentVolumeReclaimPolicy"], "Delete");
}

#[test]
fn immediate_binding_is_refused() {
    let step = plan::claim(&claim(|_| ()), Some(&class("Immediate")), None);
    assert_eq!(step, ClaimStep::Refuse("the class must have the volumeBindingMode WaitForFirstConsumer"));
}

#[test]
fn a_larger_claim_enlarges_its_volume() {
    let bound = |size: &str, told: &str| {
        claim(|object| {
            object["spec"]["volumeName"] = "pvc-u".into();
            object["spec"]["resources"]["requests"]["storage"] = size.into();
            object["status"] = json!({ "phase": "Bound", "capacity": { "storage": told } });
        })
    };
    let (class, volume) = (class("WaitForFirstConsumer"), volume(|_| ()));
    let step = |claim: PersistentVolumeClaim| plan::claim(&claim, Some(&class), Some(&volume));
    assert_eq!(step(bound("1Gi", "1Gi")), ClaimStep::Nothing);
    assert_eq!(step(bound("1024Mi", "1Gi")), ClaimStep::Nothing);
    assert_eq!(step(bound("2Gi", "1Gi")), ClaimStep::Expand);
    assert_eq!(step(bound("1Gi", "500Mi")), ClaimStep::Expand, "only the claim's status is behind");
}

#[test]
fn a_volume_goes_when_it_is_released() {
    let in_phase = |phase: &str, policy: &str, deleting: bool, held: bool| {
        let mut object = volume(|_| ()).to_value();
        object["status"] = json!({ "phase": phase });
        object["spec"]["persistentVolumeReclaimPolicy"] = policy.into();
        if deleting {
            object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        if !held {
            object["metadata"]["finalizers"] = json!([]);
        }
        plan::volume(&PersistentVolume::from_value(object).unwrap())
    };
    let delete = || VolumeStep::Delete("host-2".into());
    for (phase, policy, deleting, held, step) in [
        ("Bound", "Delete", false, true, VolumeStep::Nothing),
        ("Bound", "Delete", true, true, VolumeStep::Nothing),
        ("Released", "Delete", false, true, delete()),
        ("Released", "Delete", true, true, delete()),
        ("Released", "Delete", true, false, VolumeStep::Nothing),
        ("Released", "Retain", false, true, VolumeStep::Nothing),
        ("Released", "Retain", true, true, VolumeStep::LetGo),
        ("Available", "Delete", false, true, VolumeStep::Nothing),
    ] {
        assert_eq!(in_phase(phase, policy, deleting, held), step, "{phase} {policy} {deleting} {held}");
    }
    let foreign = volume(|object| object["metadata"]["annotations"] = json!({}));
    assert_eq!(plan::volume(&foreign), VolumeStep::Nothing);
}

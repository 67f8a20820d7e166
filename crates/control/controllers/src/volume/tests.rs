//! Claims find the volume that suits them best, and volumes are kept, freed or given up when their claim goes.

use super::plan::{self, ClaimStep, Reclaim, VolumeStep, World};
use super::run;
use crate::testing::Cluster;
use futures::FutureExt;
use pintle_client::DeleteOptions;
use pintle_storage as matching;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use pintle_types::k8s::api::storage::v1::StorageClass;
use serde_json::{Value, json};
use std::sync::Arc;

fn volume(name: &str, size: &str, modes: &[&str], more: Value) -> Value {
    let mut object = json!({
        "metadata": { "name": name },
        "spec": { "capacity": { "storage": size }, "accessModes": modes, "persistentVolumeReclaimPolicy": "Retain" },
        "status": { "phase": "Available" },
    });
    for (field, value) in more.as_object().into_iter().flatten() {
        object["spec"][field] = value.clone();
    }
    object
}

fn claim(size: &str, modes: &[&str], more: Value) -> Value {
    let mut object = json!({
        "metadata": { "name": "data", "namespace": "d", "uid": "u" },
        "spec": { "accessModes": modes, "resources": { "requests": { "storage": size } }, "storageClassName": "" },
        "status": { "phase": "Pending" },
    });
    for (field, value) in more.as_object().into_iter().flatten() {
        object["spec"][field] = value.clone();
    }
    object
}

fn volumes(objects: &[Value]) -> Vec<Arc<PersistentVolume>> {
    objects.iter().map(|object| Arc::new(PersistentVolume::from_value(object.clone()).unwrap())).collect()
}

fn typed(object: Value) -> PersistentVolumeClaim {
    PersistentVolumeClaim::from_value(object).unwrap()
}

#[test]
fn the_smallest_volume_that_suits_is_the_best() {
    const RWO: &str = "ReadWriteOnce";
    const ROX: &str = "ReadOnlyMany";
    let mut labelled = volume("labelled", "20Gi", &[RWO], json!({}));
    labelled["metadata"]["labels"] = json!({ "disk": "fast" });
    let mut released = volume("released", "10Gi", &[RWO], json!({}));
    released["status"]["phase"] = "Released".into();
    let all = volumes(&[
        volume("large", "100Gi", &[RWO], json!({})),
        volume("b-mid", "10Gi", &[RWO], json!({})),
        volume("a-mid", "10240Mi", &[RWO], json!({})),
        volume("shared", "10Gi", &[RWO, ROX], json!({})),
        volume("classy", "10Gi", &[RWO], json!({ "storageClassName": "fast" })),
        volume("block", "10Gi", &[RWO], json!({ "volumeMode": "Block" })),
        volume("taken", "5Gi", &[RWO], json!({ "claimRef": { "name": "x", "namespace": "d", "uid": "1" } })),
        labelled,
        released,
    ]);
    let cases = [
        (claim("8Gi", &[RWO], json!({})), Some("a-mid")),
        (claim("5Gi", &[RWO], json!({})), Some("a-mid")),
        (claim("10Gi", &[ROX], json!({})), Some("shared")),
        (claim("11Gi", &[RWO], json!({})), Some("labelled")),
        (claim("50Gi", &[RWO], json!({})), Some("large")),
        (claim("200Gi", &[RWO], json!({})), None),
        (claim("1Gi", &["ReadWriteMany"], json!({})), None),
        (claim("1Gi", &[RWO], json!({ "storageClassName": "fast" })), Some("classy")),
        (claim("1Gi", &[RWO], json!({ "volumeMode": "Block" })), Some("block")),
        (claim("1Gi", &[RWO], json!({ "selector": { "matchLabels": { "disk": "fast" } } })), Some("labelled")),
    ];
    for (object, expected) in cases {
        let found = matching::best(&typed(object.clone()), &all, false);
        assert_eq!(found.as_ref().map(|volume| volume.name()), expected, "{object}");
        assert!(matching::best(&typed(object), &all, true).is_none(), "the scheduler chooses");
    }
    let mut reserved = all;
    let own = volume("own", "500Gi", &[RWO], json!({ "claimRef": { "name": "data", "namespace": "d" } }));
    reserved.extend(volumes(&[own]));
    let found = matching::best(&typed(claim("1Gi", &[RWO], json!({}))), &reserved, true).unwrap();
    assert_eq!(found.name(), "own");
}

/// What is done about a claim, in a word or by its event.
fn check(object: Value, volumes_there: &[Value], classes: &[Value], pods: &[&str]) -> String {
    let all = volumes(volumes_there);
    let classes: Vec<Arc<StorageClass>> =
        classes.iter().map(|class| Arc::new(StorageClass::from_value(class.clone()).unwrap())).collect();
    let world = World {
        volume: &|name| all.iter().find(|volume| volume.name() == name).cloned(),
        volumes: &|| all.clone(),
        class: &|name| classes.iter().find(|class| class.name() == name).cloned(),
        classes: &|| classes.clone(),
        waiting_pods: &|_| pods.iter().map(|pod| (*pod).to_owned()).collect(),
    };
    match plan::claim(&typed(object), &world) {
        ClaimStep::Bind(volume) => format!("bind {}", volume.name()),
        ClaimStep::SetClass(class) => format!("class {class}"),
        ClaimStep::Provision(by) => format!("provision {by}"),
        ClaimStep::Pending(None) => "pending".into(),
        ClaimStep::Pending(Some(told)) | ClaimStep::Tell(Some(told)) | ClaimStep::Lost(Some(told)) => {
            format!("{}: {}", told.reason, told.message)
        }
        other => format!("{other:?}"),
    }
}

#[test]
fn claims_are_bound_provisioned_or_told_why_not() {
    let one = [volume("one", "1Gi", &["ReadWriteOnce"], json!({}))];
    let ask = |more: Value| claim("1Gi", &["ReadWriteOnce"], more);
    let class = |name: &str, by: &str, mode: &str| json!({ "metadata": { "name": name }, "provisioner": by, "volumeBindingMode": mode });
    let local = class("local", "kubernetes.io/no-provisioner", "WaitForFirstConsumer");
    let outside = class("outside", "csi.example.com", "Immediate");
    let mut default = outside.clone();
    default["metadata"]["annotations"] = json!({ "storageclass.kubernetes.io/is-default-class": "true" });
    let classes = [local, outside, class("builtin", "kubernetes.io/no-provisioner", "Immediate")];
    assert_eq!(check(ask(json!({})), &one, &[], &[]), "bind one");
    let none = "FailedBinding: no persistent volumes available for this claim and no storage class is set";
    assert_eq!(check(ask(json!({})), &[], &[], &[]), none);
    assert_eq!(check(ask(json!({ "storageClassName": null })), &[], &[default], &[]), "class outside");
    let with = |name: &str| ask(json!({ "storageClassName": name }));
    assert_eq!(check(with("outside"), &[], &classes, &[]), "provision csi.example.com");
    let missing = "ProvisioningFailed: storageclass.storage.k8s.io \"none\" not found";
    assert_eq!(check(with("none"), &[], &classes, &[]), missing);
    let builtin = "ProvisioningFailed: no volume plugin matched name: kubernetes.io/no-provisioner";
    assert_eq!(check(with("builtin"), &[], &classes, &[]), builtin);
    let waits = "WaitForFirstConsumer: waiting for first consumer to be created before binding";
    assert_eq!(check(with("local"), &[], &classes, &[]), waits);
    let pods = "WaitForPodScheduled: waiting for pods a,b to be scheduled";
    assert_eq!(check(with("local"), &[], &classes, &["a", "b"]), pods);
    let named = |name: &str, size: &str| claim(size, &["ReadWriteOnce"], json!({ "volumeName": name }));
    assert_eq!(check(named("one", "1Gi"), &one, &[], &[]), "bind one");
    assert_eq!(check(named("two", "1Gi"), &one, &[], &[]), "pending");
    let small = "VolumeMismatch: Cannot bind to requested volume \"one\": requested PV is too small";
    assert_eq!(check(named("one", "2Gi"), &one, &[], &[]), small);
    let mut lost = named("two", "1Gi");
    lost["metadata"]["annotations"] = json!({ "pv.kubernetes.io/bind-completed": "yes" });
    let words = "ClaimLost: Bound claim has lost its PersistentVolume. Data on the volume is lost!";
    assert_eq!(check(lost, &one, &[], &[]), words);
}

#[test]
fn released_volumes_are_kept_left_to_others_or_fail() {
    let reference = json!({ "name": "data", "namespace": "d", "uid": "gone" });
    let reclaim = |policy: &str, more: Value| {
        let spec = json!({ "claimRef": reference, "persistentVolumeReclaimPolicy": policy, "hostPath": more["in"] });
        let mut object = volume("one", "1Gi", &[], spec);
        object["metadata"]["annotations"] = more["marks"].clone();
        match plan::volume(&PersistentVolume::from_value(object).unwrap(), None) {
            VolumeStep::Release { first: true, reclaim: Reclaim::Leave } => "leave".to_owned(),
            VolumeStep::Release { first: true, reclaim: Reclaim::Fail(told) } => {
                format!("{}: {}", told.reason, told.message)
            }
            other => format!("{other:?}"),
        }
    };
    assert_eq!(reclaim("Retain", json!({})), "leave");
    assert_eq!(
        reclaim("Delete", json!({ "marks": { "pv.kubernetes.io/provisioned-by": "csi.example.com" } })),
        "leave"
    );
    let failed = "VolumeFailedDelete: error getting deleter volume plugin for volume \"one\": no deletable volume plugin matched";
    assert_eq!(reclaim("Delete", json!({})), failed);
    let words = "VolumeFailedDelete: host_path deleter only supports /tmp/.+ but received provided /data";
    assert_eq!(reclaim("Delete", json!({ "in": { "path": "/data" } })), words);
    assert_eq!(reclaim("Recycle", json!({})), "VolumeFailedRecycle: No recycler plugin found for the volume!");
}

fn phase(cluster: &Cluster, name: &str) -> Option<String> {
    cluster.api.get::<PersistentVolume>("", name)?.status?.phase
}

#[tokio::test(start_paused = true)]
async fn a_claim_binds_and_its_volume_is_released_with_it() {
    let cluster = Cluster::new().start(|context| run(context).boxed());
    let mut object = claim("1Gi", &["ReadWriteOnce"], json!({}));
    object["metadata"].as_object_mut().unwrap().remove("uid");
    cluster.create::<PersistentVolumeClaim>(object).await;
    let none = "FailedBinding: no persistent volumes available for this claim and no storage class is set";
    cluster.until("it waits", |_| cluster.events().iter().any(|event| event == none)).await;
    let mut object = volume("one", "2Gi", &["ReadWriteOnce"], json!({}));
    object["status"]["phase"] = "Pending".into();
    cluster.create::<PersistentVolume>(object).await;
    let status = || cluster.api.get::<PersistentVolumeClaim>("d", "data").unwrap().status.unwrap();
    cluster.until("it is bound", |_| status().phase.as_deref() == Some("Bound")).await;
    assert_eq!(status().capacity.unwrap()["storage"].0, "2Gi");
    let claim = cluster.api.get::<PersistentVolumeClaim>("d", "data").unwrap();
    assert_eq!(claim.spec.as_ref().unwrap().volume_name.as_deref(), Some("one"));
    assert_eq!(claim.annotation(plan::BOUND), Some("yes"));
    let volume = cluster.api.get::<PersistentVolume>("", "one").unwrap();
    assert_eq!(volume.annotation(plan::BY_CONTROLLER), Some("yes"));
    assert_eq!(volume.spec.unwrap().claim_ref.unwrap().uid.as_deref(), Some(claim.uid()));
    assert_eq!(phase(&cluster, "one").as_deref(), Some("Bound"));
    cluster.client.delete::<PersistentVolumeClaim>("d", "data", &DeleteOptions::default()).await.unwrap();
    cluster.until("it is released", |_| phase(&cluster, "one").as_deref() == Some("Released")).await;
    cluster.change::<PersistentVolume>("", "one", |volume| volume.spec.as_mut().unwrap().claim_ref = None);
    cluster.until("it is free again", |_| phase(&cluster, "one").as_deref() == Some("Available")).await;
}

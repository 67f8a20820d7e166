//! A volume without a claim is available.

use super::run;
use crate::testing::Cluster;
use futures::FutureExt;
use pintle_types::k8s::api::core::v1::PersistentVolume;
use serde_json::json;

#[tokio::test(start_paused = true)]
async fn what_nobody_claimed_is_available() {
    let cluster = Cluster::new().start(|context| run(context).boxed());
    let phase = |volume: PersistentVolume| volume.status?.phase;
    for (name, uid) in [("free", ""), ("claimed", "1")] {
        cluster
            .create::<PersistentVolume>(json!({
                "metadata": {"name": name},
                "spec": {"claimRef": {"namespace": "d", "name": "c", "uid": uid}},
                "status": {"phase": "Pending"},
            }))
            .await;
    }
    let is_free = |volume| phase(volume).as_deref() == Some("Available");
    cluster.until("it is available", |api| api.get::<PersistentVolume>("", "free").is_some_and(is_free)).await;
    let claimed = cluster.api.get::<PersistentVolume>("", "claimed").and_then(phase);
    assert_eq!(claimed.as_deref(), Some("Pending"));
}

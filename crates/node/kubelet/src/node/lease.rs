//! Renews the node's lease, by which the control plane knows that the node lives.

use crate::config::Config;
use pintle_client::{ClientError, Patch, PatchOptions};
use pintle_types::Kind;
use pintle_types::k8s::api::coordination::v1::Lease;
use serde_json::{Value, json};
use std::time::Duration;

const NAMESPACE: &str = "kube-node-lease";
/// How often it is renewed in its time.
const RENEWALS: u32 = 4;
/// A renewal that failed is tried again this soon.
const RETRY: Duration = Duration::from_secs(1);

/// Renews for ever.
pub async fn renew(config: &Config, node_uid: &str) {
    let period = Duration::from_secs(u64::from(config.lease_seconds.max(1))) / RENEWALS;
    loop {
        while let Err(error) = once(config, node_uid).await {
            tracing::debug!(%error, "the node's lease can't be renewed; trying again");
            tokio::time::sleep(RETRY).await;
        }
        tokio::time::sleep(config.clock.until_beat(period)).await;
    }
}

async fn once(config: &Config, node_uid: &str) -> Result<(), ClientError> {
    let now = config.clock.now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
    let name = &config.node_name;
    let patch = Patch::Merge(
        json!({"spec": {"holderIdentity": name, "leaseDurationSeconds": config.lease_seconds, "renewTime": now}}),
    );
    match config.client.patch::<Lease>(NAMESPACE, name, patch, &PatchOptions::default()).await {
        Err(error) if error.is_not_found() => create(config, node_uid, &now).await,
        result => result.map(drop),
    }
}

async fn create(config: &Config, node_uid: &str, now: &str) -> Result<(), ClientError> {
    let name = &config.node_name;
    let lease: Value = json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": name, "uid": node_uid}],
        },
        "spec": {"holderIdentity": name, "leaseDurationSeconds": config.lease_seconds, "renewTime": now},
    });
    config.client.create(&Lease::from_value(lease)?).await.map(drop)
}

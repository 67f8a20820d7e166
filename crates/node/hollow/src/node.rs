//! One node: registers, renews its lease, and reports that all is well.

use crate::{Config, count, object};
use pintle_client::{Client, ClientError, DeleteOptions, Patch, PatchOptions};
use pintle_types::Kind;
use pintle_types::k8s::api::coordination::v1::Lease;
use pintle_types::k8s::api::core::v1::Node;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const LEASES: &str = "kube-node-lease";
/// A request that failed is tried again this soon.
const RETRY: Duration = Duration::from_secs(1);

/// Makes the Node object, or takes up the one that is there. Returns its uid; tries until it succeeds.
pub async fn register(config: &Config, number: u32) -> String {
    loop {
        match try_register(config, number).await {
            Ok(uid) => {
                count(&config.figures.nodes);
                return uid;
            }
            Err(error) => failed(config, "registered", number, &error),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn try_register(config: &Config, number: u32) -> Result<String, ClientError> {
    let node = Node::from_value(object::node(config, number, config.clock.now_seconds()))?;
    match config.client.create(&node).await {
        Err(error) if error.is_already_exists() => {
            let marks = Patch::Merge(json!({ "metadata": { "annotations": node.metadata.annotations } }));
            config.client.patch::<Node>("", node.name(), marks, &PatchOptions::default()).await?;
            Ok(report(config, number).await?.uid().to_owned())
        }
        result => Ok(result?.uid().to_owned()),
    }
}

async fn report(config: &Config, number: u32) -> Result<Node, ClientError> {
    let status = object::status(config, number, config.clock.now_seconds());
    let patch = Patch::Strategic(json!({ "status": status }));
    config.client.patch("", &config.name(number), patch, &PatchOptions::status()).await
}

/// Renews and reports until `stop`. Nodes begin one after the other, not all at once, and keep to whole seconds from then
/// on, as real ones do.
pub async fn live(config: Arc<Config>, number: u32, uid: String, stop: CancellationToken) {
    let _ended = stop.run_until_cancelled(beat(&config, number, &uid)).await;
}

async fn beat(config: &Config, number: u32, uid: &str) {
    let place = f64::from(number.saturating_sub(config.first)) / f64::from(config.count.max(1));
    tokio::time::sleep(config.times.renew.mul_f64(place)).await;
    // Reports, too, are spread over their time.
    let mut next_report = tokio::time::Instant::now() + config.times.report.mul_f64(place).max(config.times.renew);
    loop {
        while let Err(error) = renew(config, number, uid).await {
            failed(config, "renewed", number, &error);
            tokio::time::sleep(RETRY).await;
        }
        count(&config.figures.renewals);
        if tokio::time::Instant::now() >= next_report {
            next_report += config.times.report;
            if let Err(error) = report(config, number).await {
                failed(config, "reported on", number, &error);
            }
        }
        tokio::time::sleep(config.clock.until_beat(config.times.renew)).await;
    }
}

async fn renew(config: &Config, number: u32, uid: &str) -> Result<(), ClientError> {
    let (name, client): (_, &Client) = (config.name(number), &config.client);
    let now = config.clock.now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
    let patch = Patch::Merge(json!({"spec": object::lease_spec(config, &name, &now)}));
    match client.patch::<Lease>(LEASES, &name, patch, &PatchOptions::default()).await {
        Err(error) if error.is_not_found() => {
            let lease = Lease::from_value(object::lease(config, LEASES, &name, uid, &now))?;
            client.create(&lease).await.map(drop)
        }
        result => result.map(drop),
    }
}

/// Deletes the Node object; its lease goes with it.
pub async fn remove(config: &Config, number: u32) {
    let name = config.name(number);
    if let Err(error) = config.client.delete::<Node>("", &name, &DeleteOptions::default()).await {
        tracing::warn!(name, %error, "the node can't be removed");
    }
}

fn failed(config: &Config, what: &str, number: u32, error: &ClientError) {
    count(&config.figures.failures);
    tracing::debug!(node = config.name(number), %error, "the node can't be {what}; trying again");
}

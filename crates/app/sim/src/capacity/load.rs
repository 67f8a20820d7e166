//! The load: namespaces with Deployments, and Services when they are asked for.

use super::{Capacity, Shape};
use anyhow::Result;
use futures::{StreamExt, TryStreamExt};
use http::Method;
use pintle_client::{Client, ClientError};
use serde_json::{Value, json};
use std::time::Duration;

/// Deployments of a namespace.
const TOGETHER: u32 = 100;
/// Requests at a time.
const WIDTH: usize = 10;

fn namespace(number: u32) -> String {
    format!("load-{}", number / TOGETHER)
}

/// Makes the namespaces, and waits until pods can be made in them.
pub(super) async fn prepare(client: &Client, capacity: &Capacity) -> Result<(), ClientError> {
    for number in (0..capacity.deployments).step_by(TOGETHER as usize) {
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace(number)}});
        client.json(Method::POST, "/api/v1/namespaces", Some(&body)).await?;
    }
    // The controllers give them their service accounts and certificates.
    tokio::time::sleep(Duration::from_secs(5)).await;
    Ok(())
}

/// Creates all Deployments.
pub(super) async fn create(client: &Client, capacity: &Capacity) -> Result<(), ClientError> {
    let one = |number| create_one(client, capacity, number);
    futures::stream::iter((0..capacity.deployments).map(one)).buffer_unordered(WIDTH).try_collect::<()>().await
}

async fn create_one(client: &Client, capacity: &Capacity, number: u32) -> Result<(), ClientError> {
    let namespace = namespace(number);
    let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments");
    client.json(Method::POST, &path, Some(&deployment(capacity, number))).await?;
    if capacity.services {
        let name = format!("web-{number}");
        let spec = json!({"selector": {"app": name}, "ports": [{"port": 80}]});
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec});
        client.json(Method::POST, &format!("/api/v1/namespaces/{namespace}/services"), Some(&service)).await?;
    }
    Ok(())
}

/// The pods are shared out evenly; the first Deployments have what is left over.
fn replicas(capacity: &Capacity, number: u32) -> u32 {
    let (each, more) = (capacity.pods / capacity.deployments, capacity.pods % capacity.deployments);
    each + u32::from(number < more)
}

fn deployment(capacity: &Capacity, number: u32) -> Value {
    let name = format!("web-{number}");
    let labels = json!({ "app": name });
    let selector = json!({ "matchLabels": labels });
    let requests = json!({
        "cpu": format!("{}m", capacity.pod_milli_cpu), "memory": capacity.pod_memory_bytes.to_string(),
    });
    let mut pod = json!({"containers": [{"name": "main", "image": "app:1", "resources": {"requests": requests}}]});
    match capacity.shape {
        Shape::Plain => {}
        Shape::Spread => {
            pod["topologySpreadConstraints"] = json!([{
                "maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": selector,
            }]);
        }
        Shape::Apart => {
            let term = json!({"labelSelector": selector, "topologyKey": "kubernetes.io/hostname"});
            pod["affinity"] = json!({
                "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]},
            });
        }
    }
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": replicas(capacity, number), "selector": selector,
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    })
}

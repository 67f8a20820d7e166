//! Objects that every cluster of ours has, beyond those of every Kubernetes cluster.

use crate::cluster::Cluster;
use anyhow::{Context, Result};
use pintle_client::Client;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::Service;
use serde_json::json;

/// Makes them where they are missing. What a person changed stays changed.
pub(crate) async fn apply(cluster: &Cluster, client: &Client) -> Result<()> {
    let made = client.create(&dns_service(cluster)?).await;
    match made {
        Ok(_) => Ok(()),
        Err(error) if error.is_already_exists() => Ok(()),
        // Another service took the address: names still resolve, since pods ask the address itself.
        Err(error) => Err(error).context("create the service kube-system/kube-dns"),
    }
}

/// The DNS server listens on this address on every node, so no proxy has to translate it: the label says so.
fn dns_service(cluster: &Cluster) -> Result<Service> {
    let value = json!({
        "metadata": {
            "name": "kube-dns",
            "namespace": "kube-system",
            "labels": {
                "k8s-app": "kube-dns",
                "kubernetes.io/cluster-service": "true",
                "kubernetes.io/name": "CoreDNS",
                "service.kubernetes.io/service-proxy-name": "pintle-dns",
            },
        },
        "spec": {
            "clusterIP": cluster.dns_ip.to_string(),
            "ports": [
                { "name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53 },
                { "name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53 },
            ],
        },
    });
    Ok(Service::from_value(value)?)
}

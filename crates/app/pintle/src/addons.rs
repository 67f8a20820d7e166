//! Objects that every cluster of ours has, beyond those of every Kubernetes cluster.

use crate::cluster::Cluster;
use anyhow::{Context, Result};
use pintle_client::Client;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::Service;
use pintle_types::k8s::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use serde_json::json;

/// Makes them where they are missing. What a person changed stays changed.
pub(crate) async fn apply(cluster: &Cluster, client: &Client) -> Result<()> {
    make(client, &dns_service(cluster)?).await?;
    make(client, &dns_role()?).await?;
    make(client, &dns_binding()?).await
}

pub(crate) async fn make<K: Kind>(client: &Client, object: &K) -> Result<()> {
    let what = || format!("create {} {}", K::plural(), object.key());
    if client.get_opt::<K>(object.namespace(), object.name()).await.with_context(what)?.is_none() {
        client.create(object).await.with_context(what)?;
    }
    Ok(())
}

/// What DNS reads beyond what the service proxy may, whose informers it shares.
fn dns_role() -> Result<ClusterRole> {
    let read = |group: &str, resources: &[&str]| json!({ "apiGroups": [group], "resources": resources, "verbs": ["list", "watch"] });
    let rules =
        [read("", &["endpoints", "services", "pods", "namespaces"]), read("discovery.k8s.io", &["endpointslices"])];
    Ok(ClusterRole::from_value(json!({ "metadata": { "name": "system:coredns" }, "rules": rules }))?)
}

fn dns_binding() -> Result<ClusterRoleBinding> {
    let subject = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:kube-proxy" });
    let role = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns" });
    let value = json!({ "metadata": { "name": "system:coredns" }, "subjects": [subject], "roleRef": role });
    Ok(ClusterRoleBinding::from_value(value)?)
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

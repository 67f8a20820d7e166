//! Objects that every cluster of ours has, beyond those of every Kubernetes cluster.

use crate::cluster::Cluster;
use anyhow::{Context, Result};
use pintle_client::Client;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::Service;
use pintle_types::k8s::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use pintle_types::k8s::api::storage::v1::StorageClass;
use serde_json::{Value, json};

const DNS_SETTINGS_ROLE: &str = "pintle:dns-settings";
const POLICY_ROLE: &str = "pintle:network-policies";

/// Makes them where they are missing. What a person changed stays changed.
pub(crate) async fn apply(cluster: &Cluster, client: &Client) -> Result<()> {
    make(client, &dns_service(cluster)?).await?;
    make(client, &dns_role()?).await?;
    make(client, &dns_binding()?).await?;
    make(client, &dns_settings_role()?).await?;
    make(client, &dns_settings_binding()?).await?;
    make(client, &policy_role()?).await?;
    make(client, &policy_binding()?).await?;
    make(client, &storage_class()?).await?;
    make(client, &provisioner_role()?).await?;
    make(client, &provisioner_binding()?).await
}

pub(crate) async fn make<K: Kind>(client: &Client, object: &K) -> Result<()> {
    let what = || format!("create {} {}", K::plural(), object.key());
    if client.get_opt::<K>(object.namespace(), object.name()).await.with_context(what)?.is_none() {
        client.create(object).await.with_context(what)?;
    }
    Ok(())
}

fn read(group: &str, resources: &[&str]) -> Value {
    json!({ "apiGroups": [group], "resources": resources, "verbs": ["list", "watch"] })
}

/// What DNS reads beyond what the service proxy may, whose informers it shares.
fn dns_role() -> Result<ClusterRole> {
    let rules =
        [read("", &["endpoints", "services", "pods", "namespaces"]), read("discovery.k8s.io", &["endpointslices"])];
    Ok(ClusterRole::from_value(json!({ "metadata": { "name": "system:coredns" }, "rules": rules }))?)
}

fn dns_binding() -> Result<ClusterRoleBinding> {
    binding("system:coredns")
}

/// The ConfigMap in which a cluster names servers of domains and upstream servers.
fn dns_settings_role() -> Result<Role> {
    let rule = json!({ "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["kube-dns"], "verbs": ["list", "watch"] });
    let metadata = json!({ "name": DNS_SETTINGS_ROLE, "namespace": "kube-system" });
    Ok(Role::from_value(json!({ "metadata": metadata, "rules": [rule] }))?)
}

fn dns_settings_binding() -> Result<RoleBinding> {
    let subject = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:kube-proxy" });
    let role = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": DNS_SETTINGS_ROLE });
    let metadata = json!({ "name": DNS_SETTINGS_ROLE, "namespace": "kube-system" });
    Ok(RoleBinding::from_value(json!({ "metadata": metadata, "subjects": [subject], "roleRef": role }))?)
}

/// What the nodes follow to keep packets away that NetworkPolicies do not allow.
fn policy_role() -> Result<ClusterRole> {
    let rules = [read("", &["pods", "namespaces"]), read("networking.k8s.io", &["networkpolicies"])];
    Ok(ClusterRole::from_value(json!({ "metadata": { "name": POLICY_ROLE }, "rules": rules }))?)
}

fn policy_binding() -> Result<ClusterRoleBinding> {
    binding(POLICY_ROLE)
}

/// Gives the user of the nodes' proxies the role of this name.
fn binding(name: &str) -> Result<ClusterRoleBinding> {
    let subject = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:kube-proxy" });
    let role = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name });
    let value = json!({ "metadata": { "name": name }, "subjects": [subject], "roleRef": role });
    Ok(ClusterRoleBinding::from_value(value)?)
}

/// The class that claims get when they name none: directories of the nodes where their pods run.
fn storage_class() -> Result<StorageClass> {
    let value = json!({
        "metadata": {
            "name": "local-path",
            "annotations": { "storageclass.kubernetes.io/is-default-class": "true" },
        },
        "provisioner": "pintle/local-path",
        "volumeBindingMode": "WaitForFirstConsumer",
        "reclaimPolicy": "Delete",
        "allowVolumeExpansion": true,
    });
    Ok(StorageClass::from_value(value)?)
}

/// What the provisioner of that class may: claims, volumes, and the directories that kubelets keep for it.
fn provisioner_role() -> Result<ClusterRole> {
    let rule = |group: &str, resources: &[&str], verbs: &[&str]| json!({ "apiGroups": [group], "resources": resources, "verbs": verbs });
    let rules = [
        rule("", &["persistentvolumes"], &["get", "create", "update", "patch", "delete"]),
        rule("", &["persistentvolumeclaims"], &["get", "patch"]),
        rule("", &["persistentvolumeclaims/status"], &["patch"]),
        rule("", &["nodes/proxy"], &["update", "delete"]),
        rule("", &["events"], &["create", "patch", "update"]),
        rule("events.k8s.io", &["events"], &["create", "patch", "update"]),
    ];
    let name = json!({ "name": "pintle:local-path-provisioner" });
    Ok(ClusterRole::from_value(json!({ "metadata": name, "rules": rules }))?)
}

fn provisioner_binding() -> Result<ClusterRoleBinding> {
    let name = "pintle:local-path-provisioner";
    let subject = json!({ "kind": "ServiceAccount", "namespace": "kube-system", "name": "local-path-provisioner" });
    let role = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name });
    let value = json!({ "metadata": { "name": name }, "subjects": [subject], "roleRef": role });
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
                { "name": "metrics", "port": 9153, "protocol": "TCP", "targetPort": 9153 },
            ],
        },
    });
    Ok(Service::from_value(value)?)
}

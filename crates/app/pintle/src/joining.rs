//! What nodes that join need to find in the cluster: where it is, how it is set up, and what they may ask for.
//!
//! Names and contents are kubeadm's, so that its own documents hold: `kube-public/cluster-info`, which the bootstrap
//! signer signs, `kube-system/kubeadm-config`, and the roles of bootstrap tokens and of nodes.

use crate::addons::make;
use crate::cluster::Cluster;
use crate::identity::NODES;
use crate::token::DEFAULT_GROUP;
use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use pintle_cli::PodNetwork;
use pintle_client::{Client, Patch, PatchOptions};
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::ConfigMap;
use pintle_types::k8s::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use serde_json::{Value, json};

const RBAC: &str = "rbac.authorization.k8s.io";
const REQUESTS: &str = "certificates.k8s.io";

/// Makes what is missing, and brings up to date what depends on the settings.
pub(crate) async fn apply(cluster: &Cluster, authority_pem: &str, client: &Client) -> Result<()> {
    let (info, config) = (cluster_info(cluster, authority_pem)?, configuration(cluster)?);
    // All at once: their writes share the store's syncs.
    let maps = async { tokio::try_join!(publish(client, &info), publish(client, &config)) };
    tokio::try_join!(maps, roles(client)).map(drop)
}

/// Other keys of the map stay, such as signatures.
async fn publish(client: &Client, map: &ConfigMap) -> Result<()> {
    let (namespace, name) = (map.namespace(), map.name());
    let what = || format!("publish {name}");
    let Some(there) = client.get_opt::<ConfigMap>(namespace, name).await.with_context(what)? else {
        return client.create(map).await.map(drop).with_context(what);
    };
    let present = there.data.unwrap_or_default();
    if map.data.iter().flatten().all(|(key, value)| present.get(key) == Some(value)) {
        return Ok(());
    }
    let patch = Patch::Merge(json!({ "data": map.data }));
    client.patch::<ConfigMap>(namespace, name, patch, &PatchOptions::default()).await.map(drop).with_context(what)
}

fn map(namespace: &str, name: &str, data: Value) -> Result<ConfigMap> {
    Ok(ConfigMap::from_value(json!({ "metadata": { "name": name, "namespace": namespace }, "data": data }))?)
}

fn cluster_info(cluster: &Cluster, authority_pem: &str) -> Result<ConfigMap> {
    let kubeconfig = format!(
        "apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: {}
    server: {}
  name: \"\"
contexts: null
current-context: \"\"
kind: Config
preferences: {{}}
users: null
",
        BASE64.encode(authority_pem),
        cluster.public_url()
    );
    map("kube-public", "cluster-info", json!({ "kubeconfig": kubeconfig }))
}

fn configuration(cluster: &Cluster) -> Result<ConfigMap> {
    let list = |ranges: &[ipnet::IpNet]| ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let upstream = format!(
        "apiVersion: kubeadm.k8s.io/v1beta4
clusterName: kubernetes
kind: ClusterConfiguration
kubernetesVersion: v1.36.2
networking:
  dnsDomain: {}
  podSubnet: {}
  serviceSubnet: {}
",
        cluster.settings.cluster_domain(),
        list(&cluster.pod_ranges),
        list(&cluster.service_ranges)
    );
    let network = match cluster.settings.pod_network() {
        PodNetwork::Vxlan => "vxlan",
        PodNetwork::HostGw => "host-gw",
        PodNetwork::Wireguard => "wireguard",
    };
    let own = format!("clusterDNS: {}\npodNetwork: {network}\n", cluster.dns_ip);
    map("kube-system", "kubeadm-config", json!({ "ClusterConfiguration": upstream, "PintleConfiguration": own }))
}

fn group(name: &str) -> Value {
    json!({ "apiGroup": RBAC, "kind": "Group", "name": name })
}

fn cluster_role(name: &str, rules: Value) -> Result<ClusterRole> {
    Ok(ClusterRole::from_value(json!({ "metadata": { "name": name }, "rules": rules }))?)
}

fn bind_cluster(name: &str, role: &str, subject: Value) -> Result<ClusterRoleBinding> {
    let role = json!({ "apiGroup": RBAC, "kind": "ClusterRole", "name": role });
    let value = json!({ "metadata": { "name": name }, "roleRef": role, "subjects": [subject] });
    Ok(ClusterRoleBinding::from_value(value)?)
}

fn reading(namespace: &str, name: &str, map: &str, subjects: &[Value]) -> Result<(Role, RoleBinding)> {
    let metadata = json!({ "name": name, "namespace": namespace });
    let rule = json!({ "apiGroups": [""], "resources": ["configmaps"], "resourceNames": [map], "verbs": ["get"] });
    let role = Role::from_value(json!({ "metadata": metadata, "rules": [rule] }))?;
    let reference = json!({ "apiGroup": RBAC, "kind": "Role", "name": name });
    let binding = json!({ "metadata": metadata, "roleRef": reference, "subjects": subjects });
    Ok((role, RoleBinding::from_value(binding)?))
}

async fn roles(client: &Client) -> Result<()> {
    let anonymous = json!({ "apiGroup": RBAC, "kind": "User", "name": "system:anonymous" });
    let info = reading("kube-public", "kubeadm:bootstrap-signer-clusterinfo", "cluster-info", &[anonymous])?;
    let nodes = [group(DEFAULT_GROUP), group(NODES)];
    let config = reading("kube-system", "kubeadm:nodes-kubeadm-config", "kubeadm-config", &nodes)?;
    let get = json!([{ "apiGroups": [""], "resources": ["nodes"], "verbs": ["get"] }]);
    let ask = ["certificatesigningrequests/selfnodeserving", "certificatesigningrequests/nodeproxyclient"];
    let ask = json!([{ "apiGroups": [REQUESTS], "resources": ask, "verbs": ["create"] }]);
    let signers = ["kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client"];
    let approve = json!([
        { "apiGroups": [REQUESTS], "resources": ["signers"], "resourceNames": signers, "verbs": ["approve"] }
    ]);
    let approver = json!({ "kind": "ServiceAccount", "name": "certificate-controller", "namespace": "kube-system" });
    let cluster_roles = [
        cluster_role("kubeadm:get-nodes", get)?,
        cluster_role("pintle:node-certificates", ask)?,
        cluster_role("pintle:node-certificates-approver", approve)?,
    ];
    let requests = "system:certificates.k8s.io:certificatesigningrequests";
    let bindings = [
        bind_cluster("kubeadm:get-nodes", "kubeadm:get-nodes", group(DEFAULT_GROUP))?,
        bind_cluster("kubeadm:kubelet-bootstrap", "system:node-bootstrapper", group(DEFAULT_GROUP))?,
        bind_cluster("kubeadm:node-autoapprove-bootstrap", &format!("{requests}:nodeclient"), group(DEFAULT_GROUP))?,
        bind_cluster(
            "kubeadm:node-autoapprove-certificate-rotation",
            &format!("{requests}:selfnodeclient"),
            group(NODES),
        )?,
        bind_cluster("pintle:node-certificates", "pintle:node-certificates", group(NODES))?,
        bind_cluster("pintle:node-certificates-approver", "pintle:node-certificates-approver", approver)?,
    ];
    let pairs = futures::future::try_join_all(
        [&info, &config].map(async |(role, binding)| tokio::try_join!(make(client, role), make(client, binding))),
    );
    let roles = futures::future::try_join_all(cluster_roles.iter().map(|role| make(client, role)));
    let bindings = futures::future::try_join_all(bindings.iter().map(|binding| make(client, binding)));
    tokio::try_join!(pairs, roles, bindings).map(drop)
}

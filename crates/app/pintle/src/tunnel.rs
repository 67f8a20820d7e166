//! This node's end of the WireGuard tunnels between nodes, and how nodes tell theirs: two annotations of the Node object.
//!
//! A node's kubelet may only write its own Node object, so nobody can take another node's place.

use crate::cluster::Cluster;
use anyhow::{Context, Result};
use pintle_client::{Client, ClientError, Patch, PatchOptions};
use pintle_network::{TunnelConfig, TunnelEnd};
use pintle_types::k8s::api::core::v1::Node;
use serde_json::json;

/// The public key, as `wg` writes it.
const KEY: &str = "pintle.io/wireguard-public-key";
/// The address and the port that packets for the node's pods are sent to.
const ENDPOINT: &str = "pintle.io/wireguard-endpoint";

/// The two annotations of a node that has both, unread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    key: String,
    endpoint: String,
}

/// Makes this node's link and key, with `--pod-network wireguard`. Blocks for some milliseconds.
pub(crate) fn open(cluster: &Cluster) -> Result<Option<TunnelEnd>> {
    if cluster.settings.pod_network() != pintle_cli::PodNetwork::Wireguard {
        return Ok(None);
    }
    let config = TunnelConfig {
        device_prefix: crate::pod_network::device_prefix(cluster),
        key_file: cluster.data("wireguard.key"),
        port: cluster.settings.wireguard_port(),
        node: cluster.node_ip,
    };
    Ok(Some(TunnelEnd::open(&config).context("set up the network between nodes (--pod-network wireguard)")?))
}

impl Told {
    pub(crate) fn of(node: &Node) -> Option<Self> {
        let annotations = node.metadata.annotations.as_ref()?;
        Some(Self { key: annotations.get(KEY)?.clone(), endpoint: annotations.get(ENDPOINT)?.clone() })
    }

    fn by(end: &TunnelEnd) -> Self {
        Self { key: end.key.to_string(), endpoint: end.endpoint.to_string() }
    }

    /// # Errors
    /// When an annotation is none of ours, with its name.
    pub(crate) fn read(&self) -> Result<TunnelEnd> {
        let Self { key, endpoint } = self;
        Ok(TunnelEnd {
            key: key.parse().with_context(|| format!("its annotation {KEY}={key:?}"))?,
            endpoint: endpoint.parse().with_context(|| format!("its annotation {ENDPOINT}={endpoint:?}"))?,
        })
    }
}

/// Tells the others this node's end, or that it has none any more; what is told already is not told again.
pub(crate) async fn tell(client: &Client, node: &Node, own: Option<&TunnelEnd>) -> Result<(), ClientError> {
    let wanted = own.map(Told::by);
    if Told::of(node) == wanted {
        return Ok(());
    }
    let (key, endpoint) = (wanted.as_ref().map(|told| &told.key), wanted.as_ref().map(|told| &told.endpoint));
    let patch = Patch::Merge(json!({ "metadata": { "annotations": { KEY: key, ENDPOINT: endpoint } } }));
    let name = node.metadata.name.as_deref().unwrap_or_default();
    client.patch::<Node>("", name, patch, &PatchOptions::default()).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(annotations: serde_json::Value) -> Node {
        serde_json::from_value(json!({ "metadata": { "name": "n", "annotations": annotations } })).unwrap()
    }

    #[test]
    fn what_is_told_is_read() {
        let key = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=";
        for endpoint in ["192.168.5.2:51820", "[fd05::2]:7000"] {
            let end = TunnelEnd { key: key.parse().unwrap(), endpoint: endpoint.parse().unwrap() };
            let Told { key, endpoint } = Told::by(&end);
            let told = Told::of(&node(json!({ KEY: key, ENDPOINT: endpoint }))).unwrap();
            assert_eq!(told.read().unwrap(), end);
        }
        assert_eq!(Told::of(&node(json!({ KEY: key }))), None);
        assert_eq!(Told::of(&node(json!(null))), None);
    }

    #[test]
    fn a_wrong_annotation_is_named() {
        let key = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=";
        for (key, endpoint, named) in [("x", "10.0.0.1:1", KEY), (key, "10.0.0.1", ENDPOINT), (key, "host:1", ENDPOINT)]
        {
            let told = Told::of(&node(json!({ KEY: key, ENDPOINT: endpoint }))).unwrap();
            let error = format!("{:#}", told.read().unwrap_err());
            assert!(error.contains(named), "{error}");
        }
    }
}

//! Who the node half is: the clients of kubelet and proxy, and the certificate that the kubelet serves with.
//!
//! The node half of a server and an agent differ in nothing else. A server makes its node's certificates itself and
//! asks in process; an agent was given its certificates when it joined, and asks over the network.

use crate::cluster::Cluster;
use crate::control_plane::ControlPlane;
use crate::credentials::Credentials;
use crate::servers::Servers;
use anyhow::{Context, Result};
use pintle_apiserver::User;
use pintle_client::{Client, HttpConfig, HttpTransport};
use pintle_pki::{Identity, LiveIdentity};
use std::path::Path;
use std::sync::Arc;

/// The user that proxy and DNS ask as.
pub(crate) const PROXY: &str = "system:kube-proxy";
/// The group of all kubelets.
pub(crate) const NODES: &str = "system:nodes";
/// The files of an agent, in `pki/` of the data directory.
pub(crate) const AUTHORITY_FILE: &str = "ca.crt";
pub(crate) const KUBELET_CLIENT: &str = "kubelet-client";
pub(crate) const KUBELET_SERVING: &str = "kubelet";
pub(crate) const PROXY_CLIENT: &str = "kube-proxy";

/// What the node half acts with.
pub(crate) struct NodeIdentity {
    pub(crate) kubelet: Client,
    /// Of the service proxy, DNS, and whatever else watches for the whole node.
    pub(crate) proxy: Client,
    pub(crate) authority_pem: String,
    pub(crate) serving: Arc<LiveIdentity>,
    /// What an agent renews: the certificate that it asks with as the kubelet, and that of the proxy.
    pub(crate) certificates: Option<(Arc<LiveIdentity>, Arc<LiveIdentity>)>,
    /// The API servers that an agent asks.
    pub(crate) servers: Option<Arc<Servers>>,
}

/// The user that a node's kubelet is.
pub(crate) fn kubelet_user(node_name: &str) -> String {
    format!("system:node:{node_name}")
}

impl NodeIdentity {
    pub(crate) fn of_server(cluster: &Cluster, credentials: &Credentials, plane: &ControlPlane) -> Result<Self> {
        let kubelet = User::new(kubelet_user(&cluster.node_name), &[NODES]);
        Ok(Self {
            kubelet: plane.client(kubelet, "kubelet"),
            proxy: plane.client(User::new(PROXY, &[]), "kube-proxy"),
            authority_pem: credentials.authority.certificate_pem().to_owned(),
            serving: Arc::clone(&credentials.kubelet_server),
            certificates: None,
            servers: None,
        })
    }

    /// # Errors
    /// When this machine has not joined a cluster.
    pub(crate) fn of_agent(cluster: &Cluster) -> Result<Self> {
        let directory = cluster.data("pki");
        let url = cluster.settings.server.clone();
        let url = url.context("this machine has not joined a cluster: run `pintle join` first")?;
        let load = |name: &str| -> Result<Arc<LiveIdentity>> {
            let found = Identity::load(&directory, name)?;
            let missing = || format!("{}/{name}.crt is missing: run `pintle join` again", directory.display());
            Ok(LiveIdentity::new(found.with_context(missing)?)?)
        };
        let authority_pem = read_authority(&directory)?;
        let (kubelet, proxy) = (load(KUBELET_CLIENT)?, load(PROXY_CLIENT)?);
        let servers = Arc::new(Servers::open(cluster, &url)?);
        let client = |identity: &Arc<LiveIdentity>, agent: &str| -> Result<Client> {
            let tls = pintle_pki::client_config_live(&authority_pem, identity)?;
            Ok(servers.client(tls)?.with_user_agent(agent))
        };
        Ok(Self {
            kubelet: client(&kubelet, "kubelet")?,
            proxy: client(&proxy, "kube-proxy")?,
            serving: load(KUBELET_SERVING)?,
            certificates: Some((kubelet, proxy)),
            authority_pem,
            servers: Some(servers),
        })
    }

    /// Shows what an agent's files have from now on; the names of what changed.
    pub(crate) fn refresh(&self, cluster: &Cluster) -> Result<Vec<&'static str>> {
        let Some((kubelet, proxy)) = &self.certificates else { return Ok(Vec::new()) };
        let mut changed = Vec::new();
        for (name, live) in [(KUBELET_CLIENT, kubelet), (KUBELET_SERVING, &self.serving), (PROXY_CLIENT, proxy)] {
            let found = Identity::load(&cluster.data("pki"), name)?;
            if let Some(found) = found.filter(|found| found.certificate_pem != live.identity().certificate_pem) {
                live.replace(found)?;
                changed.push(name);
            }
        }
        Ok(changed)
    }
}

fn read_authority(directory: &Path) -> Result<String> {
    let path = directory.join(AUTHORITY_FILE);
    std::fs::read_to_string(&path).with_context(|| format!("read {}; run `pintle join` first", path.display()))
}

/// A client of an API server over the network.
pub(crate) fn remote(url: &str, tls: Arc<rustls::ClientConfig>, token: Option<String>) -> Result<Client> {
    let server = url.parse().with_context(|| format!("the API server's address {url:?}"))?;
    let token = token.map(pintle_client::Token::Fixed);
    let transport = HttpTransport::new(HttpConfig { server, tls: Some(tls), server_name: None, token })?;
    Ok(Client::new(Arc::new(transport)))
}

//! The cluster's certificates and keys, and the administrator's kubeconfig.

use crate::cluster::{Cluster, private_directory};
use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use pintle_clock::Clock;
use pintle_pki::{CertificateAuthority, Identity, SigningKey};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

/// Everything that proves who is who. Made once, kept in `pki/` of the data directory.
pub(crate) struct Credentials {
    pub(crate) authority: Arc<CertificateAuthority>,
    pub(crate) api_server: Identity,
    /// What the API server shows to kubelets.
    pub(crate) kubelet_client: Identity,
    pub(crate) kubelet_server: Identity,
    pub(crate) administrator: Identity,
    /// What the API server shows to other API servers that it passes requests to.
    pub(crate) front_proxy: Arc<Identity>,
    /// The authority of that, PEM.
    pub(crate) front_proxy_authority: String,
    pub(crate) token_key: Arc<SigningKey>,
}

/// The name in the certificate that other API servers know this one by.
pub(crate) const PROXY_NAME: &str = "front-proxy-client";

impl Credentials {
    pub(crate) fn load_or_create(cluster: &Cluster, clock: &dyn Clock) -> Result<Self> {
        let directory = cluster.data("pki");
        private_directory(&directory)?;
        let now = clock.now();
        let authority = CertificateAuthority::load_or_create(&directory, "ca", now)?;
        let masters = ["system:masters"];
        // An authority of its own: whoever shows its certificates is believed who they speak for.
        let front_proxy_authority = CertificateAuthority::load_or_create(&directory, "front-proxy-ca", now)?;
        let front_proxy = front_proxy_authority.client_in(&directory, PROXY_NAME, PROXY_NAME, &[], now)?;
        Ok(Self {
            api_server: authority.server_in(&directory, "apiserver", &server_names(cluster), now)?,
            kubelet_client: authority.client_in(
                &directory,
                "apiserver-kubelet-client",
                "kube-apiserver-kubelet-client",
                &masters,
                now,
            )?,
            kubelet_server: authority.server_in(&directory, "kubelet", &node_names(cluster), now)?,
            administrator: authority.client_in(&directory, "admin", "kubernetes-admin", &masters, now)?,
            front_proxy: Arc::new(front_proxy),
            front_proxy_authority: front_proxy_authority.certificate_pem().to_owned(),
            token_key: Arc::new(SigningKey::load_or_create(&directory, "service-account")?),
            authority: Arc::new(authority),
        })
    }

    /// Writes the administrator's kubeconfig, readable by its owner only.
    pub(crate) fn write_kubeconfig(&self, path: &Path, url: &str) -> Result<()> {
        let text = kubeconfig(url, self.authority.certificate_pem(), &self.administrator);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
        }
        let temporary = path.with_extension("new");
        let options = std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).clone();
        let written = options.open(&temporary).and_then(|mut file| file.write_all(text.as_bytes()));
        written.and_then(|()| std::fs::rename(&temporary, path)).with_context(|| format!("write {}", path.display()))
    }
}

fn server_names(cluster: &Cluster) -> Vec<String> {
    let domain = cluster.settings.cluster_domain();
    let mut names: Vec<String> =
        ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned).into();
    names.push(format!("kubernetes.default.svc.{domain}"));
    names.push(cluster.node_name.clone());
    names.extend(["127.0.0.1".to_owned(), cluster.node_ip.to_string(), cluster.kubernetes_ip.to_string()]);
    let bind = cluster.settings.bind_address();
    if !bind.is_unspecified() {
        names.push(bind.to_string());
    }
    names
}

fn node_names(cluster: &Cluster) -> Vec<String> {
    vec![cluster.node_name.clone(), "localhost".into(), cluster.node_ip.to_string(), "127.0.0.1".into()]
}

fn kubeconfig(url: &str, authority_pem: &str, user: &Identity) -> String {
    let [ca, certificate, key] = [authority_pem, &user.certificate_pem, &user.key_pem].map(|pem| BASE64.encode(pem));
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: pintle
  cluster:
    server: {url}
    certificate-authority-data: {ca}
contexts:
- name: pintle
  context:
    cluster: pintle
    user: pintle-admin
current-context: pintle
users:
- name: pintle-admin
  user:
    client-certificate-data: {certificate}
    client-key-data: {key}
"
    )
}

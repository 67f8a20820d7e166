//! An API server alone, in a process of its own: what is measured when no other is named.

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use pintle_apiserver::{Config, Server};
use pintle_kinds::Table;
use pintle_pki::{CertificateAuthority, ClientCertificates, SigningKey, server_config};
use pintle_registry::{Options, Registry};
use pintle_store::EmbeddedStore;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Serves on a free port of the loopback, with the store in `directory`, until the process is killed. The kubeconfig
/// appears there when requests are answered.
pub(crate) async fn run(directory: &Path) -> Result<()> {
    let clock = pintle_clock::system();
    let ca = CertificateAuthority::load_or_create(directory, "ca", clock.now())?;
    let identity = ca.server_in(directory, "server", &["127.0.0.1".into()], clock.now())?;
    let tls = server_config(&identity, ClientCertificates::Optional(ca.certificate_pem()))?;
    let key = Arc::new(SigningKey::load_or_create(directory, "service-account")?);
    let local = SocketAddr::new(IpAddr::from([127, 0, 0, 1]), 0);
    let config = Config::new(local, [192, 0, 2, 1].into(), tls, ca.certificate_pem().to_owned(), key);
    let store = Arc::new(EmbeddedStore::open(directory.join("store.db"), pintle_store::embedded::Options::default())?);
    let registry = Registry::open(store, Table::builtin(), clock.clone(), Options::default()).await?;
    let server = Server::new(config, registry, clock.clone());
    let stop = CancellationToken::new();
    let bound = server.bind().await?;
    server.start(stop.clone()).await?;
    let admin = ca.issue_client("kubernetes-admin", &["system:masters"], clock.now())?;
    let address = bound.address();
    let data = |pem: &str| BASE64.encode(pem);
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: load\n\
         clusters: [{{name: load, cluster: {{server: \"https://{address}\", certificate-authority-data: {}}}}}]\n\
         contexts: [{{name: load, context: {{cluster: load, user: admin}}}}]\n\
         users: [{{name: admin, user: {{client-certificate-data: {}, client-key-data: {}}}}}]\n",
        data(ca.certificate_pem()),
        data(&admin.certificate_pem),
        data(&admin.key_pem)
    );
    let (new, file) = (directory.join("kubeconfig.new"), directory.join("kubeconfig"));
    std::fs::write(&new, text).with_context(|| format!("write {}", new.display()))?;
    std::fs::rename(&new, &file)?;
    bound.serve(stop).await?;
    Ok(())
}

//! Serves an empty cluster from memory, to try clients against: `serve KUBECONFIG [PORT [ETCD]]`, where ETCD is the URL
//! of a member of etcd to keep the state in instead.
//!
//! Writes a kubeconfig for an administrator and answers on 127.0.0.1 until it is interrupted. The only controller
//! is the one without which no pod can be made: every namespace gets its default service account.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::StreamExt;
use pintle_apiserver::{Config, Server, User};
use pintle_client::{Client, ClientError, WatchEvent, WatchOptions};
use pintle_kinds::Table;
use pintle_pki::{CertificateAuthority, ClientCertificates, SigningKey, client_config_http1, server_config};
use pintle_registry::{Options, Registry};
use pintle_store::{EmbeddedStore, EtcdStore, Store};
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{Namespace, ServiceAccount};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let kubeconfig = PathBuf::from(arguments.next().ok_or("usage: serve KUBECONFIG [PORT]")?);
    let port = arguments.next().map_or(Ok(0), |p| p.parse())?;
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let began = std::time::Instant::now();
    let keys = tempfile::tempdir()?;
    let store: Arc<dyn Store> = match arguments.next() {
        None => Arc::new(EmbeddedStore::in_memory()?),
        Some(etcd) => Arc::new(EtcdStore::open(pintle_store::etcd::Options::new([etcd])).await?),
    };
    let (server, ca) = server(keys.path(), port, store).await?;
    let stop = CancellationToken::new();
    let bound = server.bind().await?;
    server.start(stop.clone()).await?;
    write_kubeconfig(&kubeconfig, &ca, bound.address())?;
    let client = Client::new(Arc::new(server.local_transport(User::new("system:apiserver", &["system:masters"]))));
    tokio::spawn(async move {
        if let Err(error) = give_accounts(client).await {
            tracing::error!(%error, "namespaces no longer get service accounts");
        }
    });
    tracing::info!(address = %bound.address(), kubeconfig = %kubeconfig.display(), started_in = ?began.elapsed(), "serving");
    let interrupted = stop.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            interrupted.cancel();
        }
    });
    bound.serve(stop).await?;
    Ok(())
}

async fn server(keys: &Path, port: u16, store: Arc<dyn Store>) -> Result<(Arc<Server>, CertificateAuthority), Failure> {
    let clock = pintle_clock::system();
    let local = IpAddr::from([127, 0, 0, 1]);
    let ca = CertificateAuthority::load_or_create(keys, "ca", clock.now())?;
    let identity = ca.server_in(keys, "server", &["127.0.0.1".into(), "localhost".into()], clock.now())?;
    let tls = server_config(&identity, ClientCertificates::Optional(ca.certificate_pem()))?;
    let token_key = Arc::new(SigningKey::load_or_create(keys, "service-account")?);
    let mut config = Config::new(
        SocketAddr::new(local, port),
        [192, 0, 2, 1].into(),
        tls,
        ca.certificate_pem().to_owned(),
        token_key,
    );
    let kubelet_client = ca.client_in(keys, "kubelet-client", "kube-apiserver", &["system:masters"], clock.now())?;
    config.kubelet_tls = Some(client_config_http1(ca.certificate_pem(), Some(&kubelet_client))?);
    let registry = Registry::open(store, Table::builtin(), clock.clone(), Options::default()).await?;
    Ok((Server::new(config, registry, clock), ca))
}

fn write_kubeconfig(path: &Path, ca: &CertificateAuthority, address: SocketAddr) -> Result<(), Failure> {
    let admin = ca.issue_client("kubernetes-admin", &["system:masters"], pintle_clock::system().now())?;
    let data = |pem: &str| BASE64.encode(pem);
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: pintle\n\
         clusters: [{{name: pintle, cluster: {{server: \"https://{address}\", certificate-authority-data: {}}}}}]\n\
         contexts: [{{name: pintle, context: {{cluster: pintle, user: admin}}}}]\n\
         users: [{{name: admin, user: {{client-certificate-data: {}, client-key-data: {}}}}}]\n",
        data(ca.certificate_pem()),
        data(&admin.certificate_pem),
        data(&admin.key_pem)
    );
    Ok(std::fs::write(path, text)?)
}

async fn give_accounts(client: Client) -> Result<(), ClientError> {
    loop {
        let mut namespaces = client.watch::<Namespace>("", &WatchOptions::default()).await?;
        while let Some(event) = namespaces.next().await {
            let WatchEvent::Added(namespace) = event? else { continue };
            let mut account = ServiceAccount::default();
            account.metadata.name = Some("default".into());
            account.metadata.namespace = Some(namespace.name().to_owned());
            match client.create(&account).await {
                Err(error) if !error.is_already_exists() => tracing::warn!(%error, "making a service account"),
                _ => {}
            }
        }
    }
}

//! Opens the store that the settings name: the embedded one, or a cluster of etcd.

use crate::cluster::Cluster;
use anyhow::{Context, Result, ensure};
use pintle_cli::Settings;
use pintle_pki::Identity;
use pintle_store::Store;
use pintle_store::embedded::{self, EmbeddedStore};
use pintle_store::etcd::{self, EtcdStore};
use std::path::Path;
use std::sync::Arc;

/// Opens the store of the cluster.
pub(crate) async fn open(cluster: &Cluster) -> Result<Arc<dyn Store>> {
    match cluster.settings.datastore_endpoints.as_deref() {
        None | Some("") => embedded(cluster).await,
        Some(endpoints) => {
            let options = options(endpoints, &cluster.settings)?;
            Ok(Arc::new(EtcdStore::open(options).await.context("reach etcd (datastore-endpoints)")?))
        }
    }
}

async fn embedded(cluster: &Cluster) -> Result<Arc<dyn Store>> {
    let directory = cluster.data("server");
    crate::cluster::private_directory(&directory)?;
    let path = directory.join("state.db");
    let opened = tokio::task::spawn_blocking(move || EmbeddedStore::open(path, embedded::Options::default()));
    Ok(Arc::new(opened.await?.context("open the state store")?))
}

fn options(endpoints: &str, settings: &Settings) -> Result<etcd::Options> {
    let endpoints = endpoints.split(',').map(|endpoint| endpoint.trim().to_owned());
    let mut options = etcd::Options::new(endpoints.filter(|endpoint| !endpoint.is_empty()));
    let prefix = settings.etcd_prefix();
    ensure!(prefix.starts_with('/') && prefix.len() > 1, "etcd-prefix must begin with a slash and name something");
    options.prefix = prefix;
    let identity = match (&settings.datastore_certfile, &settings.datastore_keyfile) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some(Identity { certificate_pem: read(certificate)?, key_pem: read(key)? }),
        _ => anyhow::bail!("datastore-certfile and datastore-keyfile go together: set both or none"),
    };
    if let Some(authority) = &settings.datastore_cafile {
        let tls = pintle_pki::client_config(&read(authority)?, identity.as_ref());
        options.tls = Some(tls.context("use the certificates for etcd")?);
    }
    Ok(options)
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

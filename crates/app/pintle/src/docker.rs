//! Serves the Docker API where the settings say, and ends it as they say.

use crate::cluster::Cluster;
use anyhow::{Context, Result, ensure};
use pintle_cli::{OnExit, Settings};
use pintle_docker::Daemon;
use pintle_docker_api::{Config, DockerApi, Remote};
use pintle_pki::{ClientCertificates, Identity};
use std::path::Path;
use std::sync::Arc;

/// Opens the sockets of the Docker API.
pub(crate) fn bind(cluster: &Cluster, daemon: &Arc<Daemon>) -> Result<DockerApi> {
    let settings = &cluster.settings;
    let config = Config {
        socket: settings.docker_socket(),
        remote: remote(settings)?,
        daemon: Arc::clone(daemon),
        registries: cluster.registries.clone(),
    };
    Ok(pintle_docker_api::bind(config)?)
}

fn remote(settings: &Settings) -> Result<Option<Remote>> {
    let Some(host) = settings.docker_host.clone().filter(|host| !host.is_empty()) else { return Ok(None) };
    ensure!(
        settings.tlsverify != Some(false),
        "docker-host {host}: whoever reaches the Docker API has this machine: it is served only to clients with \
         certificates (tlsverify)"
    );
    let given = (&settings.tlscacert, &settings.tlscert, &settings.tlskey);
    let (Some(authority), Some(certificate), Some(key)) = given else {
        anyhow::bail!("docker-host {host} needs tlscacert, tlscert and tlskey: the API is served with mutual TLS only")
    };
    let identity = Identity { certificate_pem: read(certificate)?, key_pem: read(key)? };
    let tls = pintle_pki::server_config(&identity, ClientCertificates::Required(&read(authority)?));
    let mut tls = (*tls.context("use the certificates of the Docker API")?).clone();
    // Streams take the connection over, which HTTP/2 has no way for.
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(Remote { host, tls: Arc::new(tls) }))
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

/// Stops Docker's containers where the settings say so, as dockerd does without `live-restore`; else they run on.
pub(crate) async fn end(daemon: &Arc<Daemon>, on_exit: OnExit) {
    daemon.end();
    if on_exit == OnExit::Stop {
        daemon.stop_all().await;
    }
}

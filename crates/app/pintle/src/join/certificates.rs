//! Certificates from the cluster: a request as an object, approved and signed by its controllers.

use crate::cluster::Cluster;
use crate::identity::{NODES, PROXY, kubelet_user};
use anyhow::{Context, Result, bail};
use futures::StreamExt;
use pintle_client::{Client, WatchEvent, WatchOptions};
use pintle_pki::{Identity, KeyAndRequest};
use pintle_types::Kind;
use pintle_types::k8s::ByteString;
use pintle_types::k8s::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use std::time::Duration;

/// A person may have to approve it.
const PATIENCE: Duration = Duration::from_secs(300);

/// What is asked for.
pub(super) struct Wanted {
    signer: &'static str,
    common_name: String,
    organization: Option<&'static str>,
    names: Vec<String>,
    purpose: &'static str,
}

impl Wanted {
    /// What a kubelet asks the API server with.
    pub(super) fn kubelet(cluster: &Cluster) -> Self {
        Self {
            signer: "kubernetes.io/kube-apiserver-client-kubelet",
            common_name: kubelet_user(&cluster.node_name),
            organization: Some(NODES),
            names: Vec::new(),
            purpose: "client auth",
        }
    }

    /// What a kubelet answers the API server with.
    pub(super) fn serving(cluster: &Cluster) -> Self {
        Self {
            signer: "kubernetes.io/kubelet-serving",
            names: [cluster.node_name.clone()]
                .into_iter()
                .chain(cluster.node_ips.iter().map(ToString::to_string))
                .collect(),
            purpose: "server auth",
            ..Self::kubelet(cluster)
        }
    }

    /// What the proxy asks the API server with.
    pub(super) fn proxy() -> Self {
        Self {
            signer: "kubernetes.io/kube-apiserver-client",
            common_name: PROXY.to_owned(),
            organization: None,
            names: Vec::new(),
            purpose: "client auth",
        }
    }
}

/// Asks for a certificate and waits for it. The key never leaves this machine.
pub(super) async fn obtain(client: &Client, wanted: &Wanted) -> Result<Identity> {
    let asked = KeyAndRequest::new(&wanted.common_name, wanted.organization, &wanted.names)?;
    let mut request = CertificateSigningRequest {
        spec: CertificateSigningRequestSpec {
            request: ByteString(asked.request_pem.clone().into_bytes()),
            signer_name: wanted.signer.to_owned(),
            usages: Some(vec!["digital signature".to_owned(), wanted.purpose.to_owned()]),
            ..CertificateSigningRequestSpec::default()
        },
        ..CertificateSigningRequest::default()
    };
    request.metadata.generate_name = Some("csr-".to_owned());
    let made = client.create(&request).await;
    let made = made.with_context(|| format!("ask for a certificate for {}", wanted.common_name))?;
    let signed = match tokio::time::timeout(PATIENCE, signed(client, &made)).await {
        Ok(signed) => signed?,
        Err(_) => bail!(
            "the request {0} for {1} was not approved within {2} s: see `kubectl describe csr {0}`",
            made.name(),
            wanted.common_name,
            PATIENCE.as_secs()
        ),
    };
    Ok(asked.into_identity(signed)?)
}

/// The certificate, once it is there. A watch that ends early is begun again.
async fn signed(client: &Client, made: &CertificateSigningRequest) -> Result<String> {
    let fields = format!("metadata.name={}", made.name());
    let mut since = made.metadata.resource_version.clone().unwrap_or_default();
    loop {
        let options =
            WatchOptions { field_selector: fields.clone(), resource_version: since.clone(), ..WatchOptions::default() };
        let mut watch = client.watch::<CertificateSigningRequest>("", &options).await?;
        while let Some(event) = watch.next().await {
            match event {
                Ok(WatchEvent::Added(request) | WatchEvent::Modified(request)) => {
                    if let Some(certificate) = answer(&request)? {
                        return Ok(certificate);
                    }
                    since = request.metadata.resource_version.clone().unwrap_or_default();
                }
                Ok(WatchEvent::Deleted(_)) => bail!("the request {} was deleted", made.name()),
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(%error, "the watch for a certificate ended early");
                    break;
                }
            }
        }
    }
}

/// The certificate, or why there will be none.
fn answer(request: &CertificateSigningRequest) -> Result<Option<String>> {
    let Some(status) = &request.status else { return Ok(None) };
    for condition in status.conditions.iter().flatten() {
        if ["Denied", "Failed"].contains(&condition.type_.as_str()) && condition.status == "True" {
            let why = condition.message.as_deref().unwrap_or_default();
            bail!("the request {} is {}: {why}", request.name(), condition.type_.to_lowercase());
        }
    }
    let Some(certificate) = &status.certificate else { return Ok(None) };
    Ok(Some(String::from_utf8(certificate.0.clone()).context("read the certificate")?))
}

//! TLS settings: TLS 1.2 and 1.3 on ring, HTTP/2 before HTTP/1.1, client certificates where wanted.

use crate::identity::certificates;
use crate::{Error, Identity, LiveIdentity, Peer};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::{ResolvesServerCert, ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;

const HTTP_2: &[u8] = b"h2";
const HTTP_1: &[u8] = b"http/1.1";
/// Sessions that clients may resume; each keeps the client's certificate.
const RESUMABLE_SESSIONS: usize = 64;

/// What a server does about client certificates.
#[derive(Clone, Copy, Debug)]
pub enum ClientCertificates<'a> {
    /// Does not ask for one.
    Ignored,
    /// Asks; whoever has none is let in as nobody. One that this authority (PEM) did not sign ends the handshake.
    Optional(&'a str),
    /// Whoever has none is refused.
    Required(&'a str),
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots(pem: &str) -> Result<Arc<RootCertStore>, Error> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(pem)? {
        store.add(certificate)?;
    }
    if store.is_empty() {
        return Err(Error::malformed("the authority's certificate file", "it has no certificate"));
    }
    Ok(Arc::new(store))
}

/// Settings of a server that offers HTTP/2 and HTTP/1.1.
pub fn server_config(identity: &Identity, clients: ClientCertificates<'_>) -> Result<Arc<ServerConfig>, Error> {
    server_config_live(&LiveIdentity::new(identity.clone())?, clients)
}

/// The same, for an identity that is replaced while the server runs.
pub fn server_config_live(
    identity: &Arc<LiveIdentity>,
    clients: ClientCertificates<'_>,
) -> Result<Arc<ServerConfig>, Error> {
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let verifier = |pem: &str| Ok::<_, Error>(WebPkiClientVerifier::builder_with_provider(roots(pem)?, provider()));
    let builder = match clients {
        ClientCertificates::Ignored => builder.with_no_client_auth(),
        ClientCertificates::Optional(pem) => {
            builder.with_client_cert_verifier(verifier(pem)?.allow_unauthenticated().build()?)
        }
        ClientCertificates::Required(pem) => builder.with_client_cert_verifier(verifier(pem)?.build()?),
    };
    let mut config = builder.with_cert_resolver(Arc::clone(identity) as Arc<dyn ResolvesServerCert>);
    config.alpn_protocols = vec![HTTP_2.to_vec(), HTTP_1.to_vec()];
    config.session_storage = ServerSessionMemoryCache::new(RESUMABLE_SESSIONS);
    Ok(Arc::new(config))
}

/// Settings of a client that trusts the authorities of `ca_pem` and shows `identity`; speaks HTTP/2 and HTTP/1.1.
pub fn client_config(ca_pem: &str, identity: Option<&Identity>) -> Result<Arc<ClientConfig>, Error> {
    client(ca_pem, identity, vec![HTTP_2.to_vec(), HTTP_1.to_vec()])
}

/// As [`client_config`], but HTTP/1.1 only: connections that are to be upgraded need it.
pub fn client_config_http1(ca_pem: &str, identity: Option<&Identity>) -> Result<Arc<ClientConfig>, Error> {
    client(ca_pem, identity, vec![HTTP_1.to_vec()])
}

fn client(ca_pem: &str, identity: Option<&Identity>, protocols: Vec<Vec<u8>>) -> Result<Arc<ClientConfig>, Error> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(ca_pem)?);
    let mut config = match identity {
        Some(identity) => builder.with_client_auth_cert(identity.chain()?, identity.key()?)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = protocols;
    Ok(Arc::new(config))
}

/// Settings of a client that trusts the authorities of `ca_pem` and shows an identity that is replaced while it runs;
/// speaks HTTP/2 and HTTP/1.1.
pub fn client_config_live(ca_pem: &str, identity: &Arc<LiveIdentity>) -> Result<Arc<ClientConfig>, Error> {
    live_client(ca_pem, identity, vec![HTTP_2.to_vec(), HTTP_1.to_vec()])
}

/// As [`client_config_live`], but HTTP/1.1 only.
pub fn client_config_http1_live(ca_pem: &str, identity: &Arc<LiveIdentity>) -> Result<Arc<ClientConfig>, Error> {
    live_client(ca_pem, identity, vec![HTTP_1.to_vec()])
}

fn live_client(ca_pem: &str, identity: &Arc<LiveIdentity>, alpn: Vec<Vec<u8>>) -> Result<Arc<ClientConfig>, Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(ca_pem)?)
        .with_client_cert_resolver(Arc::clone(identity) as Arc<dyn rustls::client::ResolvesClientCert>);
    config.alpn_protocols = alpn;
    Ok(Arc::new(config))
}

/// Settings of a client that believes any server. Only for what is proved in another way: what nodes read before they
/// know the cluster's authority is signed with their token.
pub fn client_config_unverified() -> Result<Arc<ClientConfig>, Error> {
    unverified(vec![HTTP_2.to_vec(), HTTP_1.to_vec()])
}

/// The same, but no protocol is asked for: servers then speak HTTP/1.1. For those who are asked not to look, such as
/// probes and the proxy to pods, whose certificates nobody gave them.
pub fn client_config_unverified_http1() -> Result<Arc<ClientConfig>, Error> {
    unverified(Vec::new())
}

fn unverified(alpn: Vec<Vec<u8>>) -> Result<Arc<ClientConfig>, Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer))
        .with_no_client_auth();
    config.alpn_protocols = alpn;
    Ok(Arc::new(config))
}

/// Whoever has the key of the certificate that it shows is believed, whosever it is. For those who are asked not to
/// look, such as probes, and registries and webhooks whose settings say so.
#[derive(Debug)]
pub struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Who the other side of a connection is, from the certificates that the handshake verified. To be asked once for
/// a connection, not once for a request.
pub fn peer(certificates: Option<&[CertificateDer<'_>]>) -> Option<Peer> {
    Peer::from_der(certificates?.first()?.as_ref()).ok().filter(|peer| !peer.common_name.is_empty())
}

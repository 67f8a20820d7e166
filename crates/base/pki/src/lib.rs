//! Makes and reads certificate authorities, certificates and keys, and the TLS settings built on them.
//!
//! All keys that are made here are ECDSA P-256. Knows nothing of who the names in certificates are: it hands them over as a [`Peer`].
//! The time is always an argument, so that expiry can be tested.

mod asking;
mod authority;
mod files;
mod identity;
mod live;
mod request;
mod sealed;
mod signing;
mod tls;

pub use asking::{KeyAndRequest, public_key_hashes};
pub use authority::CertificateAuthority;
pub use identity::{Identity, Peer, end_of_validity};
pub use live::LiveIdentity;
pub use request::CertificateRequest;
pub use sealed::{SEALING_KEY_BYTES, seal, sealing_key, unseal};
pub use signing::{SigningKey, VerifyingKey};
pub use tls::{
    AnyServer, ClientCertificates, client_config, client_config_http1, client_config_http1_live, client_config_live,
    client_config_unverified, client_config_unverified_http1, peer, server_config, server_config_live,
};

use std::path::PathBuf;

/// What can go wrong with keys and certificates.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {action} {path}: {source}")]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{what} is not what it should be: {why}")]
    Malformed { what: String, why: String },
    #[error("cannot make {what}: {source}")]
    Issue {
        what: String,
        #[source]
        source: rcgen::Error,
    },
    #[error("a certificate can carry at most two organizations, and {0:?} has more")]
    TooManyOrganizations(String),
    #[error("TLS settings: {0}")]
    Tls(#[from] rustls::Error),
    #[error("client certificates cannot be checked: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    #[error("the signing key failed")]
    Signing,
}

impl Error {
    fn malformed(what: impl Into<String>, why: impl std::fmt::Display) -> Self {
        Self::Malformed { what: what.into(), why: why.to_string() }
    }
}

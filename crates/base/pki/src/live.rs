//! An identity that is replaced while connections go on: new handshakes show the newest certificate.

use crate::{Error, Identity};
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{SignatureScheme, crypto::ring::sign::any_supported_type};
use std::sync::{Arc, PoisonError, RwLock};

/// Shared by everybody who shows it.
#[derive(Debug)]
pub struct LiveIdentity {
    current: RwLock<(Identity, Arc<CertifiedKey>)>,
}

fn certified(identity: &Identity) -> Result<Arc<CertifiedKey>, Error> {
    let key = any_supported_type(&identity.key()?)?;
    Ok(Arc::new(CertifiedKey::new(identity.chain()?, key)))
}

impl LiveIdentity {
    pub fn new(identity: Identity) -> Result<Arc<Self>, Error> {
        let key = certified(&identity)?;
        Ok(Arc::new(Self { current: RwLock::new((identity, key)) }))
    }

    /// Shows another certificate from now on.
    pub fn replace(&self, identity: Identity) -> Result<(), Error> {
        let key = certified(&identity)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = (identity, key);
        Ok(())
    }

    pub fn identity(&self) -> Identity {
        self.current.read().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    fn key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).1)
    }
}

impl ResolvesServerCert for LiveIdentity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.key())
    }
}

impl ResolvesClientCert for LiveIdentity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.key())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

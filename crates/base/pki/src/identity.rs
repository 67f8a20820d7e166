//! A certificate with its key, and the names that a certificate carries.

use crate::{Error, files};
use jiff::Timestamp;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::Path;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The subject of a certificate, as far as it says who somebody is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Peer {
    pub common_name: String,
    /// In the order of the certificate.
    pub organizations: Vec<String>,
}

impl Peer {
    /// Reads the subject of a certificate; its signature is not looked at.
    pub fn from_der(der: &[u8]) -> Result<Self, Error> {
        Ok(Self::of(parse(der)?.subject()))
    }

    pub(crate) fn of(subject: &x509_parser::x509::X509Name<'_>) -> Self {
        let text = |value: &x509_parser::x509::AttributeTypeAndValue<'_>| value.as_str().map(str::to_owned);
        Self {
            common_name: subject.iter_common_name().next().and_then(|v| text(v).ok()).unwrap_or_default(),
            organizations: subject.iter_organization().filter_map(|v| text(v).ok()).collect(),
        }
    }
}

/// A certificate chain with the key of its first certificate, both as PEM.
#[derive(Clone)]
pub struct Identity {
    pub certificate_pem: String,
    pub key_pem: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity(key not shown)")
    }
}

impl Identity {
    /// Reads `NAME.crt` and `NAME.key` of a directory; nothing when one of them is missing.
    pub fn load(dir: &Path, name: &str) -> Result<Option<Self>, Error> {
        let certificate_pem = files::read_if_there(&dir.join(format!("{name}.crt")))?;
        let key_pem = files::read_if_there(&dir.join(format!("{name}.key")))?;
        Ok(certificate_pem.zip(key_pem).map(|(certificate_pem, key_pem)| Self { certificate_pem, key_pem }))
    }

    /// Writes `NAME.key` and `NAME.crt` into a directory, mode 0600.
    pub fn save(&self, dir: &Path, name: &str) -> Result<(), Error> {
        files::write_private(&dir.join(format!("{name}.key")), &self.key_pem)?;
        files::write_private(&dir.join(format!("{name}.crt")), &self.certificate_pem)
    }

    /// The chain, the identity's own certificate first.
    pub fn chain(&self) -> Result<Vec<CertificateDer<'static>>, Error> {
        certificates(&self.certificate_pem)
    }

    pub fn key(&self) -> Result<PrivateKeyDer<'static>, Error> {
        PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).map_err(|e| Error::malformed("the private key", e))
    }

    /// Who the identity says it is.
    pub fn peer(&self) -> Result<Peer, Error> {
        Peer::from_der(self.leaf()?.as_ref())
    }

    /// Whether less than a fifth of the validity is left (or none, or it has not begun).
    pub fn needs_renewal(&self, now: Timestamp) -> Result<bool, Error> {
        let (from, to) = self.validity()?;
        Ok(now.as_second() < from || now.as_second() >= to - (to - from) / 5)
    }

    /// How long the certificate still needs no renewal.
    pub fn time_to_renewal(&self, now: Timestamp) -> Result<std::time::Duration, Error> {
        if self.needs_renewal(now)? {
            return Ok(std::time::Duration::ZERO);
        }
        let (from, to) = self.validity()?;
        let left = to - (to - from) / 5 - now.as_second();
        Ok(std::time::Duration::from_secs(left.unsigned_abs()))
    }

    /// The first and the last second, since 1970.
    fn validity(&self) -> Result<(i64, i64), Error> {
        seconds_of(self.leaf()?.as_ref())
    }

    /// The DNS names and addresses that the certificate is for, sorted.
    pub fn subject_alt_names(&self) -> Result<Vec<String>, Error> {
        let leaf = self.leaf()?;
        let certificate = parse(leaf.as_ref())?;
        let extension = certificate
            .subject_alternative_name()
            .map_err(|e| Error::malformed("the certificate's alternative names", e))?;
        let mut names: Vec<String> =
            extension.iter().flat_map(|e| e.value.general_names.iter()).filter_map(name_text).collect();
        names.sort();
        Ok(names)
    }

    pub(crate) fn leaf(&self) -> Result<CertificateDer<'static>, Error> {
        self.chain()?
            .into_iter()
            .next()
            .ok_or_else(|| Error::malformed("the certificate file", "it has no certificate"))
    }
}

fn name_text(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|b| std::net::Ipv4Addr::from(b).to_string()),
            16 => <[u8; 16]>::try_from(*bytes).ok().map(|b| std::net::Ipv6Addr::from(b).to_string()),
            _ => None,
        },
        _ => None,
    }
}

fn seconds_of(der: &[u8]) -> Result<(i64, i64), Error> {
    let certificate = parse(der)?;
    Ok((certificate.validity().not_before.timestamp(), certificate.validity().not_after.timestamp()))
}

/// When the first certificate of a PEM text runs out.
pub fn end_of_validity(pem: &str) -> Result<Timestamp, Error> {
    let first = certificates(pem)?.into_iter().next();
    let first = first.ok_or_else(|| Error::malformed("the certificate text", "it has no certificate"))?;
    let (_, end) = seconds_of(first.as_ref())?;
    Timestamp::from_second(end).map_err(|error| Error::malformed("the end of a certificate", error))
}

/// All certificates of a PEM text.
pub(crate) fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| Error::malformed("the certificate text", e))
}

pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Error> {
    X509Certificate::from_der(der)
        .map(|(_, certificate)| certificate)
        .map_err(|e| Error::malformed("the certificate", e))
}

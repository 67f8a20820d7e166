//! What somebody who wants a certificate does: makes a key and a request, and knows an authority by its hash.

use crate::identity::{certificates, parse};
use crate::{Error, Identity};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

/// A request for a certificate (PKCS #10), and the key that it is about; both PEM.
#[derive(Clone)]
pub struct KeyAndRequest {
    pub request_pem: String,
    key_pem: String,
}

impl std::fmt::Debug for KeyAndRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyAndRequest(key not shown)")
    }
}

impl KeyAndRequest {
    /// Makes a new key and asks for a certificate with this subject and these names: DNS names and addresses.
    pub fn new(common_name: &str, organization: Option<&str>, names: &[String]) -> Result<Self, Error> {
        let failed = |source| Error::Issue { what: format!("a request for {common_name:?}"), source };
        let mut params = CertificateParams::default();
        let mut subject = DistinguishedName::new();
        if let Some(organization) = organization {
            subject.push(DnType::OrganizationName, organization);
        }
        subject.push(DnType::CommonName, common_name);
        params.distinguished_name = subject;
        for name in names {
            params.subject_alt_names.push(match name.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(name.as_str().try_into().map_err(failed)?),
            });
        }
        let key = KeyPair::generate().map_err(failed)?;
        let request_pem = params.serialize_request(&key).and_then(|request| request.pem()).map_err(failed)?;
        Ok(Self { request_pem, key_pem: key.serialize_pem() })
    }

    /// The key with the certificate that was issued for it.
    ///
    /// # Errors
    /// When the text has no certificate.
    pub fn into_identity(self, certificate_pem: String) -> Result<Identity, Error> {
        let identity = Identity { certificate_pem, key_pem: self.key_pem };
        identity.leaf()?;
        Ok(identity)
    }
}

/// The SHA-256 of the public key (SubjectPublicKeyInfo, DER) of each certificate in a PEM text, in hexadecimal digits:
/// what `--discovery-token-ca-cert-hash sha256:…` names an authority by (RFC 7469, 2.4).
pub fn public_key_hashes(pem: &str) -> Result<Vec<String>, Error> {
    let hash = |der: &rustls_pki_types::CertificateDer<'_>| -> Result<String, Error> {
        let certificate = parse(der.as_ref())?;
        let digest = ring::digest::digest(&ring::digest::SHA256, certificate.public_key().raw);
        Ok(digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
    };
    certificates(pem)?.iter().map(hash).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CertificateAuthority, CertificateRequest, Peer};
    use jiff::Timestamp;
    use std::process::Command;
    use std::time::Duration;

    #[test]
    fn a_request_becomes_an_identity() {
        let dir = tempfile::tempdir().unwrap();
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let authority = CertificateAuthority::create(dir.path(), "ca", now).unwrap();
        let names = ["node-1".to_owned(), "10.0.0.1".to_owned()];
        let asked = KeyAndRequest::new("system:node:node-1", Some("system:nodes"), &names).unwrap();
        let request = CertificateRequest::from_pem(&asked.request_pem).unwrap();
        assert_eq!(request.subject.organizations, ["system:nodes"]);
        let signed = authority.sign(&request, &["server auth".into()], Duration::from_secs(3600), now).unwrap();
        let identity = asked.clone().into_identity(signed).unwrap();
        assert_eq!(identity.subject_alt_names().unwrap(), ["10.0.0.1", "node-1"]);
        let peer = Peer { common_name: "system:node:node-1".into(), organizations: vec!["system:nodes".into()] };
        assert_eq!(identity.peer().unwrap(), peer);
        assert!(asked.into_identity("nothing".into()).is_err());
    }

    #[test]
    fn an_authority_has_the_hash_that_openssl_says() {
        let dir = tempfile::tempdir().unwrap();
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let authority = CertificateAuthority::create(dir.path(), "ca", now).unwrap();
        let file = dir.path().join("ca.crt");
        let script = format!(
            "openssl x509 -pubkey -in {} | openssl pkey -pubin -outform der | openssl dgst -sha256 -r",
            file.display()
        );
        let printed = Command::new("sh").args(["-c", &script]).output().unwrap();
        let printed = String::from_utf8(printed.stdout).unwrap();
        let expected = printed.split(' ').next().unwrap();
        assert_eq!(public_key_hashes(authority.certificate_pem()).unwrap(), [expected]);
        assert!(public_key_hashes("nothing").unwrap().is_empty());
    }
}

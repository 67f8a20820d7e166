//! Requests for certificates (PKCS #10), and what an authority makes of them.

use crate::authority::params;
use crate::{CertificateAuthority, Error, Peer};
use jiff::Timestamp;
use rcgen::{CertificateSigningRequestParams, ExtendedKeyUsagePurpose, KeyUsagePurpose, SanType};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use std::net::IpAddr;
use std::time::Duration;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

/// More than any request needs; larger ones are refused unread.
const MAX_BYTES: usize = 64 * 1024;

/// What somebody asks to have certified. The request was signed with the key that it is about.
#[derive(Debug)]
pub struct CertificateRequest {
    pub subject: Peer,
    pub dns_names: Vec<String>,
    pub addresses: Vec<IpAddr>,
    pub emails: Vec<String>,
    pub uris: Vec<String>,
    parsed: CertificateSigningRequestParams,
}

impl CertificateRequest {
    /// Reads a request in PEM and checks its signature.
    pub fn from_pem(pem: &str) -> Result<Self, Error> {
        let malformed = |why: String| Error::malformed("the certificate request", why);
        if pem.len() > MAX_BYTES {
            return Err(malformed(format!("it is longer than {MAX_BYTES} bytes")));
        }
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).map_err(|e| malformed(e.to_string()))?;
        let parsed = CertificateSigningRequestParams::from_der(&der).map_err(|e| malformed(e.to_string()))?;
        let (_, request) = X509CertificationRequest::from_der(&der).map_err(|e| malformed(e.to_string()))?;
        let mut found = Self {
            subject: Peer::of(&request.certification_request_info.subject),
            dns_names: Vec::new(),
            addresses: Vec::new(),
            emails: Vec::new(),
            uris: Vec::new(),
            parsed,
        };
        for name in &found.parsed.params.subject_alt_names {
            match name {
                SanType::DnsName(name) => found.dns_names.push(name.as_str().to_owned()),
                SanType::IpAddress(address) => found.addresses.push(*address),
                SanType::Rfc822Name(email) => found.emails.push(email.as_str().to_owned()),
                SanType::URI(uri) => found.uris.push(uri.as_str().to_owned()),
                _ => return Err(malformed("it asks for a name that is no host, address, e-mail or URI".into())),
            }
        }
        Ok(found)
    }
}

impl CertificateAuthority {
    /// Certifies a request: its subject, names and key. `usages` are those of the API (`client auth`); what the
    /// request itself says of usages, or of being an authority, counts nothing. Answers PEM.
    pub fn sign(
        &self,
        request: &CertificateRequest,
        usages: &[String],
        lifetime: Duration,
        now: Timestamp,
    ) -> Result<String, Error> {
        let organizations: Vec<&str> = request.subject.organizations.iter().map(String::as_str).collect();
        let mut wanted = params(&request.subject.common_name, &organizations, lifetime, now)?;
        wanted.subject_alt_names = request.parsed.params.subject_alt_names.clone();
        wanted.use_authority_key_identifier_extension = true;
        for usage in usages {
            match purpose(usage) {
                Some(Purpose::Key(usage)) => wanted.key_usages.push(usage),
                Some(Purpose::Extended(usage)) => wanted.extended_key_usages.push(usage),
                None => return Err(Error::malformed("the certificate request", format!("unknown usage {usage:?}"))),
            }
        }
        let what = || format!("a certificate for {:?}", request.subject.common_name);
        let signed = wanted.signed_by(&request.parsed.public_key, self.issuer());
        Ok(signed.map_err(|source| Error::Issue { what: what(), source })?.pem())
    }
}

enum Purpose {
    Key(KeyUsagePurpose),
    Extended(ExtendedKeyUsagePurpose),
}

/// What a usage of the API is in a certificate (RFC 5280, 4.2.1.3 and 4.2.1.12).
fn purpose(usage: &str) -> Option<Purpose> {
    let other = |id: &[u64]| Purpose::Extended(ExtendedKeyUsagePurpose::Other(id.to_vec()));
    let ipsec = |last: u64| other(&[1, 3, 6, 1, 5, 5, 7, 3, last]);
    Some(match usage {
        "signing" | "digital signature" => Purpose::Key(KeyUsagePurpose::DigitalSignature),
        "content commitment" => Purpose::Key(KeyUsagePurpose::ContentCommitment),
        "key encipherment" => Purpose::Key(KeyUsagePurpose::KeyEncipherment),
        "key agreement" => Purpose::Key(KeyUsagePurpose::KeyAgreement),
        "data encipherment" => Purpose::Key(KeyUsagePurpose::DataEncipherment),
        "cert sign" => Purpose::Key(KeyUsagePurpose::KeyCertSign),
        "crl sign" => Purpose::Key(KeyUsagePurpose::CrlSign),
        "encipher only" => Purpose::Key(KeyUsagePurpose::EncipherOnly),
        "decipher only" => Purpose::Key(KeyUsagePurpose::DecipherOnly),
        "any" => Purpose::Extended(ExtendedKeyUsagePurpose::Any),
        "server auth" => Purpose::Extended(ExtendedKeyUsagePurpose::ServerAuth),
        "client auth" => Purpose::Extended(ExtendedKeyUsagePurpose::ClientAuth),
        "code signing" => Purpose::Extended(ExtendedKeyUsagePurpose::CodeSigning),
        "email protection" | "s/mime" => Purpose::Extended(ExtendedKeyUsagePurpose::EmailProtection),
        "ipsec end system" => ipsec(5),
        "ipsec tunnel" => ipsec(6),
        "ipsec user" => ipsec(7),
        "timestamping" => Purpose::Extended(ExtendedKeyUsagePurpose::TimeStamping),
        "ocsp signing" => Purpose::Extended(ExtendedKeyUsagePurpose::OcspSigning),
        "microsoft sgc" => other(&[1, 3, 6, 1, 4, 1, 311, 10, 3, 3]),
        "netscape sgc" => other(&[2, 16, 840, 1, 113_730, 4, 1]),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair};
    use x509_parser::prelude::X509Certificate;

    fn request(organization: &str) -> String {
        let mut asked = CertificateParams::new(vec!["host.example".to_owned()]).unwrap();
        asked.distinguished_name = rcgen::DistinguishedName::new();
        asked.distinguished_name.push(DnType::CommonName, "ann");
        asked.distinguished_name.push(DnType::OrganizationName, organization);
        asked.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        asked.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
    }

    #[test]
    fn a_request_becomes_a_certificate_for_what_was_allowed() {
        let dir = tempfile::tempdir().unwrap();
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let authority = CertificateAuthority::create(dir.path(), "ca", now).unwrap();
        let request = CertificateRequest::from_pem(&request("devs")).unwrap();
        assert_eq!(request.subject, Peer { common_name: "ann".into(), organizations: vec!["devs".into()] });
        assert_eq!(request.dns_names, ["host.example"]);

        let pem = authority.sign(&request, &["client auth".into()], Duration::from_secs(3600), now).unwrap();
        let der = rustls_pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        assert_eq!(Peer::from_der(&der).unwrap(), request.subject);
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        assert_eq!(certificate.validity().not_after.timestamp(), 1_700_003_600);
        assert!(!certificate.is_ca(), "whatever the request says");
        let usage = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth);
        let error = authority.sign(&request, &["flying".into()], Duration::from_secs(3600), now).unwrap_err();
        assert!(error.to_string().contains("flying"), "{error}");
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let good = request("devs");
        let long = good.clone() + &"x".repeat(MAX_BYTES);
        for bad in
            ["", "hello", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", &long]
        {
            assert!(CertificateRequest::from_pem(bad).is_err(), "{:?}", &bad[..bad.len().min(40)]);
        }
        assert!(CertificateRequest::from_pem(&good).is_ok());
    }

    #[test]
    fn broken_requests_are_refused() {
        pintle_noise::feed_text(&[&request("devs")], 500, |pem| {
            let _ = CertificateRequest::from_pem(pem).is_ok();
        });
    }
}

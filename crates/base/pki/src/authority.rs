//! A certificate authority: a key and a self-signed certificate in a directory, and what it issues.

use crate::identity::{Identity, parse};
use crate::{Error, Peer};
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use std::path::Path;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// As kubeadm: authorities ten years, what they issue one.
const AUTHORITY_DAYS: u32 = 3650;
const ISSUED_DAYS: u32 = 365;
/// Machines whose clocks run a little behind must accept a certificate that was just made.
const BACKDATED: Duration = Duration::from_secs(5 * 60);

/// Signs certificates. Its files are `NAME.crt` and `NAME.key`.
pub struct CertificateAuthority {
    identity: Identity,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CertificateAuthority(key not shown)")
    }
}

impl CertificateAuthority {
    /// Makes a new authority with `name` as its common name and writes its files into `dir`, over older ones.
    pub fn create(dir: &Path, name: &str, now: Timestamp) -> Result<Self, Error> {
        let what = || format!("the certificate authority {name:?}");
        let mut params = params(name, &[], DAY * AUTHORITY_DAYS, now)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        let key = KeyPair::generate().map_err(|source| Error::Issue { what: what(), source })?;
        let certificate = params.self_signed(&key).map_err(|source| Error::Issue { what: what(), source })?;
        let identity = Identity { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() };
        identity.save(dir, name)?;
        Ok(Self { identity, issuer: Issuer::new(params, key) })
    }

    /// Reads an authority's files; nothing when they are not there.
    pub fn load(dir: &Path, name: &str) -> Result<Option<Self>, Error> {
        let Some(identity) = Identity::load(dir, name)? else { return Ok(None) };
        let file = || dir.join(name).display().to_string();
        let key = KeyPair::from_pem(&identity.key_pem).map_err(|e| Error::malformed(format!("{}.key", file()), e))?;
        let issuer = Issuer::from_ca_cert_pem(&identity.certificate_pem, key)
            .map_err(|e| Error::malformed(format!("{}.crt", file()), e))?;
        Ok(Some(Self { identity, issuer }))
    }

    /// Reads the authority, or makes it when it is not there. One that has run out is an error for whoever uses it,
    /// not silently replaced: everything it issued would stop being believed.
    pub fn load_or_create(dir: &Path, name: &str, now: Timestamp) -> Result<Self, Error> {
        match Self::load(dir, name)? {
            Some(authority) => Ok(authority),
            None => Self::create(dir, name, now),
        }
    }

    /// The authority's own certificate.
    pub fn certificate_pem(&self) -> &str {
        &self.identity.certificate_pem
    }

    pub(crate) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    /// A certificate for a server, valid for `names`: DNS names and IP addresses.
    pub fn issue_server(&self, common_name: &str, names: &[String], now: Timestamp) -> Result<Identity, Error> {
        self.issue_both(common_name, &[], names, &[ExtendedKeyUsagePurpose::ServerAuth], now)
    }

    /// A certificate for a client; at most two organizations.
    pub fn issue_client(&self, common_name: &str, organizations: &[&str], now: Timestamp) -> Result<Identity, Error> {
        self.issue_both(common_name, organizations, &[], &[ExtendedKeyUsagePurpose::ClientAuth], now)
    }

    /// The server certificate kept in `dir` as `NAME`, issued anew when it is missing, about to run out, from
    /// another authority, or for other names.
    pub fn server_in(&self, dir: &Path, name: &str, names: &[String], now: Timestamp) -> Result<Identity, Error> {
        let mut wanted = names.to_vec();
        wanted.sort();
        wanted.dedup();
        if let Some(kept) = self.usable(dir, name, now)?
            && kept.subject_alt_names()? == wanted
        {
            return Ok(kept);
        }
        let identity = self.issue_server(name, &wanted, now)?;
        identity.save(dir, name)?;
        Ok(identity)
    }

    /// The client certificate kept in `dir` as `NAME`, issued anew when it is missing, about to run out, from
    /// another authority, or for somebody else.
    pub fn client_in(
        &self,
        dir: &Path,
        name: &str,
        common_name: &str,
        organizations: &[&str],
        now: Timestamp,
    ) -> Result<Identity, Error> {
        let wanted = Peer {
            common_name: common_name.to_owned(),
            organizations: organizations.iter().map(|o| (*o).to_owned()).collect(),
        };
        if let Some(kept) = self.usable(dir, name, now)?
            && kept.peer()? == wanted
        {
            return Ok(kept);
        }
        let identity = self.issue_client(common_name, organizations, now)?;
        identity.save(dir, name)?;
        Ok(identity)
    }

    fn usable(&self, dir: &Path, name: &str, now: Timestamp) -> Result<Option<Identity>, Error> {
        let Some(kept) = Identity::load(dir, name)? else { return Ok(None) };
        let own = self.identity.leaf()?;
        let leaf = kept.leaf()?;
        let ours = parse(leaf.as_ref())?.verify_signature(Some(parse(own.as_ref())?.public_key())).is_ok();
        Ok((ours && !kept.needs_renewal(now)?).then_some(kept))
    }

    fn issue_both(
        &self,
        common_name: &str,
        organizations: &[&str],
        names: &[String],
        usages: &[ExtendedKeyUsagePurpose],
        now: Timestamp,
    ) -> Result<Identity, Error> {
        let failed = |source| Error::Issue { what: format!("a certificate for {common_name:?}"), source };
        let mut params = params(common_name, organizations, DAY * ISSUED_DAYS, now)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = usages.to_vec();
        params.use_authority_key_identifier_extension = true;
        for name in names {
            params.subject_alt_names.push(match name.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(name.as_str().try_into().map_err(failed)?),
            });
        }
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok(Identity { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }
}

/// The subject, the times and the serial number of a certificate to be.
pub(crate) fn params(
    common_name: &str,
    organizations: &[&str],
    lifetime: Duration,
    now: Timestamp,
) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    // rcgen keeps one value for each type of attribute. A second organization is written under the same object
    // identifier spelled out, which it takes for another type.
    let types = [DnType::OrganizationName, DnType::CustomDnType(vec![2, 5, 4, 10])];
    if organizations.len() > types.len() {
        return Err(Error::TooManyOrganizations(common_name.to_owned()));
    }
    for (kind, organization) in types.into_iter().zip(organizations) {
        name.push(kind, *organization);
    }
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    let seconds = u64::try_from(now.as_second()).unwrap_or_default();
    let start = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
    params.not_before = start - BACKDATED;
    params.not_after = start + lifetime;
    params.serial_number = Some(SerialNumber::from(random_serial()?));
    Ok(params)
}

/// 16 random bytes whose first bit is clear: serial numbers are positive (RFC 5280, 4.1.2.2).
fn random_serial() -> Result<Vec<u8>, Error> {
    use ring::rand::SecureRandom;
    let mut serial = [0; 16];
    ring::rand::SystemRandom::new().fill(&mut serial).map_err(|_| Error::Signing)?;
    serial[0] = serial[0] & 0x7f | 0x40;
    Ok(serial.to_vec())
}

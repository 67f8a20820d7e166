//! The key that signs service account tokens: ECDSA P-256 with SHA-256 (ES256 of RFC 7518).

use crate::{Error, files};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, UnparsedPublicKey};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use std::path::Path;

/// An uncompressed P-256 point: 4, then x and y of 32 bytes each.
const POINT_BYTES: usize = 65;

/// The DER of a SubjectPublicKeyInfo of P-256 up to the point.
const SPKI_HEAD: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Checks signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyingKey {
    point: [u8; POINT_BYTES],
}

impl VerifyingKey {
    /// Whether `signature` (r and s, 32 bytes each) is this key's over `message`.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.point).verify(message, signature).is_ok()
    }

    /// The coordinates of the point, as a JWK has them.
    pub fn coordinates(&self) -> (&[u8], &[u8]) {
        self.point[1..].split_at(32)
    }

    /// The SHA-256 of the DER form: upstream derives the key's id from it.
    pub fn fingerprint(&self) -> [u8; 32] {
        let der = [&SPKI_HEAD[..], &self.point].concat();
        let mut out = [0; 32];
        out.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, &der).as_ref());
        out
    }
}

/// Signs, and checks its own signatures. Its file is `NAME.key`.
pub struct SigningKey {
    pair: EcdsaKeyPair,
    random: SystemRandom,
    public: VerifyingKey,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey(key not shown)")
    }
}

impl SigningKey {
    /// Reads the key, or makes it when it is not there.
    pub fn load_or_create(dir: &Path, name: &str) -> Result<Self, Error> {
        let path = dir.join(format!("{name}.key"));
        if let Some(pem) = files::read_if_there(&path)? {
            return Self::from_pem(&pem).map_err(|e| Error::malformed(path.display().to_string(), e));
        }
        let pair =
            rcgen::KeyPair::generate().map_err(|source| Error::Issue { what: format!("the key {name:?}"), source })?;
        let pem = pair.serialize_pem();
        files::write_private(&path, &pem)?;
        Self::from_pem(&pem)
    }

    /// A key that lives as long as the process.
    pub fn ephemeral() -> Result<Self, Error> {
        let pair =
            rcgen::KeyPair::generate().map_err(|source| Error::Issue { what: "a signing key".to_owned(), source })?;
        Self::from_pem(&pair.serialize_pem())
    }

    /// From PKCS #8 PEM.
    pub fn from_pem(pem: &str) -> Result<Self, Error> {
        let der =
            PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|e| Error::malformed("the signing key", e))?;
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_pkcs8_der(), &random)
            .map_err(|e| Error::malformed("the signing key", e))?;
        let point = ring::signature::KeyPair::public_key(&pair)
            .as_ref()
            .try_into()
            .map_err(|_| Error::malformed("the signing key", "not on P-256"))?;
        Ok(Self { pair, random, public: VerifyingKey { point } })
    }

    /// The signature over `message`: r and s, 32 bytes each.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        self.pair.sign(&self.random, message).map(|s| s.as_ref().to_vec()).map_err(|_| Error::Signing)
    }

    pub fn public(&self) -> &VerifyingKey {
        &self.public
    }
}

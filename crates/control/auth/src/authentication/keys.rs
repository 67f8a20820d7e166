//! Keys of tokens: those that sign, those that check, and their forms (PEM, DER, JWK of RFC 7517).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use pintle_pki::SigningKey;
use ring::rand::SystemRandom;
use ring::signature::{
    self, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RsaKeyPair, RsaParameters, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::{PemObject, SectionKind};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey as ParsedKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// Why a key can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("no key in the text: PEM of RSA, or of ECDSA on P-256 or P-384, is wanted")]
    None,
    #[error("a key can't be read: {0}")]
    Malformed(String),
    #[error("signing failed")]
    Signing,
}

fn malformed(why: impl std::fmt::Display) -> KeyError {
    KeyError::Malformed(why.to_string())
}

/// A DER element: tag, length, content.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        short @ 0..128 => out.push(short as u8),
        long => {
            let bytes = long.to_be_bytes();
            let bytes = &bytes[bytes.iter().take_while(|b| **b == 0).count()..];
            out.push(0x80 | bytes.len() as u8);
            out.extend_from_slice(bytes);
        }
    }
    out.extend_from_slice(content);
    out
}

const OID_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const OID_EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const OID_P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const OID_P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];

fn bit_string(content: &[u8]) -> Vec<u8> {
    der(0x03, &[&[0], content].concat())
}

/// A SubjectPublicKeyInfo of this algorithm.
fn info(algorithm: &[u8], parameters: &[u8], key: &[u8]) -> Vec<u8> {
    let algorithm = der(0x30, &[der(0x06, algorithm), parameters.to_vec()].concat());
    der(0x30, &[algorithm, bit_string(key)].concat())
}

/// An unsigned integer, which has a leading zero when its first bit is set.
fn integer(bytes: &[u8]) -> Vec<u8> {
    let bytes = &bytes[bytes.iter().take_while(|b| **b == 0).count()..];
    let lead: &[u8] = if bytes.first().is_none_or(|b| *b >= 0x80) { &[0] } else { &[] };
    der(0x02, &[lead, bytes].concat())
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    /// Modulus and exponent, without leading zeros.
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// An uncompressed point: 4, x, y.
    P256(Vec<u8>),
    P384(Vec<u8>),
}

/// A key that checks signatures, with the name that headers call it by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    form: Form,
    /// Empty when the key has none.
    pub id: String,
}

impl PublicKey {
    fn new(form: Form) -> Self {
        let mut key = Self { form, id: String::new() };
        key.id = BASE64.encode(Sha256::digest(key.der()));
        key
    }

    /// The SubjectPublicKeyInfo. Upstream derives the key's id from it.
    fn der(&self) -> Vec<u8> {
        match &self.form {
            Form::Rsa { n, e } => {
                let key = der(0x30, &[integer(n), integer(e)].concat());
                info(OID_RSA, &[0x05, 0x00], &key)
            }
            Form::P256(point) => info(OID_EC, &der(0x06, OID_P256), point),
            Form::P384(point) => info(OID_EC, &der(0x06, OID_P384), point),
        }
    }

    /// From a SubjectPublicKeyInfo.
    fn from_der(bytes: &[u8]) -> Result<Self, KeyError> {
        let (_, info) = SubjectPublicKeyInfo::from_der(bytes).map_err(malformed)?;
        Self::of_info(&info)
    }

    fn of_info(info: &SubjectPublicKeyInfo<'_>) -> Result<Self, KeyError> {
        let trimmed = |bytes: &[u8]| bytes.iter().skip_while(|b| **b == 0).copied().collect::<Vec<u8>>();
        match info.parsed().map_err(malformed)? {
            ParsedKey::RSA(key) => Ok(Self::new(Form::Rsa { n: trimmed(key.modulus), e: trimmed(key.exponent) })),
            ParsedKey::EC(point) => Self::of_point(point.data()),
            _ => Err(malformed("neither RSA nor ECDSA")),
        }
    }

    fn of_point(point: &[u8]) -> Result<Self, KeyError> {
        match (point.first(), point.len()) {
            (Some(4), 65) => Ok(Self::new(Form::P256(point.to_vec()))),
            (Some(4), 97) => Ok(Self::new(Form::P384(point.to_vec()))),
            _ => Err(malformed("the point is on neither P-256 nor P-384")),
        }
    }

    /// All keys of a PEM text: public keys, certificates, and the public halves of private keys.
    pub fn all_from_pem(text: &str) -> Result<Vec<Self>, KeyError> {
        let mut keys = Vec::new();
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes()) {
            let (kind, bytes) = section.map_err(malformed)?;
            match kind {
                SectionKind::PublicKey => keys.push(Self::from_der(&bytes)?),
                SectionKind::Certificate => {
                    let parsed = x509_parser::certificate::X509Certificate::from_der(&bytes).map_err(malformed)?;
                    keys.push(Self::of_info(parsed.1.public_key())?);
                }
                SectionKind::RsaPrivateKey | SectionKind::PrivateKey | SectionKind::EcPrivateKey => {
                    keys.push(Signer::from_der(kind, &bytes)?.public().clone());
                }
                _ => {}
            }
        }
        if keys.is_empty() { Err(KeyError::None) } else { Ok(keys) }
    }

    /// From a JWK that may be used for signatures; nothing for other keys.
    pub fn from_jwk(key: &Value) -> Option<Self> {
        let bytes = |field: &str| key[field].as_str().and_then(|text| BASE64.decode(text.trim_end_matches('=')).ok());
        if !matches!(key["use"].as_str(), None | Some("" | "sig")) {
            return None;
        }
        let mut parsed = match (key["kty"].as_str()?, key["crv"].as_str()) {
            ("RSA", _) => Self::new(Form::Rsa { n: bytes("n")?, e: bytes("e")? }),
            ("EC", Some("P-256" | "P-384")) => Self::of_point(&[vec![4], bytes("x")?, bytes("y")?].concat()).ok()?,
            _ => return None,
        };
        parsed.id = key["kid"].as_str().unwrap_or_default().to_owned();
        Some(parsed)
    }

    /// The algorithm that tokens of this cluster are signed with under such a key.
    pub fn algorithm(&self) -> &'static str {
        match &self.form {
            Form::Rsa { .. } => "RS256",
            Form::P256(_) => "ES256",
            Form::P384(_) => "ES384",
        }
    }

    pub fn to_jwk(&self) -> Value {
        let mut jwk = json!({"use": "sig", "kid": self.id, "alg": self.algorithm()});
        match &self.form {
            Form::Rsa { n, e } => {
                jwk["kty"] = "RSA".into();
                jwk["n"] = BASE64.encode(n).into();
                jwk["e"] = BASE64.encode(e).into();
            }
            Form::P256(point) | Form::P384(point) => {
                let (x, y) = point[1..].split_at((point.len() - 1) / 2);
                jwk["kty"] = "EC".into();
                jwk["crv"] = if point.len() == 65 { "P-256" } else { "P-384" }.into();
                jwk["x"] = BASE64.encode(x).into();
                jwk["y"] = BASE64.encode(y).into();
            }
        }
        jwk
    }

    /// Whether this is the key's signature by this algorithm (RFC 7518) over `message`.
    pub fn verify(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        match &self.form {
            Form::Rsa { n, e } => {
                let Some(parameters) = rsa_parameters(algorithm) else { return false };
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).is_ok()
            }
            Form::P256(point) => {
                let key = UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point);
                algorithm == "ES256" && key.verify(message, signature).is_ok()
            }
            Form::P384(point) => {
                let key = UnparsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, point);
                algorithm == "ES384" && key.verify(message, signature).is_ok()
            }
        }
    }
}

fn rsa_parameters(algorithm: &str) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
        "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
        "RS512" => &signature::RSA_PKCS1_2048_8192_SHA512,
        "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
        "PS384" => &signature::RSA_PSS_2048_8192_SHA384,
        "PS512" => &signature::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

enum Private {
    Pki(Arc<SigningKey>),
    P384(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

/// A key that signs tokens.
pub struct Signer {
    private: Private,
    public: PublicKey,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer({})", self.public.id)
    }
}

impl From<Arc<SigningKey>> for Signer {
    fn from(key: Arc<SigningKey>) -> Self {
        let (x, y) = key.public().coordinates();
        let public = PublicKey::new(Form::P256([&[4], x, y].concat()));
        Self { private: Private::Pki(key), public }
    }
}

impl Signer {
    /// The first private key of a PEM text (PKCS #1, PKCS #8 or SEC 1).
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let key = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| KeyError::None)?;
        let kind = match &key {
            PrivateKeyDer::Pkcs1(_) => SectionKind::RsaPrivateKey,
            PrivateKeyDer::Sec1(_) => SectionKind::EcPrivateKey,
            _ => SectionKind::PrivateKey,
        };
        Self::from_der(kind, key.secret_der())
    }

    fn from_der(kind: SectionKind, bytes: &[u8]) -> Result<Self, KeyError> {
        match kind {
            SectionKind::RsaPrivateKey => Self::rsa(RsaKeyPair::from_der(bytes).map_err(malformed)?),
            SectionKind::EcPrivateKey => {
                let wrapped = |curve: &[u8]| {
                    let algorithm = der(0x30, &[der(0x06, OID_EC), der(0x06, curve)].concat());
                    der(0x30, &[vec![0x02, 0x01, 0x00], algorithm, der(0x04, bytes)].concat())
                };
                Self::elliptic(&wrapped(OID_P256)).or_else(|_| Self::elliptic(&wrapped(OID_P384)))
            }
            _ => match RsaKeyPair::from_pkcs8(bytes) {
                Ok(pair) => Self::rsa(pair),
                Err(_) => Self::elliptic(bytes),
            },
        }
    }

    fn rsa(pair: RsaKeyPair) -> Result<Self, KeyError> {
        let parts: RsaPublicKeyComponents<Vec<u8>> = RsaPublicKeyComponents::from(pair.public());
        Ok(Self { private: Private::Rsa(pair), public: PublicKey::new(Form::Rsa { n: parts.n, e: parts.e }) })
    }

    fn elliptic(pkcs8: &[u8]) -> Result<Self, KeyError> {
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, pkcs8, &SystemRandom::new()) {
            let public = PublicKey::of_point(pair.public_key().as_ref())?;
            return Ok(Self { private: Private::P384(pair), public });
        }
        let pem = format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            base64::engine::general_purpose::STANDARD.encode(pkcs8)
        );
        SigningKey::from_pem(&pem).map(|key| Arc::new(key).into()).map_err(malformed)
    }

    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The signature over `message`, in the form of RFC 7518.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let random = SystemRandom::new();
        match &self.private {
            Private::Pki(key) => key.sign(message).map_err(|_| KeyError::Signing),
            Private::P384(pair) => {
                pair.sign(&random, message).map(|s| s.as_ref().to_vec()).map_err(|_| KeyError::Signing)
            }
            Private::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                let done = pair.sign(&signature::RSA_PKCS1_SHA256, &random, message, &mut signature);
                done.map(|()| signature).map_err(|_| KeyError::Signing)
            }
        }
    }
}

/// The keys of service account tokens: the first signs, all check.
#[derive(Debug)]
pub struct KeyRing {
    signer: Signer,
    verifiers: Vec<PublicKey>,
}

impl KeyRing {
    pub fn new(signer: Signer, others: Vec<PublicKey>) -> Self {
        let mut verifiers = vec![signer.public.clone()];
        for key in others {
            if !verifiers.contains(&key) {
                verifiers.push(key);
            }
        }
        Self { signer, verifiers }
    }

    pub fn signer(&self) -> &Signer {
        &self.signer
    }

    pub fn verifiers(&self) -> &[PublicKey] {
        &self.verifiers
    }

    /// The public keys as a JWK set.
    pub fn key_set(&self) -> Value {
        json!({"keys": self.verifiers.iter().map(PublicKey::to_jwk).collect::<Vec<_>>()})
    }

    /// The algorithms of the keys, as the discovery document lists them.
    pub fn algorithms(&self) -> Vec<&'static str> {
        let mut list: Vec<_> = self.verifiers.iter().map(PublicKey::algorithm).collect();
        list.sort_unstable();
        list.dedup();
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_keys_survive_their_forms() {
        let key = Arc::new(SigningKey::ephemeral().unwrap());
        let signer = Signer::from(key.clone());
        let public = signer.public();
        assert_eq!(public.id, BASE64.encode(key.public().fingerprint()));
        assert_eq!(PublicKey::from_jwk(&public.to_jwk()).unwrap(), *public);
        let der = base64::engine::general_purpose::STANDARD.encode(public.der());
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{der}\n-----END PUBLIC KEY-----\n");
        assert_eq!(PublicKey::all_from_pem(&pem).unwrap(), std::slice::from_ref(public));
        let signature = signer.sign(b"x").unwrap();
        assert!(public.verify("ES256", b"x", &signature) && !public.verify("ES256", b"y", &signature));
        assert!(!public.verify("none", b"x", &signature) && !public.verify("RS256", b"x", &signature));
    }

    #[test]
    fn broken_keys_are_refused() {
        let text = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n-----END PUBLIC KEY-----\n";
        assert!(PublicKey::all_from_pem(text).is_err() && PublicKey::all_from_pem("").is_err());
        assert!(PublicKey::from_jwk(&json!({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"})).is_none());
        assert!(PublicKey::from_jwk(&json!({"kty": "oct"})).is_none());
        pintle_noise::feed_text(&[text], 200, |text| {
            // Whatever comes out, it does not panic.
            let _ = PublicKey::all_from_pem(text);
            let _ = Signer::from_pem(text);
        });
    }
}

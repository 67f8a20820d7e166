//! A kubelet's request for the certificate of a pod: what it names, the proof that it has the key, and the answer.

use crate::{
    check::{Errors, condition, name, pem},
    strategy::Strategy,
    tree,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use pintle_types::{
    field::{ErrorList, Path},
    names,
};
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use serde_json::{Value, json};
use x509_parser::{prelude::FromDer, public_key::PublicKey, x509::SubjectPublicKeyInfo};

const DAY_SECONDS: i64 = 24 * 60 * 60;
/// Who vouches for other domains may do so for this long.
const LONGEST_SECONDS: i64 = 91 * DAY_SECONDS;
const LONGEST_KEY: usize = 10 * 1024;
const LONGEST_CHAIN: usize = 100 * 1024;
const ENDS: [&str; 3] = ["Issued", "Denied", "Failed"];

pub struct PodCertificateRequest;

impl Strategy for PodCertificateRequest {
    fn default(&self, _api_version: &str, object: &mut Value) {
        if let Some(spec) = tree::existing(object, "spec") {
            tree::default_to(spec, "maxExpirationSeconds", DAY_SECONDS);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        tree::set(object, "status", json!({}));
    }

    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| {
            let (path, spec) = (Path::new("spec"), &object["spec"]);
            subject(errors, &path, spec);
            if life(errors, &path, spec) {
                key_and_proof(errors, &path, spec);
            }
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        Errors::of(|errors| errors.immutable(&Path::new("spec"), &new["spec"], &old["spec"]))
    }

    fn validate_subresource_update(&self, _subresource: &str, new: &Value, old: &Value) -> ErrorList {
        Errors::of(|errors| {
            let path = Path::new("status");
            conditions(errors, &path, tree::list(&new["status"], "conditions"));
            if errors.0.is_empty() {
                outcome(errors, &path, new, old);
            }
        })
    }
}

fn subject(errors: &mut Errors, path: &Path, spec: &Value) {
    const LONGEST_UID: usize = 128;
    let text = |field| tree::text(spec, field);
    name::signer(errors, &path.child("signerName"), text("signerName"));
    for (field, uid) in [("podName", "podUID"), ("serviceAccountName", "serviceAccountUID"), ("nodeName", "nodeUID")] {
        errors.invalid_for(&path.child(field), text(field), names::dns1123_subdomain_errors(text(field)));
        if text(uid).is_empty() {
            errors.invalid(&path.child(uid), "", "must not be empty");
        }
        if text(uid).len() > LONGEST_UID {
            errors.too_long(&path.child(uid), LONGEST_UID);
        }
    }
}

/// Signers of Kubernetes itself vouch for a day, others for up to 91 days. Answers whether a time is given at all.
fn life(errors: &mut Errors, path: &Path, spec: &Value) -> bool {
    let at = path.child("maxExpirationSeconds");
    let Some(seconds) = spec.get("maxExpirationSeconds").and_then(Value::as_i64) else {
        errors.required(&at, "must be set");
        return false;
    };
    let most = if is_own_signer(tree::text(spec, "signerName")) { DAY_SECONDS } else { LONGEST_SECONDS };
    if !(3600..=most).contains(&seconds) {
        errors.invalid(&at, seconds, &format!("must be in the range [3600, {most}]"));
    }
    true
}

fn is_own_signer(signer: &str) -> bool {
    signer.split('/').next().is_some_and(|domain| domain == "kubernetes.io" || domain.ends_with(".kubernetes.io"))
}

fn bytes(spec: &Value, field: &str) -> Vec<u8> {
    STANDARD.decode(tree::text(spec, field)).unwrap_or_default()
}

/// The proof is a signature of the pod's UID with the key.
fn key_and_proof(errors: &mut Errors, path: &Path, spec: &Value) {
    let (key, proof) = (bytes(spec, "pkixPublicKey"), bytes(spec, "proofOfPossession"));
    for (field, value) in [("pkixPublicKey", &key), ("proofOfPossession", &proof)] {
        if value.len() > LONGEST_KEY {
            return errors.too_long(&path.child(field), LONGEST_KEY);
        }
    }
    let at = path.child("pkixPublicKey");
    let shown = || spec.get("pkixPublicKey").cloned().unwrap_or(Value::Null);
    let parsed = SubjectPublicKeyInfo::from_der(&key).ok().filter(|(rest, _)| rest.is_empty()).map(|(_, info)| info);
    let Some(info) = parsed else {
        return errors.invalid(&at, shown(), "must be a valid PKIX-serialized public key");
    };
    let algorithm: &'static dyn VerificationAlgorithm = match scheme(&info) {
        Ok(algorithm) => algorithm,
        Err(Unusable::Curve(curve)) => {
            return errors.invalid(&at, format!("curve {curve}"), "elliptic public keys must use curve P256 or P384");
        }
        Err(Unusable::Modulus(bits)) => {
            let words = "RSA keys must have modulus size 3072 or 4096";
            return errors.invalid(&at, format!("{bits}-bit modulus"), words);
        }
        Err(Unusable::Unknown) => {
            let words = "unknown public key type; supported types are Ed25519, ECDSA, and RSA";
            return errors.invalid(&at, shown(), words);
        }
    };
    let verifier = UnparsedPublicKey::new(algorithm, &info.subject_public_key.data);
    if verifier.verify(tree::text(spec, "podUID").as_bytes(), &proof).is_err() {
        errors.invalid_untold(&path.child("proofOfPossession"), "could not verify proof-of-possession signature");
    }
}

/// Why a key can't be used.
enum Unusable {
    Curve(String),
    Modulus(usize),
    Unknown,
}

fn scheme(info: &SubjectPublicKeyInfo) -> Result<&'static dyn VerificationAlgorithm, Unusable> {
    const ED25519: &str = "1.3.101.112";
    const EC: &str = "1.2.840.10045.2.1";
    let kind = info.algorithm.algorithm.to_id_string();
    if kind == ED25519 {
        return Ok(&signature::ED25519);
    }
    if kind == EC {
        let curve = info.algorithm.parameters.as_ref().and_then(|it| it.as_oid().ok());
        return match curve.map(|curve| curve.to_id_string()).as_deref() {
            Some("1.2.840.10045.3.1.7") => Ok(&signature::ECDSA_P256_SHA256_ASN1),
            Some("1.3.132.0.34") => Ok(&signature::ECDSA_P384_SHA256_ASN1),
            Some("1.3.132.0.35") => Err(Unusable::Curve("P-521".to_owned())),
            Some("1.3.132.0.33") => Err(Unusable::Curve("P-224".to_owned())),
            _ => Err(Unusable::Unknown),
        };
    }
    match info.parsed() {
        Ok(PublicKey::RSA(key)) if matches!(key.key_size(), 3072 | 4096) => Ok(&signature::RSA_PSS_2048_8192_SHA256),
        Ok(PublicKey::RSA(key)) => Err(Unusable::Modulus(key.key_size())),
        _ => Err(Unusable::Unknown),
    }
}

/// One end at most, and it is true.
fn conditions(errors: &mut Errors, path: &Path, conditions: &[Value]) {
    let mut ends = 0;
    for (i, one) in conditions.iter().enumerate() {
        // Upstream separates the index by a dot here.
        let at = path.child("conditions").child(&format!("[{i}]"));
        let (kind, status) = (tree::text(one, "type"), tree::text(one, "status"));
        if !ENDS.contains(&kind) {
            errors.unsupported(&at.child("type"), kind, &["Denied", "Failed", "Issued"]);
            continue;
        }
        ends += 1;
        if ends > 1 {
            let words = "There may be at most one condition with type \"Issued\", \"Denied\", or \"Failed\"";
            errors.invalid(&at.child("type"), kind, words);
        }
        errors.one_of(&at.child("status"), status, &["True"]);
    }
    condition::all(errors, &path.child("conditions"), conditions);
}

fn outcome(errors: &mut Errors, path: &Path, new: &Value, old: &Value) {
    let (now, before) = (&new["status"], &old["status"]);
    if ENDS.iter().any(|end| condition::is_true(before, end)) {
        if now != before {
            let words = "immutable after PodCertificateRequest is issued, denied, or failed";
            errors.invalid(path, now.clone(), words);
        }
        return;
    }
    if condition::is_true(now, "Denied") || condition::is_true(now, "Failed") {
        if ["certificateChain", "notBefore", "beginRefreshAt", "notAfter"].iter().any(|field| tree::has(now, field)) {
            let words = "non-condition status fields must be empty when denying or failing the PodCertificateRequest";
            errors.invalid(path, now.clone(), words);
        }
    } else if condition::is_true(now, "Issued") {
        issued(errors, path, now, &old["spec"]);
    }
}

/// The chain begins with a certificate for the key of the request, valid as the status says.
fn issued(errors: &mut Errors, path: &Path, status: &Value, spec: &Value) {
    let (at, chain) = (path.child("certificateChain"), tree::text(status, "certificateChain"));
    if chain.len() > LONGEST_CHAIN {
        return errors.too_long(&at, LONGEST_CHAIN);
    }
    let blocks = pem::blocks(chain);
    let Some(first) = blocks.first() else {
        return errors.invalid(&at, chain, "issued certificate chain must contain at least one certificate");
    };
    if blocks.iter().any(|block| block.label != "CERTIFICATE") {
        let words = "issued certificate chain must consist entirely of CERTIFICATE PEM blocks";
        return errors.invalid(&at, chain, words);
    }
    let Some(leaf) = pem::certificate(first) else {
        return errors.invalid(&at, chain, "leaf certificate does not parse as valid X.509");
    };
    if leaf.public_key().raw != bytes(spec, "pkixPublicKey") {
        return errors.invalid(&at, chain, "leaf certificate was not issued to the requested public key");
    }
    if blocks[1..].iter().any(|block| pem::certificate(block).is_none()) {
        return errors.invalid(&at, chain, "intermediate certificate does not parse as valid X.509");
    }
    let validity = leaf.validity();
    times(errors, path, status, [validity.not_before.timestamp(), validity.not_after.timestamp()]);
}

fn times(errors: &mut Errors, path: &Path, status: &Value, valid: [i64; 2]) {
    const CONSISTENT: &str = "must be present and consistent with the issued certificate";
    const BETWEEN: &str = "must be present and in the range [notbefore+10min, notafter-10min]";
    let complete = [("notBefore", CONSISTENT), ("notAfter", CONSISTENT), ("beginRefreshAt", BETWEEN)]
        .map(|(field, words)| errors.needs(&path.child(field), tree::text(status, field), words));
    if complete.contains(&false) {
        return;
    }
    for ((field, word), wanted) in [("notBefore", "NotBefore"), ("notAfter", "NotAfter")].into_iter().zip(valid) {
        let given = tree::text(status, field).parse::<Timestamp>().map(Timestamp::as_second).ok();
        if given != Some(wanted) {
            let words = format!("must be set to the {word} time encoded in the leaf certificate");
            return errors.invalid(&path.child(field), tree::text(status, field), &words);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::{rand::SystemRandom, signature::KeyPair};

    /// A request with a key of its own, and a proof of it for the pod `u`.
    fn request() -> Value {
        const ED25519_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        let private = signature::Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("randomness");
        let pair = signature::Ed25519KeyPair::from_pkcs8(private.as_ref()).expect("a key just made");
        let key = [&ED25519_PREFIX, pair.public_key().as_ref()].concat();
        json!({"spec": {
            "signerName": "example.com/s", "podName": "p", "podUID": "u", "serviceAccountName": "s",
            "serviceAccountUID": "u", "nodeName": "n", "nodeUID": "u", "maxExpirationSeconds": 3600,
            "pkixPublicKey": STANDARD.encode(key), "proofOfPossession": STANDARD.encode(pair.sign(b"u").as_ref()),
        }})
    }

    fn wrong(object: &Value) -> Vec<String> {
        PodCertificateRequest.validate(object).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_key_is_proven() {
        let mut object = request();
        assert_eq!(wrong(&object), [""; 0]);
        object["spec"]["podUID"] = json!("v");
        let words = "spec.proofOfPossession: Invalid value: could not verify proof-of-possession signature";
        assert_eq!(wrong(&object), [words]);
        object["spec"]["pkixPublicKey"] = json!("eA==");
        let words = "spec.pkixPublicKey: Invalid value: \"eA==\": must be a valid PKIX-serialized public key";
        assert_eq!(wrong(&object), [words]);
    }
}

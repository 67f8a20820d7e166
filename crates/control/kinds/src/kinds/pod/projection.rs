//! Validation of projected volumes: several sources whose files share one folder.

use super::volume::{downward_file, file_path, key_files, unique_path};
use crate::{
    check::{Errors, Seen, name, number, selector},
    kinds::certificate,
    tree,
};
use pintle_types::field::Path;
use serde_json::Value;

const SOURCES: &[&str] =
    &["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate"];

/// All sources of a projected volume, which stands at `at`.
pub(super) fn validate(errors: &mut Errors, at: &Path, volume: &Value) {
    number::mode(errors, at, volume, "defaultMode");
    let mut paths = Seen::default();
    for (i, source) in tree::list(volume, "sources").iter().enumerate() {
        let place = at.child("sources").index(i);
        let found: Vec<&str> = SOURCES.iter().copied().filter(|kind| tree::has(source, kind)).collect();
        for kind in &found {
            one(errors, at, &place.child(kind), kind, &source[*kind], &mut paths);
        }
        if found.len() > 1 {
            errors.forbidden(&place, "may not specify more than 1 volume type per source");
        }
    }
}

fn one(errors: &mut Errors, volume: &Path, at: &Path, kind: &str, value: &Value, paths: &mut Seen) {
    match kind {
        "secret" | "configMap" => {
            let own = tree::text(value, "name");
            errors.needs(&at.child("name"), own, "");
            key_files(errors, at, value);
            for path in item_paths(value) {
                unique_path(errors, volume, path, own, paths);
            }
        }
        "downwardAPI" => {
            for item in tree::list(value, "items") {
                downward_file(errors, at, item);
            }
            for path in item_paths(value) {
                unique_path(errors, volume, path, path, paths);
            }
        }
        "serviceAccountToken" => token(errors, volume, at, value),
        "clusterTrustBundle" => trust_bundle(errors, volume, at, value, paths),
        _ => certificate_files(errors, volume, at, value, paths),
    }
}

fn item_paths(value: &Value) -> impl Iterator<Item = &str> {
    tree::list(value, "items").iter().map(|item| tree::text(item, "path")).filter(|path| !path.is_empty())
}

/// A token of the pod's service account; upstream looks for its path beside the sources.
fn token(errors: &mut Errors, volume: &Path, at: &Path, value: &Value) {
    let seconds = tree::int(value, "expirationSeconds");
    let at = at.child("expirationSeconds");
    if seconds < 600 {
        errors.invalid(&at, seconds, "may not specify a duration less than 10 minutes");
    }
    if seconds > 1 << 32 {
        errors.invalid(&at, seconds, "may not specify a duration larger than 2^32 seconds");
    }
    let path = tree::text(value, "path");
    if errors.needs(&volume.child("path"), path, "") {
        name::local_nonreserved_path(errors, &volume.child("path"), path);
    }
}

fn trust_bundle(errors: &mut Errors, volume: &Path, at: &Path, value: &Value, paths: &mut Seen) {
    let (own, signer) = (value.get("name").and_then(Value::as_str), value.get("signerName").and_then(Value::as_str));
    match (own, signer) {
        (Some(_), Some(_)) => {
            errors.invalid(at, value.clone(), "only one of name and signerName may be used");
        }
        (Some(own), None) => bundle_name(errors, at, own, value),
        (None, Some(signer)) => {
            errors.needs(&at.child("signerName"), signer, "must be a valid signer name");
            name::signer(errors, &at.child("signerName"), signer);
            selector::labels(errors, &at.child("labelSelector"), &value["labelSelector"]);
        }
        (None, None) => errors.required(at, "either name or signerName must be specified"),
    }
    file_path(errors, at, value);
    let path = tree::text(value, "path");
    unique_path(errors, volume, path, path, paths);
}

fn bundle_name(errors: &mut Errors, at: &Path, own: &str, value: &Value) {
    errors.needs(&at.child("name"), own, "must be a valid object name");
    let signer = own.rsplit_once(':').map(|(signer, _)| signer.replace(':', "/")).unwrap_or_default();
    for why in certificate::bundle_name_errors(&signer, own) {
        errors.invalid(&at.child("name"), own, &format!("not a valid clustertrustbundlename: {why}"));
    }
    if tree::has(value, "labelSelector") {
        let words = "labelSelector must be unset if name is specified";
        errors.invalid_shown(&at.child("labelSelector"), &selector::shown(&value["labelSelector"]), words);
    }
}

fn certificate_files(errors: &mut Errors, volume: &Path, at: &Path, value: &Value, paths: &mut Seen) {
    const KEYS: &[&str] = &["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"];
    const FILES: [&str; 3] = ["credentialBundlePath", "keyPath", "certificateChainPath"];
    let signer = tree::text(value, "signerName");
    name::signer(errors, &at.child("signerName"), signer);
    errors.one_of(&at.child("keyType"), tree::text(value, "keyType"), KEYS);
    if let Some(seconds) = value.get("maxExpirationSeconds").and_then(Value::as_i64) {
        let own = signer.split('/').next().is_some_and(|domain| domain.ends_with("kubernetes.io"));
        let most = if own { 24 * 3600 } else { 91 * 24 * 3600 };
        let at = at.child("maxExpirationSeconds");
        if seconds < 3600 {
            errors.invalid(&at, seconds, "if provided, maxExpirationSeconds must be >= 3600");
        }
        if seconds > most {
            errors.invalid(&at, seconds, &format!("if provided, maxExpirationSeconds must be <= {most}"));
        }
    }
    let given: Vec<&str> = FILES.into_iter().filter(|field| !tree::text(value, field).is_empty()).collect();
    for field in &given {
        let path = tree::text(value, field);
        name::local_nonreserved_path(errors, &at.child(field), path);
        unique_path(errors, volume, path, path, paths);
    }
    if given.is_empty() {
        errors.required(at, "specify at least one of credentialBundlePath, keyPath, and certificateChainPath");
    }
}

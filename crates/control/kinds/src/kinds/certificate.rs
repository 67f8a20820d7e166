//! Requests for certificates.

mod pod;

pub use pod::PodCertificateRequest;

use super::workload;
use crate::{
    check::{Errors, Seen, name, pem},
    column::{self, Column},
    strategy::{NameRule, Strategy},
    tree,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use pintle_types::{
    field::{ErrorList, Path},
    names,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub struct CertificateSigningRequest;

static COLUMNS: &[Column] = &[
    column::NAME,
    column::AGE,
    Column::new(
        "SignerName",
        "string",
        "",
        0,
        "Requested signer for the request. It is a qualified name in the form: `scope-hostname.io/name`. If \
         empty, it will be defaulted:\n 1. If it's a kubelet client certificate, it is assigned\n    \
         \"kubernetes.io/kube-apiserver-client-kubelet\".\n 2. If it's a kubelet serving certificate, it is \
         assigned\n    \"kubernetes.io/kubelet-serving\".\n 3. Otherwise, it is assigned \
         \"kubernetes.io/legacy-unknown\".\nDistribution of trust for signers happens out of band. You can \
         select on this field using `spec.signerName`.",
    ),
    Column::new("Requestor", "string", "", 0, "Base64-encoded PKCS#10 CSR data"),
    Column::new(
        "RequestedDuration",
        "string",
        "",
        0,
        "expirationSeconds is the requested duration of validity of the issued certificate. The certificate \
         signer may issue a certificate with a different validity duration so a client must check the delta \
         between the notBefore and and notAfter fields in the issued certificate to determine the actual \
         duration.\n\nThe v1.22+ in-tree implementations of the well-known Kubernetes signers will honor this \
         field as long as the requested duration is not greater than the maximum duration they will honor per \
         the --cluster-signing-duration CLI flag to the Kubernetes controller manager.\n\nCertificate signers \
         may not honor this field for various reasons:\n\n  1. Old signer that is unaware of the field (such as \
         the in-tree\n     implementations prior to v1.22)\n  2. Signer whose configured maximum is shorter than \
         the requested duration\n  3. Signer whose configured minimum is longer than the requested \
         duration\n\nThe minimum valid value for expirationSeconds is 600, i.e. 10 minutes.",
    ),
    Column::new("Condition", "string", "", 0, "Conditions applied to the request, such as approval or denial."),
];

const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

impl Strategy for CertificateSigningRequest {
    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    /// The request is the server's own from the beginning: nobody manages it.
    fn reset_fields(&self, subresource: &str) -> &'static [&'static str] {
        match subresource {
            "approval" => &["spec", "status.certificate"],
            "status" => &["spec", "status.conditions"],
            _ => &["spec", "status"],
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        tree::set(object, "status", json!({}));
    }

    /// The request itself never changes; who asks was filled in by the server when it was made.
    fn prepare_update(&self, new: &mut Value, old: &Value) {
        tree::copy(new, old, "spec");
    }

    fn prepare_subresource_update(&self, subresource: &str, new: &mut Value, old: &Value) {
        tree::copy(new, old, "spec");
        let is_decision = |it: &Value| matches!(tree::text(it, "type"), "Approved" | "Denied");
        let (wanted, before) = (new["status"].clone(), &old["status"]);
        match subresource {
            "approval" => {
                let mut status = if before.is_null() { json!({}) } else { before.clone() };
                tree::copy(&mut status, &wanted, "conditions");
                tree::set(new, "status", status);
            }
            "status" => {
                let kept = tree::list(before, "conditions").iter().filter(|it| is_decision(it));
                let given = tree::list(&wanted, "conditions").iter().filter(|it| !is_decision(it));
                let conditions: Vec<Value> = kept.chain(given).cloned().collect();
                if !conditions.is_empty()
                    && let Some(status) = tree::child(new, "status")
                {
                    tree::set(status, "conditions", conditions);
                }
            }
            _ => {}
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| validate_spec(errors, &Path::new("spec"), &object["spec"]))
    }

    fn validate_update(&self, _new: &Value, _old: &Value) -> ErrorList {
        ErrorList::new()
    }

    fn validate_subresource_update(&self, _subresource: &str, new: &Value, old: &Value) -> ErrorList {
        Errors::of(|errors| validate_status(errors, &Path::new("status"), &new["status"], &old["status"]))
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let duration = spec.get("expirationSeconds").and_then(Value::as_i64);
        let signer = tree::text(spec, "signerName");
        vec![
            workload::name(object),
            column::age(object, now),
            if signer.is_empty() { "<none>".into() } else { signer.into() },
            tree::text(spec, "username").into(),
            duration.map_or("<none>".to_owned(), column::human_duration).into(),
            state(status).into(),
        ]
    }
}

fn of_type<'a>(status: &'a Value, kind: &str) -> Vec<&'a Value> {
    tree::list(status, "conditions").iter().filter(|it| tree::text(it, "type") == kind).collect()
}

/// Decisions stay, and so does the certificate.
fn validate_status(errors: &mut Errors, path: &Path, new: &Value, old: &Value) {
    let at = path.child("conditions");
    validate_conditions(errors, &at, new, old);
    let certificate = |status: &Value| tree::text(status, "certificate").to_owned();
    let (now, before) = (certificate(new), certificate(old));
    if now != before
        && certificate_problem(&before).is_none()
        && let Some(why) = certificate_problem(&now)
    {
        errors.invalid(&path.child("certificate"), "<certificate data>", &why);
    }
    for kind in ["Approved", "Denied", "Failed"] {
        if of_type(new, kind).len() < of_type(old, kind).len() {
            errors.forbidden(&at, &format!("updates may not remove a condition of type {kind:?}"));
        }
    }
    if now != before && !before.is_empty() {
        errors.forbidden(&path.child("certificate"), "updates may not modify existing certificate content");
    }
}

/// What was wrong before may stay wrong.
fn validate_conditions(errors: &mut Errors, path: &Path, new: &Value, old: &Value) {
    let had = |kind: &str| !of_type(old, kind).is_empty();
    let kinds = |status: &Value| -> Vec<String> {
        tree::list(status, "conditions").iter().map(|it| tree::text(it, "type").to_owned()).collect()
    };
    let repeated_before = {
        let mut seen = Seen::default();
        !kinds(old).into_iter().all(|kind| seen.first(kind))
    };
    let (mut seen, mut decided): (Seen, Option<&str>) = (Seen::default(), None);
    for (i, condition) in tree::list(new, "conditions").iter().enumerate() {
        let (at, kind) = (path.index(i), tree::text(condition, "type"));
        if !had("") {
            errors.needs(&at.child("type"), kind, "");
        }
        match tree::text(condition, "status") {
            "" => errors.required(&at.child("status"), ""),
            "True" => {}
            status if matches!(kind, "Approved" | "Denied" | "Failed") => {
                errors.unsupported(&at.child("status"), status, &["True"]);
            }
            status => errors.one_of(&at.child("status"), status, &["False", "True", "Unknown"]),
        }
        if matches!(kind, "Approved" | "Denied") && !(had("Approved") && had("Denied")) {
            if decided.is_some_and(|other| other != kind) {
                errors.invalid(path, kind, "Approved and Denied conditions are mutually exclusive");
            }
            decided = Some(kind);
        }
        if !seen.first(kind) && !repeated_before {
            errors.duplicate(&at.child("type"), kind);
        }
    }
}

/// Why a text in base64 is no list of certificates; none at all is one.
fn certificate_problem(encoded: &str) -> Option<String> {
    let text = String::from_utf8(STANDARD.decode(encoded).unwrap_or_default()).unwrap_or_default();
    if encoded.is_empty() {
        return None;
    }
    let blocks = pem::blocks(&text);
    for block in &blocks {
        if block.label != "CERTIFICATE" {
            return Some(format!("only CERTIFICATE PEM blocks are allowed, found {:?}", block.label));
        }
        if block.has_headers {
            return Some("no PEM block headers are permitted".to_owned());
        }
        if pem::certificate(block).is_none() {
            return Some("x509: malformed certificate".to_owned());
        }
    }
    blocks.is_empty().then(|| "must contain at least one CERTIFICATE PEM block".to_owned())
}

fn state(status: &Value) -> String {
    let is = |kind: &str| tree::list(status, "conditions").iter().any(|it| tree::text(it, "type") == kind);
    let decided = match (is("Denied"), is("Approved")) {
        (true, _) => "Denied",
        (false, true) => "Approved",
        (false, false) => "Pending",
    };
    let mut words = vec![decided];
    if is("Failed") {
        words.push("Failed");
    }
    if !tree::text(status, "certificate").is_empty() {
        words.push("Issued");
    }
    words.join(",")
}

/// The signer of requests that were made before signers had names.
const LEGACY: &str = "kubernetes.io/legacy-unknown";

fn validate_spec(errors: &mut Errors, path: &Path, spec: &Value) {
    if let Err(why) = check_request(spec) {
        let shown = spec.get("request").map_or("null".to_owned(), Value::to_string);
        errors.invalid_shown(&path.child("request"), &shown, &why);
    }
    let usages = tree::list(spec, "usages");
    if usages.is_empty() {
        errors.required(&path.child("usages"), "");
    }
    let mut seen = Seen::default();
    for (i, usage) in usages.iter().enumerate() {
        let usage = usage.as_str().unwrap_or("");
        errors.one_of(&path.child("usages").index(i), usage, USAGES);
        if !seen.first(usage) {
            errors.duplicate(&path.child("usages").index(i), usage);
        }
    }
    match tree::text(spec, "signerName") {
        LEGACY => {
            let words = "the legacy signerName is not allowed via this API version";
            errors.invalid(&path.child("signerName"), LEGACY, words);
        }
        signer => name::signer(errors, &path.child("signerName"), signer),
    }
    if let Some(seconds) = spec.get("expirationSeconds").and_then(Value::as_i64).filter(|seconds| *seconds < 600) {
        let words = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.invalid(&path.child("expirationSeconds"), seconds, words);
    }
}

/// A PEM block of the right type that holds a request.
fn check_request(spec: &Value) -> Result<(), String> {
    const TYPE: &str = "PEM block type must be CERTIFICATE REQUEST";
    let bytes = STANDARD.decode(tree::text(spec, "request")).map_err(|_| TYPE.to_owned())?;
    let (_, block) = x509_parser::pem::parse_x509_pem(&bytes).map_err(|_| TYPE.to_owned())?;
    if block.label != "CERTIFICATE REQUEST" {
        return Err(TYPE.to_owned());
    }
    use x509_parser::prelude::FromDer;
    x509_parser::certification_request::X509CertificationRequest::from_der(&block.contents)
        .map(|_| ())
        .map_err(|why| format!("asn1: structure error: {why}"))
}

/// Trust anchors for the whole cluster.
pub struct ClusterTrustBundle;

impl Strategy for ClusterTrustBundle {
    fn validate(&self, object: &Value) -> ErrorList {
        let mut found = signer_and_name(object);
        found.extend(Errors::of(|errors| {
            trust_anchors(errors, &Path::new("spec.trustBundle"), tree::text(&object["spec"], "trustBundle"));
        }));
        found
    }

    /// A bundle that stays is not read again.
    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let field = |object: &Value, field: &str| object["spec"][field].clone();
        let mut found = match field(new, "trustBundle") == field(old, "trustBundle") {
            true => signer_and_name(new),
            false => self.validate(new),
        };
        found.extend(Errors::of(|errors| {
            let at = Path::new("spec.signerName");
            errors.immutable(&at, &field(new, "signerName"), &field(old, "signerName"));
        }));
        found
    }

    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }
}

fn signer_and_name(object: &Value) -> ErrorList {
    Errors::of(|errors| {
        let (path, spec) = (Path::new("spec"), &object["spec"]);
        let signer = tree::text(spec, "signerName");
        let name = tree::text(&object["metadata"], "name");
        if !name.is_empty() {
            errors.invalid_for(&Path::new("metadata.name"), name, bundle_name_errors(signer, name));
        }
        if !signer.is_empty() {
            name::signer(errors, &path.child("signerName"), signer);
        }
    })
}

/// Certificates of authorities, each once.
fn trust_anchors(errors: &mut Errors, path: &Path, bundle: &str) {
    const LONGEST: usize = 1024 * 1024;
    const OMITTED: &str = "<value omitted>";
    if bundle.len() > LONGEST {
        return errors.too_long(path, LONGEST);
    }
    let blocks = pem::blocks(bundle);
    let problem = |block: &pem::Block| match pem::certificate(block) {
        _ if block.label != "CERTIFICATE" => Some(format!("has bad block type: {}", block.label)),
        _ if block.has_headers => Some("has PEM block headers".to_owned()),
        None => Some("does not parse as X.509".to_owned()),
        Some(certificate) if !certificate.is_ca() => Some("does not have the CA bit set".to_owned()),
        Some(_) => None,
    };
    let before = errors.0.len();
    for (i, why) in blocks.iter().map(problem).enumerate() {
        if let Some(why) = why {
            errors.invalid(path, OMITTED, &format!("entry {i} {why}"));
        }
    }
    if errors.0.len() > before {
        return;
    }
    if blocks.is_empty() {
        errors.invalid(path, OMITTED, "at least one trust anchor must be provided");
    }
    let mut places: BTreeMap<&[u8], Vec<usize>> = BTreeMap::new();
    blocks.iter().enumerate().for_each(|(i, block)| places.entry(&block.bytes).or_default().push(i));
    for indices in places.values().filter(|indices| indices.len() > 1) {
        let list: Vec<String> = indices.iter().map(usize::to_string).collect();
        errors.invalid(path, OMITTED, &format!("duplicate trust anchor (indices [{}])", list.join(" ")));
    }
}

/// What is wrong with the name of a bundle of a signer, or of none.
pub(crate) fn bundle_name_errors(signer: &str, name: &str) -> Vec<String> {
    if signer.is_empty() {
        return match name.contains(':') {
            true => vec!["ClusterTrustBundle without signer name must not have \":\" in its name".to_owned()],
            false => names::dns1123_subdomain_errors(name),
        };
    }
    let prefix = format!("{}:", signer.replace('/', ":"));
    match name.strip_prefix(&prefix) {
        None => vec![format!("ClusterTrustBundle for signerName {signer} must be named with prefix {prefix}")],
        Some(rest) => names::dns1123_subdomain_errors(rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states() {
        let state_of = |kinds: &[&str]| {
            let conditions: Vec<Value> = kinds.iter().map(|kind| json!({"type": kind})).collect();
            state(&json!({"conditions": conditions}))
        };
        for (kinds, expected) in [
            (&[][..], "Pending"),
            (&["Approved"], "Approved"),
            (&["Denied"], "Denied"),
            (&["Approved", "Failed"], "Approved,Failed"),
        ] {
            assert_eq!(state_of(kinds), expected);
        }
    }

    #[test]
    fn approval_changes_decisions_only() {
        let old = json!({"spec": {"a": 1}, "status": {"conditions": [{"type": "Failed", "status": "True"}]}});
        let approved = json!({"type": "Approved", "status": "True"});
        let mut new = json!({"spec": {"a": 2}, "status": {"certificate": "x", "conditions": [approved]}});
        CertificateSigningRequest.prepare_subresource_update("approval", &mut new, &old);
        assert_eq!(new, json!({"spec": {"a": 1}, "status": {"conditions": [approved]}}));
        let found = CertificateSigningRequest.validate_subresource_update("approval", &new, &old);
        let words = "status.conditions: Forbidden: updates may not remove a condition of type \"Failed\"";
        assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), [words]);
    }

    #[test]
    fn requests_are_pem() {
        assert!(check_request(&json!({"request": STANDARD.encode("nothing")})).is_err());
        assert!(check_request(&json!({})).is_err());
    }
}

//! Certificate signing requests: they carry who asked, so that whoever signs need not believe the request's own words,
//! and each signer's are approved and signed only by those who may do so for it.
//!
//! Source: `plugin/pkg/admission/certificates` and `pkg/certauthorization` of Kubernetes.

use super::roles::only_ownership_differs;
use super::{forbidden, user_of};
use crate::authorization::{self, Authorizer};
use base64::{Engine, engine::general_purpose::STANDARD};
use pintle_pki::CertificateRequest;
use pintle_registry::{Attributes, Operation};
use pintle_types::Status;
use serde_json::{Value, json};

const GROUP: &str = "certificates.k8s.io";

fn is_request(attributes: &Attributes<'_>) -> bool {
    attributes.def.group == GROUP && attributes.def.resource == "certificatesigningrequests"
}

/// Whether a write makes a request.
fn creates(attributes: &Attributes<'_>) -> bool {
    is_request(attributes) && attributes.operation == Operation::Create && attributes.subresource.is_empty()
}

/// Nobody becomes an administrator by a certificate: no rule could ever take that back.
pub(super) fn restrict_subject(attributes: &Attributes<'_>) -> Result<(), Status> {
    const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
    let Some(spec) = attributes.object.as_ref().map(|object| &object["spec"]).filter(|_| creates(attributes)) else {
        return Ok(());
    };
    if spec["signerName"] != CLIENT {
        return Ok(());
    }
    let bytes = spec["request"].as_str().and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default();
    let request = CertificateRequest::from_pem(&String::from_utf8_lossy(&bytes))
        .map_err(|error| forbidden(attributes, &format!("failed to parse CSR: {error}")))?;
    if request.subject.organizations.iter().any(|group| group == "system:masters") {
        let why = format!("use of {CLIENT} signer with system:masters group is not allowed");
        return Err(forbidden(attributes, &why));
    }
    Ok(())
}

/// CertificateApproval: who approves a request needs the right to it for its signer.
pub(super) async fn protect_approval(authorizer: &Authorizer, attributes: &Attributes<'_>) -> Result<(), Status> {
    match is_request(attributes) && attributes.operation == Operation::Update && attributes.subresource == "approval" {
        true => protect(authorizer, attributes, "approve").await,
        false => Ok(()),
    }
}

/// CertificateSigning: so does who signs it.
pub(super) async fn protect_signing(authorizer: &Authorizer, attributes: &Attributes<'_>) -> Result<(), Status> {
    let concerned =
        is_request(attributes) && attributes.operation == Operation::Update && attributes.subresource == "status";
    let objects = attributes.old_object.as_deref().zip(attributes.object.as_ref());
    match objects.is_some_and(|(old, new)| concerned && answers(old, new)) {
        true => protect(authorizer, attributes, "sign").await,
        false => Ok(()),
    }
}

async fn protect(authorizer: &Authorizer, attributes: &Attributes<'_>, verb: &str) -> Result<(), Status> {
    // The stored signer counts, in case that somebody tries to change it by the way.
    let Some(old) = attributes.old_object.as_deref() else { return Ok(()) };
    let signer = old["spec"]["signerName"].as_str().unwrap_or_default();
    if may(authorizer, attributes, verb, signer).await {
        return Ok(());
    }
    let why = format!("user not permitted to {verb} requests with signerName {signer:?}");
    Err(forbidden(attributes, &why))
}

/// ClusterTrustBundleAttest: whoever publishes the authorities of a signer speaks for that signer.
pub(super) async fn attest(authorizer: &Authorizer, attributes: &Attributes<'_>) -> Result<(), Status> {
    let bundle = attributes.def.group == GROUP && attributes.def.resource == "clustertrustbundles";
    let writes = matches!(attributes.operation, Operation::Create | Operation::Update);
    let Some(new) = attributes.object.as_ref().filter(|_| bundle && writes && attributes.subresource.is_empty()) else {
        return Ok(());
    };
    let signer = new["spec"]["signerName"].as_str().unwrap_or_default();
    let unchanged = attributes.old_object.as_deref().is_some_and(|old| only_ownership_differs(old, new));
    if signer.is_empty() || unchanged || may(authorizer, attributes, "attest", signer).await {
        return Ok(());
    }
    Err(forbidden(attributes, &format!("user not permitted to attest for signerName {signer:?}")))
}

/// Whether a status says anything else about the request than the old one.
fn answers(old: &Value, new: &Value) -> bool {
    let filled = |object: &Value, field: &str| {
        let value = object["status"].get(field)?.clone();
        let empty = value.is_null() || value == "" || value.as_array().is_some_and(Vec::is_empty);
        (!empty).then_some(value)
    };
    ["certificate", "conditions"].into_iter().any(|field| filled(old, field) != filled(new, field))
}

/// Whether the user may do so for this signer, or for all signers of its domain.
async fn may(authorizer: &Authorizer, attributes: &Attributes<'_>, verb: &str, signer: &str) -> bool {
    let user = user_of(attributes);
    let domain = signer.split_once('/').map_or(signer, |(domain, _)| domain);
    for name in [signer, &format!("{domain}/*")] {
        let what = authorization::Attributes { verb, group: GROUP, resource: "signers", name, ..Default::default() };
        if authorizer.decide(&user, &what).await.allowed {
            return true;
        }
    }
    false
}

pub(super) fn sign_with_requester(attributes: &mut Attributes<'_>) {
    if !creates(attributes) {
        return;
    }
    let user = attributes.user;
    let Some(spec) = attributes.object.as_mut().and_then(|o| o["spec"].as_object_mut()) else { return };
    spec.insert("username".into(), user.name.as_str().into());
    for (field, value, empty) in [
        ("uid", Value::from(user.uid.as_str()), user.uid.is_empty()),
        ("groups", user.groups.clone().into(), user.groups.is_empty()),
        ("extra", json!(user.extra), user.extra.is_empty()),
    ] {
        if empty {
            spec.remove(field);
        } else {
            spec.insert(field.into(), value);
        }
    }
}

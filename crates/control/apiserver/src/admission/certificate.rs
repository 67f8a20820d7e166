//! Certificate signing requests carry who asked: whoever signs them must not have to believe the request's own words.

use super::forbidden;
use base64::{Engine, engine::general_purpose::STANDARD};
use pintle_pki::CertificateRequest;
use pintle_registry::{Attributes, Operation};
use pintle_types::Status;
use serde_json::{Value, json};

/// Whether a write makes a request.
fn creates(attributes: &Attributes<'_>) -> bool {
    attributes.def.group == "certificates.k8s.io"
        && attributes.def.resource == "certificatesigningrequests"
        && attributes.operation == Operation::Create
        && attributes.subresource.is_empty()
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

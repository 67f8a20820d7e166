//! AdmissionReview: what a hook is asked, and what its answer means. Versions v1 and v1beta1.
//!
//! Source: `pkg/admission/plugin/webhook/request` of Kubernetes' apiserver.

use super::config::{Flavor, ReviewVersion};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pintle_kinds::ResourceDef;
use pintle_registry::Attributes;
use pintle_types::Status;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What a hook said.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub allowed: bool,
    pub status: Option<Status>,
    /// Operations of a JSON patch.
    pub patch: Option<Vec<u8>>,
    pub annotations: BTreeMap<String, String>,
    pub warnings: Vec<String>,
}

/// The review as JSON: the write as the hook is to see it, in the form of `seen`.
pub(super) fn request(
    version: ReviewVersion,
    uid: &str,
    attributes: &Attributes<'_>,
    seen: &ResourceDef,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Vec<u8> {
    let def = attributes.def;
    let gvk = |def: &ResourceDef| match def.subresource(attributes.subresource).and_then(|sub| sub.body.as_ref()) {
        Some(body) => json!({"group": body.group, "version": body.version, "kind": body.kind}),
        None => json!({"group": def.group, "version": def.version, "kind": def.kind}),
    };
    let gvr = |def: &ResourceDef| json!({"group": def.group, "version": def.version, "resource": def.resource});
    let mut request = Map::new();
    request.insert("uid".into(), uid.into());
    request.insert("kind".into(), gvk(seen));
    request.insert("resource".into(), gvr(seen));
    request.insert("requestKind".into(), gvk(def));
    request.insert("requestResource".into(), gvr(def));
    for (field, text) in [
        ("subResource", attributes.subresource),
        ("requestSubResource", attributes.subresource),
        ("name", attributes.name),
        ("namespace", namespace(attributes)),
    ] {
        if !text.is_empty() {
            request.insert(field.into(), text.into());
        }
    }
    request.insert("operation".into(), attributes.operation.as_str().into());
    request.insert("userInfo".into(), user(attributes));
    request.insert("dryRun".into(), attributes.dry_run.into());
    request.insert("options".into(), attributes.options.clone());
    let head = json!({"kind": "AdmissionReview", "apiVersion": format!("admission.k8s.io/{}", version.name())});
    assemble(&head, &Value::Object(request), object, old)
}

/// Puts the objects in without copying their trees.
fn assemble(head: &Value, request: &Value, object: Option<&Value>, old: Option<&Value>) -> Vec<u8> {
    let mut out = head.to_string().into_bytes();
    out.pop();
    out.extend_from_slice(b",\"request\":");
    out.extend_from_slice(request.to_string().as_bytes());
    out.pop();
    for (field, value) in [("object", object), ("oldObject", old)] {
        out.extend_from_slice(format!(",\"{field}\":").as_bytes());
        // Writing JSON into memory cannot fail.
        let _ = serde_json::to_writer(&mut out, value.unwrap_or(&Value::Null));
    }
    out.extend_from_slice(b"}}");
    out
}

/// Upstream gives namespaces themselves as their namespace.
pub(crate) fn namespace<'a>(attributes: &Attributes<'a>) -> &'a str {
    let is_namespace = attributes.def.group.is_empty() && attributes.def.resource == "namespaces";
    if is_namespace { attributes.name } else { attributes.namespace }
}

fn user(attributes: &Attributes<'_>) -> Value {
    let user = attributes.user;
    let mut out = Map::new();
    for (field, text) in [("username", &user.name), ("uid", &user.uid)] {
        if !text.is_empty() {
            out.insert(field.into(), text.as_str().into());
        }
    }
    if !user.groups.is_empty() {
        out.insert("groups".into(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        out.insert("extra".into(), json!(user.extra));
    }
    Value::Object(out)
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Review {
    kind: String,
    api_version: String,
    response: Option<Response>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Response {
    uid: String,
    allowed: bool,
    status: Option<Value>,
    patch: Option<String>,
    patch_type: Option<String>,
    audit_annotations: Option<BTreeMap<String, String>>,
    warnings: Option<Vec<String>>,
}

/// Reads an answer; the error says what is wrong with it in upstream's words.
pub(super) fn answer(version: ReviewVersion, uid: &str, flavor: Flavor, body: &[u8]) -> Result<Verdict, String> {
    let review: Review = serde_json::from_slice(body)
        .map_err(|error| format!("couldn't get version/kind; json parse error: {error}"))?;
    let response = review.response.ok_or("webhook response was absent")?;
    if version == ReviewVersion::V1 && response.uid != uid {
        return Err(format!("expected response.uid={uid:?}, got {:?}", response.uid));
    }
    check_kind(version, &review.api_version, &review.kind)?;
    let patch = match &response.patch {
        Some(text) => STANDARD.decode(text).map_err(|error| format!("response.patch is no base64: {error}"))?,
        None => Vec::new(),
    };
    if version == ReviewVersion::V1 {
        check_patch(flavor, !patch.is_empty(), response.patch_type.as_deref())?;
    }
    if let Some(other) = response.patch_type.filter(|kind| flavor == Flavor::Mutating && kind != "JSONPatch") {
        return Err(format!("unsupported patch type {other:?}"));
    }
    Ok(Verdict {
        allowed: response.allowed,
        status: response.status.and_then(|status| serde_json::from_value(lenient(status)).ok()),
        patch: Some(patch).filter(|patch| flavor == Flavor::Mutating && !patch.is_empty()),
        annotations: response.audit_annotations.unwrap_or_default(),
        warnings: response.warnings.unwrap_or_default(),
    })
}

/// Hooks leave out most of a Status, and write null for what they leave out.
fn lenient(mut status: Value) -> Value {
    if let Some(fields) = status.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    status
}

fn check_kind(version: ReviewVersion, api_version: &str, kind: &str) -> Result<(), String> {
    let expected = format!("admission.k8s.io/{}", version.name());
    let bare = version == ReviewVersion::V1beta1 && api_version.is_empty() && kind.is_empty();
    if bare || (api_version == expected && kind == "AdmissionReview") {
        return Ok(());
    }
    let got = if api_version.contains('/') { api_version.to_owned() } else { format!("/{api_version}") };
    Err(format!("expected webhook response of {expected}, Kind=AdmissionReview, got {got}, Kind={kind}"))
}

fn check_patch(flavor: Flavor, patched: bool, kind: Option<&str>) -> Result<(), String> {
    let why = match (flavor, patched, kind) {
        (Flavor::Mutating, true, None) => "webhook returned response.patch but not response.patchType",
        (Flavor::Mutating, false, Some(_)) => "webhook returned response.patchType but not response.patch",
        (Flavor::Mutating, true, Some("")) => "webhook returned invalid response.patchType of \"\"",
        (Flavor::Validating, true, _) => "validating webhook may not return response.patch",
        (Flavor::Validating, _, Some(_)) => "validating webhook may not return response.patchType",
        _ => return Ok(()),
    };
    Err(why.into())
}

/// The refusal that a client sees, made of the status that the hook gave.
pub(super) fn refusal(hook: &str, given: Option<Status>) -> Status {
    let denied = format!("admission webhook {hook:?} denied the request");
    let mut status = given.unwrap_or_else(|| Status::failure(0, pintle_types::Reason::Unknown, ""));
    if status.code < 400 {
        status.code = 400;
    }
    status.status = "Failure".into();
    (status.kind, status.api_version) = ("Status".into(), "v1".into());
    let reason = serde_json::to_value(status.reason).ok();
    let reason = reason.as_ref().and_then(Value::as_str).unwrap_or_default();
    status.message = if !status.message.is_empty() {
        format!("{denied}: {}", status.message)
    } else if !matches!(reason, "" | "Unknown") {
        format!("{denied}: {reason}")
    } else {
        format!("{denied} without explanation")
    };
    status
}

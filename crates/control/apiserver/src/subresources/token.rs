//! `serviceaccounts/token`: a token for an audience, a time, and as long as a pod, secret or node is there.
//!
//! Source: `pkg/registry/core/serviceaccount/storage/token.go` of Kubernetes.

use super::connect;
use crate::media::{Shape, negotiate};
use crate::options::WriteOptions;
use crate::resources::{Target, body_of, encode_value};
use crate::response::{Answer, with_type};
use http::StatusCode;
use jiff::Timestamp;
use pintle_auth::authentication::service_account::Order;
use pintle_types::Status;
use pintle_types::field::{ErrorList, FieldError, Path};
use pintle_types::names::GroupKind;
use serde_json::{Value, json};

const DEFAULT_SECONDS: i64 = 3600;
const LEAST_SECONDS: i64 = 600;
const MOST_SECONDS: i64 = 1 << 32;
/// What pods' volumes ask for. Such tokens work a year for clients too old to read them again, and say when they
/// should have been.
const POD_SECONDS: i64 = 3607;
const EXTENDED_SECONDS: i64 = 365 * 24 * 3600;

pub(super) async fn create(target: &Target<'_>) -> Answer {
    let format = negotiate(&target.call.headers, Shape::Object)?;
    let options = WriteOptions::read(&target.call.query, "CreateOptions", false)?;
    let review = body_of(target, &options, "token").await?;
    let server = &target.call.server;
    let (ns, name) = (target.path.namespace.as_str(), target.path.name.as_str());
    check_names(&review, ns, name)?;
    let mut review = connect::admit_made(target, review, options.dry_run).await?;
    let account = server.core_object("serviceaccounts", ns, name).await?;
    let seconds = seconds(&review)?;
    let accounts = &server.auth.tokens.accounts;
    let audiences = audiences(&review, &accounts.audiences);
    let bound = bound(target, &review).await?;
    let seconds = shortened(target, seconds);
    let node = node_of(target, bound.as_ref()).await;
    let now = server.clock.now().as_second();
    let for_here = audiences.iter().all(|a| accounts.audiences.contains(a));
    let for_pod = bound.as_ref().is_some_and(|(kind, _)| *kind == "pod");
    let extend = accounts.extend_expiration && seconds == POD_SECONDS && for_pod && for_here;
    let order = Order {
        namespace: ns,
        account: &account,
        bound: bound.as_ref().map(|(kind, object)| (*kind, object)),
        node: node.as_ref(),
        audiences: &audiences,
        issued_at: now,
        expires_at: now + if extend { EXTENDED_SECONDS } else { seconds },
        warn_after: extend.then_some(now + seconds),
    };
    let token = accounts.issue(&order).map_err(|e| Box::new(Status::internal(e)))?;
    let at = |second| Timestamp::from_second(second).map(|t| t.to_string()).unwrap_or_default();
    review["metadata"] = json!({"name": name, "namespace": ns, "creationTimestamp": at(now)});
    review["spec"]["audiences"] = audiences.into();
    review["spec"]["expirationSeconds"] = seconds.into();
    if review["spec"]["boundObjectRef"].is_null() {
        review["spec"]["boundObjectRef"] = Value::Null;
    }
    review["status"] = json!({"token": token, "expirationTimestamp": at(now + seconds)});
    let body = encode_value(&review, format.written)?;
    Ok(with_type(StatusCode::CREATED, format.written.content_type(), body))
}

fn check_names(review: &Value, ns: &str, name: &str) -> Result<(), Box<Status>> {
    for (field, wanted) in [("name", name), ("namespace", ns)] {
        let given = review["metadata"][field].as_str().unwrap_or_default();
        if !given.is_empty() && given != wanted {
            let message =
                format!("the {field} of the object ({given}) does not match the {field} on the URL ({wanted})");
            return Err(Box::new(Status::bad_request(message)));
        }
    }
    Ok(())
}

fn seconds(review: &Value) -> Result<i64, Box<Status>> {
    let seconds = review["spec"]["expirationSeconds"].as_i64().unwrap_or(DEFAULT_SECONDS);
    let detail = match seconds {
        s if s < LEAST_SECONDS => "may not specify a duration less than 10 minutes",
        s if s > MOST_SECONDS => "may not specify a duration larger than 2^32 seconds",
        s => return Ok(s),
    };
    let errors: ErrorList = vec![FieldError::invalid(&Path::new("spec").child("expirationSeconds"), seconds, detail)];
    let kind = GroupKind { group: "authentication.k8s.io".into(), kind: "TokenRequest".into() };
    Err(Box::new(Status::invalid(&kind, "", &errors)))
}

/// No longer than the server's settings allow, of which the client is told.
fn shortened(target: &Target<'_>, seconds: i64) -> i64 {
    match target.call.server.auth.tokens.accounts.max_seconds {
        Some(most) if most < seconds => {
            let warning = format!("requested expiration of {seconds} seconds shortened to {most} seconds");
            target.call.warn([warning]);
            most
        }
        _ => seconds,
    }
}

fn audiences(review: &Value, own: &[String]) -> Vec<String> {
    let given = review["spec"]["audiences"].as_array().map(Vec::as_slice).unwrap_or_default();
    match given {
        [] => own.to_vec(),
        list => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
    }
}

/// The object that the token is to be bound to.
async fn bound(target: &Target<'_>, review: &Value) -> Result<Option<(&'static str, Value)>, Box<Status>> {
    let reference = &review["spec"]["boundObjectRef"];
    if !reference.is_object() {
        return Ok(None);
    }
    let name = reference["name"].as_str().unwrap_or_default();
    let ns = target.path.namespace.as_str();
    let (kind, resource, ns) = match (reference["apiVersion"].as_str(), reference["kind"].as_str()) {
        (None | Some("" | "v1"), Some("Pod")) => ("pod", "pods", ns),
        (None | Some("" | "v1"), Some("Secret")) => ("secret", "secrets", ns),
        (None | Some("" | "v1"), Some("Node")) => ("node", "nodes", ""),
        (version, kind) => {
            let (version, kind) = (version.unwrap_or_default(), kind.unwrap_or_default());
            let group = if version.contains('/') { "" } else { "/" };
            let message = format!("cannot bind token to object of type {group}{version}, Kind={kind}");
            return Err(Box::new(Status::bad_request(message)));
        }
    };
    let object = target.call.server.core_object(resource, ns, name).await?;
    let account = &target.path.name;
    if kind == "pod" && object["spec"]["serviceAccountName"] != account.as_str() {
        let message = format!(
            "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
        );
        return Err(Box::new(Status::bad_request(message)));
    }
    let wanted = reference["uid"].as_str().unwrap_or_default();
    if !wanted.is_empty() && object["metadata"]["uid"] != wanted {
        let why = format!(
            "the UID in the bound object reference ({wanted}) does not match the UID in record. The object might have \
             been deleted and then recreated"
        );
        return Err(Box::new(Status::conflict("", reference["kind"].as_str().unwrap_or_default(), name, &why)));
    }
    Ok(Some((kind, object)))
}

/// The node of the pod, which the token names too.
async fn node_of(target: &Target<'_>, bound: Option<&(&'static str, Value)>) -> Option<Value> {
    let (_, pod) = bound.filter(|(kind, _)| *kind == "pod")?;
    let name = pod["spec"]["nodeName"].as_str().filter(|n| !n.is_empty())?;
    target.call.server.core_object("nodes", "", name).await.ok()
}

//! Conversion between versions by a webhook: `ConversionReview` of `apiextensions.k8s.io/v1`.
//!
//! Source: apiextensions-apiserver's `webhook_converter.go`, whose messages these are.

use crate::aggregation;
use crate::server::Server;
use base64::Engine;
use bytes::Bytes;
use http::{HeaderValue, Method, Request};
use pintle_aggregator::{Address, Remote, RemoteError, ServiceRef, Trust};
use pintle_client::body_from;
use pintle_types::{Reason, Status};
use serde_json::{Value, json};
use std::sync::Weak;
use std::time::Duration;

/// Upstream's bound for one conversion.
const PATIENCE: Duration = Duration::from_secs(30);
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Where the webhook is.
enum Place {
    Address(Address),
    Service(ServiceRef),
}

/// A definition's webhook. Its connection is kept and shared.
pub(super) struct Webhook {
    server: Weak<Server>,
    place: Place,
    remote: Result<Remote, RemoteError>,
    /// As messages show it.
    url: String,
    path: String,
    kind: String,
}

impl Webhook {
    /// The webhook of a definition; nothing when it converts without one.
    pub fn read(server: Weak<Server>, spec: &Value) -> Option<Self> {
        let conversion = &spec["conversion"];
        if conversion["strategy"] != "Webhook" {
            return None;
        }
        let config = &conversion["webhook"]["clientConfig"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let bundle = base64::engine::general_purpose::STANDARD.decode(text(&config["caBundle"])).unwrap_or_default();
        let trust = if bundle.is_empty() { Trust::Machine } else { Trust::Bundle(bundle) };
        let (place, host, path, url) = match &config["service"] {
            Value::Object(service) => {
                let port = service.get("port").and_then(Value::as_u64).and_then(|p| u16::try_from(p).ok());
                let of = |name: &str| service.get(name).map(text).unwrap_or_default();
                let service = ServiceRef { namespace: of("namespace"), name: of("name"), port: port.unwrap_or(443) };
                let path = format!("/{}", of("path").trim_start_matches('/'));
                let url = format!("https://{}:{}{path}", service.host(), service.port);
                let host = service.host();
                (Place::Service(service), host, path, url)
            }
            _ => {
                let url: http::Uri = text(&config["url"]).parse().unwrap_or_default();
                let host = url.host().unwrap_or_default().to_owned();
                let address = Address::Name(host.clone(), url.port_u16().unwrap_or(443));
                (Place::Address(address), host, url.path().to_owned(), text(&config["url"]))
            }
        };
        let remote = Remote::new(&host, &trust, None);
        Some(Self { server, place, remote, url, path, kind: text(&spec["names"]["kind"]) })
    }

    /// Objects, all of the same kind, in the form of another version.
    pub async fn convert(&self, objects: Vec<Value>, wanted: &str) -> Result<Vec<Value>, Status> {
        let from = objects.first().map(|o| o["apiVersion"].as_str().unwrap_or_default().to_owned());
        let about = format!("conversion webhook for {}, Kind={}", from.unwrap_or_default(), self.kind);
        let failed = |why: String| Status::failure(500, Reason::Unknown, format!("{about} {why}"));
        let uid = uuid::Uuid::new_v4().to_string();
        let review = json!({
            "kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1",
            "request": {"uid": uid, "desiredAPIVersion": wanted, "objects": objects},
        });
        let answer = self.ask(&review).await.map_err(|e| failed(format!("failed: {e}")))?;
        let converted = answered(&answer, &uid).map_err(|why| failed(format!("failed: {why}")))?;
        if converted.len() != objects.len() {
            return Err(failed(format!("returned {} objects, expected {}", converted.len(), objects.len())));
        }
        let pairs = objects.iter().zip(converted).enumerate();
        pairs.map(|(index, (before, after))| restore(before, after, wanted, index).map_err(failed)).collect()
    }

    async fn ask(&self, review: &Value) -> Result<Value, String> {
        let post = |why: &dyn std::fmt::Display| format!("Post \"{}?timeout=30s\": {why}", self.url);
        let remote = self.remote.as_ref().map_err(|e| post(e))?;
        let address = match &self.place {
            Place::Address(address) => address.clone(),
            Place::Service(service) => {
                let server = self.server.upgrade().ok_or_else(|| post(&"the server stops"))?;
                aggregation::place(&server, service).await.map_err(|e| post(&e))?
            }
        };
        let mut request = Request::new(body_from(review.to_string()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = format!("{}?timeout=30s", self.path).parse().map_err(|e| post(&e))?;
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(http::header::CONTENT_TYPE, json.clone());
        request.headers_mut().insert(http::header::ACCEPT, json);
        let answer: http::Response<Bytes> =
            remote.fetch(&address, request, MAX_ANSWER_BYTES, PATIENCE).await.map_err(|e| post(&e))?;
        if !answer.status().is_success() {
            return Err(refused(answer.status().as_u16(), answer.body()));
        }
        serde_json::from_slice(answer.body()).map_err(|e| format!("the answer is no JSON: {e}"))
    }
}

/// What an answer that is no success says.
fn refused(code: u16, body: &[u8]) -> String {
    let status: Option<Status> = serde_json::from_slice(body).ok();
    match status.filter(|s| !s.message.is_empty()) {
        Some(status) => status.message,
        None if code == 404 => "the server could not find the requested resource".into(),
        None => format!(
            "an error on the server ({:?}) has prevented the request from succeeding",
            String::from_utf8_lossy(&body[..body.len().min(2048)])
        ),
    }
}

/// The objects of a review that answers ours.
fn answered(review: &Value, uid: &str) -> Result<Vec<Value>, String> {
    if review["kind"] != "ConversionReview" || review["apiVersion"] != "apiextensions.k8s.io/v1" {
        return Err("expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview".into());
    }
    let response = &review["response"];
    if response.is_null() {
        return Err("no response provided".into());
    }
    let own = response["uid"].as_str().unwrap_or_default();
    if own != uid {
        return Err(format!("expected response.uid={uid:?}, got {own:?}"));
    }
    let result = &response["result"];
    if result["status"] != "Success" {
        let text = |field: &str| result[field].as_str().filter(|text| !text.is_empty());
        let message = text("message").or(text("reason")).unwrap_or("webhook did not succeed");
        return Err(message.to_owned());
    }
    Ok(response["convertedObjects"].as_array().cloned().unwrap_or_default())
}

/// A converted object with the metadata of before: only labels and annotations can have changed.
fn restore(before: &Value, after: Value, wanted: &str, index: usize) -> Result<Value, String> {
    let invalid = |why: String| format!("returned invalid converted object at index {index}: {why}");
    if after["apiVersion"] != wanted {
        let got = after["apiVersion"].as_str().unwrap_or_default();
        return Err(invalid(format!("invalid groupVersion (expected {wanted}, received {got})")));
    }
    if after["kind"] != before["kind"] {
        let [expected, got] = [&before["kind"], &after["kind"]].map(|v| v.as_str().unwrap_or_default());
        return Err(invalid(format!("invalid kind (expected {expected}, received {got})")));
    }
    for field in ["name", "namespace", "uid"] {
        if after["metadata"][field] != before["metadata"][field] {
            let [expected, got] =
                [before, &after].map(|v| v["metadata"][field].as_str().unwrap_or_default().to_owned());
            let why = format!("must have the same {field}: {got} != {expected}");
            return Err(format!("returned invalid metadata in object at index {index}: {why}"));
        }
    }
    let mut after = after;
    let mut metadata = before["metadata"].clone();
    for field in ["labels", "annotations"] {
        match (after["metadata"].get(field).filter(|v| !v.is_null()), metadata.as_object_mut()) {
            (Some(given), Some(metadata)) => drop(metadata.insert(field.to_owned(), given.clone())),
            (None, Some(metadata)) => drop(metadata.remove(field)),
            _ => {}
        }
    }
    after["metadata"] = metadata;
    Ok(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_must_be_to_the_question() {
        let review = |response: Value| json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1", "response": response});
        let ok = review(json!({"uid": "u", "result": {"status": "Success"}, "convertedObjects": [{"a": 1}]}));
        assert_eq!(answered(&ok, "u"), Ok(vec![json!({"a": 1})]));
        assert_eq!(answered(&ok, "v"), Err("expected response.uid=\"v\", got \"u\"".into()));
        let no = review(json!({"uid": "u", "result": {"status": "Failed", "message": "never"}}));
        assert_eq!(answered(&no, "u"), Err("never".into()));
        assert_eq!(answered(&review(Value::Null), "u"), Err("no response provided".into()));
    }

    #[test]
    fn metadata_is_kept_but_for_labels_and_annotations() {
        let before = json!({"apiVersion": "a/v1", "kind": "K", "metadata": {"name": "n", "uid": "u", "labels": {"x": "1"},
                            "finalizers": ["f"]}});
        let after = json!({"apiVersion": "a/v2", "kind": "K", "metadata": {"name": "n", "uid": "u",
                           "annotations": {"y": "2"}}, "spec": {}});
        let restored = restore(&before, after.clone(), "a/v2", 0).unwrap();
        let metadata = json!({"name": "n", "uid": "u", "annotations": {"y": "2"}, "finalizers": ["f"]});
        assert_eq!(restored["metadata"], metadata);
        let why = restore(&before, after.clone(), "a/v3", 0).unwrap_err();
        assert_eq!(
            why,
            "returned invalid converted object at index 0: invalid groupVersion (expected a/v3, received a/v2)"
        );
        let mut renamed = after;
        renamed["metadata"]["name"] = "m".into();
        let why = restore(&before, renamed, "a/v2", 0).unwrap_err();
        assert_eq!(why, "returned invalid metadata in object at index 0: must have the same name: m != n");
    }
}

//! The call of a hook: where its server is, the request, and what went wrong in upstream's words.

use super::World;
use super::config::{Client, Place};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use pintle_aggregator::{Address, RemoteError, ServiceRef, resolve};
use pintle_kinds::ResourceDef;
use pintle_registry::{GetOptions, ListOptions};
use pintle_types::Status;
use pintle_types::selector::LabelSelector;
use serde_json::Value;
use std::time::Duration;

/// Answers that are larger are no answers: an object with its patch is never as large.
const MAX_ANSWER_BYTES: usize = 8 << 20;
/// As much of an error's body is shown as upstream shows.
const MAX_SHOWN_BYTES: usize = 2048;

/// What is counted of calls that nobody answered.
const UNAVAILABLE: u16 = 503;

/// A call that gave no answer: why, and the status of the answer if there was one.
#[derive(Debug)]
pub(super) struct Failed {
    pub why: String,
    pub code: u16,
}

/// Whole seconds that are left, as the hook is told; a part of one counts as one.
fn whole_seconds(patience: Duration) -> u64 {
    patience.as_secs() + u64::from(patience.subsec_nanos() > 0)
}

impl Client {
    /// Posts a review and gives the body of the answer.
    pub async fn post(&self, world: &World<'_>, patience: Duration, review: Vec<u8>) -> Result<Bytes, Failed> {
        let seconds = whole_seconds(patience).max(1);
        let shown = |why: &dyn std::fmt::Display| Failed {
            why: format!("failed to call webhook: Post \"{}?timeout={seconds}s\": {why}", self.url),
            code: UNAVAILABLE,
        };
        if patience.is_zero() {
            return Err(shown(&"context deadline exceeded"));
        }
        let remote = self.remote.as_ref().map_err(|why| shown(why))?;
        let address = match &self.place {
            Place::Host(host, port) => Address::Name(host.clone(), *port),
            Place::Service(service) => find(world, service).await.map_err(|why| shown(&why))?,
        };
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}?timeout={seconds}s", self.path))
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json, */*")
            .header(USER_AGENT, "kube-apiserver-admission")
            .body(Full::new(Bytes::from(review)).map_err(|never| match never {}).boxed_unsync())
            .map_err(|error| shown(&error))?;
        let answer = remote.fetch(&address, request, MAX_ANSWER_BYTES, patience).await;
        let answer = answer.map_err(|error| match error {
            RemoteError::Exchange(why) => shown(&why),
            other => shown(&other),
        })?;
        match answer.status().as_u16() {
            200..=299 => Ok(answer.into_body()),
            code => Err(Failed { why: format!("failed to call webhook: {}", describe(&answer)), code }),
        }
    }
}

/// An answer that is an error, as upstream's client words it.
fn describe(answer: &Response<Bytes>) -> String {
    if let Ok(status) = serde_json::from_slice::<Status>(answer.body())
        && status.kind == "Status"
        && !status.message.is_empty()
    {
        return status.message;
    }
    let body = String::from_utf8_lossy(&answer.body()[..answer.body().len().min(MAX_SHOWN_BYTES)]).trim().to_owned();
    match answer.status().as_u16() {
        400 => "the server rejected our request for an unknown reason".into(),
        401 => "the server has asked for the client to provide credentials".into(),
        403 => "the server does not allow access to the requested resource".into(),
        404 => "the server could not find the requested resource".into(),
        405 => "the server does not allow this method on the requested resource".into(),
        409 => "the server reported a conflict".into(),
        410 => "the server indicated that the requested resource is no longer available".into(),
        413 => "request entity is too large".into(),
        415 => "the media type is not accepted by the server".into(),
        422 => "the server rejected our request due to an error in our request".into(),
        429 => "the server has received too many requests and has asked us to try again later".into(),
        503 => "the server is currently unable to handle the request".into(),
        504 => {
            "the server was unable to return a response in the time allotted, but may still be processing the request"
                .into()
        }
        code if code >= 500 => {
            format!("an error on the server ({body:?}) has prevented the request from succeeding")
        }
        code => format!("the server responded with the status code {code} but did not return more information"),
    }
}

/// The address of a service's endpoint.
async fn find(world: &World<'_>, wanted: &ServiceRef) -> Result<Address, String> {
    if let Some(itself) = world.itself
        && wanted.namespace == "default"
        && wanted.name == "kubernetes"
    {
        return Ok(itself.clone());
    }
    let registry = world.registry;
    let table = registry.table();
    let known = |found: Option<&std::sync::Arc<ResourceDef>>| found.cloned().ok_or("there are no services");
    let services = known(table.get("", "v1", "services"))?;
    let service = match registry.get(&services, &wanted.namespace, &wanted.name, &GetOptions::default()).await {
        Ok(service) => Some(service.to_value()),
        Err(status) if status.code == 404 => None,
        Err(status) => return Err(status.message),
    };
    let slices = known(table.get("discovery.k8s.io", "v1", "endpointslices"))?;
    let labels = LabelSelector::parse(&format!("kubernetes.io/service-name={}", wanted.name)).unwrap_or_default();
    let options = ListOptions { labels, ..ListOptions::default() };
    let list = registry.list(&slices, &wanted.namespace, &options).await.map_err(|status| status.message)?;
    let slices: Vec<Value> = list.items.iter().map(|slice| slice.to_value()).collect();
    let choice = uuid::Uuid::new_v4().as_u128() as usize;
    resolve(wanted, service.as_ref(), &slices, choice).map_err(|error| error.to_string())
}

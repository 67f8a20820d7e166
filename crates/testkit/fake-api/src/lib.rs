//! An API server in memory, without rules, for the tests of what talks to one.
//!
//! It is a [`Transport`]: it stores any JSON under any resource path, gives uids, versions and generated names,
//! keeps status and spec apart, honours finalizers and preconditions, and serves lists and watches. It knows no
//! kinds, validates nothing and defaults nothing; list and watch selectors are honoured for labels only.

#![allow(clippy::result_large_err, reason = "tests ask seldom, and read more easily without boxes")]

mod store;
mod watch;

use bytes::Bytes;
use http::{Method, Request, Response};
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use pintle_client::{Body, Client, Transport, TransportError, body_from};
use pintle_types::selector::LabelSelector;
use pintle_types::{Kind, Status};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
pub use store::Store;

type Reaction = Box<dyn FnMut(&Asked) -> Option<Status> + Send>;

/// One request, taken apart.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: Method,
    /// The collection's path without a namespace, such as `/api/v1/pods`.
    pub resource: String,
    pub namespace: String,
    /// Empty for the collection.
    pub name: String,
    pub subresource: String,
    pub query: HashMap<String, String>,
    pub body: Value,
}

/// The server. Clones are the same server.
#[derive(Clone, Default)]
pub struct FakeApi {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    store: Mutex<Store>,
    reaction: Mutex<Option<Reaction>>,
    requests: Mutex<Vec<Asked>>,
    clock: AtomicU64,
    documents: Mutex<HashMap<String, Value>>,
}

impl FakeApi {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn client(&self) -> Client {
        Client::new(Arc::new(self.clone()))
    }

    /// Answers requests with an error where the function gives one.
    pub fn react(&self, reaction: impl FnMut(&Asked) -> Option<Status> + Send + 'static) {
        *self.shared.reaction.lock() = Some(Box::new(reaction));
    }

    /// All requests so far, in order, and forgets them.
    pub fn take_requests(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.shared.requests.lock())
    }

    /// Seconds since 1970 that the server believes it is.
    pub fn set_time(&self, seconds: u64) {
        self.shared.clock.store(seconds, Ordering::Relaxed);
    }

    /// Answers a path with a document, such as one of discovery.
    pub fn serve(&self, path: &str, document: Value) {
        self.shared.documents.lock().insert(path.to_owned(), document);
    }

    /// Ends all watches, as a server that restarts would.
    pub fn break_watches(&self) {
        self.shared.store.lock().break_watches();
    }

    /// Forgets the history, so that a watch from an old version is refused as expired.
    pub fn compact(&self) {
        self.shared.store.lock().compact();
    }

    /// Puts an object in as it is, status included, replacing one of the same name.
    pub fn put<K: Kind>(&self, object: &K) -> K {
        let (resource, value) = (resource_of::<K>(), object.to_value());
        let value = self.shared.store.lock().put(&resource, object.namespace(), object.name(), value);
        K::from_value(value).expect("what was an object is one")
    }

    /// Reads an object.
    pub fn get<K: Kind>(&self, namespace: &str, name: &str) -> Option<K> {
        let value = self.shared.store.lock().get(&resource_of::<K>(), namespace, name)?.clone();
        Some(K::from_value(value).expect("what was an object is one"))
    }

    /// Reads all objects of a kind.
    pub fn all<K: Kind>(&self) -> Vec<K> {
        let store = self.shared.store.lock();
        let (resource, everything) = (resource_of::<K>(), LabelSelector::default());
        let all = store.list(&resource, "", &everything);
        all.map(|value| K::from_value(value.clone()).expect("what was an object is one")).collect()
    }

    /// Removes an object at once, finalizers or not.
    pub fn remove<K: Kind>(&self, namespace: &str, name: &str) {
        self.shared.store.lock().remove(&resource_of::<K>(), namespace, name);
    }

    fn answer(&self, asked: &Asked) -> Result<Response<Body>, Status> {
        if let Some(reaction) = self.shared.reaction.lock().as_mut()
            && let Some(status) = reaction(asked)
        {
            return Err(status);
        }
        let mut store = self.shared.store.lock();
        store.set_time(self.shared.clock.load(Ordering::Relaxed));
        let selector = asked.query.get("labelSelector").map(String::as_str).unwrap_or_default();
        let selector = LabelSelector::parse(selector).map_err(|e| Status::bad_request(e.0))?;
        let value = match asked.method {
            Method::GET if asked.query.contains_key("watch") => {
                let from = asked.query.get("resourceVersion").and_then(|v| v.parse().ok());
                return Ok(Response::new(store.watch(&asked.resource, &asked.namespace, selector, from)?));
            }
            Method::GET if asked.name.is_empty() => store.list_body(&asked.resource, &asked.namespace, &selector),
            Method::GET => store.read(asked)?,
            Method::POST if asked.subresource.is_empty() => store.create(asked)?,
            Method::POST => serde_json::json!({ "kind": "Status", "apiVersion": "v1", "status": "Success" }),
            Method::PUT => store.update(asked)?,
            Method::PATCH => store.patch(asked)?,
            Method::DELETE if asked.name.is_empty() => store.delete_all(asked, &selector)?,
            Method::DELETE => store.delete(asked)?,
            _ => return Err(Status::method_not_allowed()),
        };
        Ok(Response::new(body_from(value.to_string())))
    }
}

#[async_trait::async_trait]
impl Transport for FakeApi {
    async fn call(&self, request: Request<Bytes>) -> Result<Response<Body>, TransportError> {
        if let Some(document) = self.shared.documents.lock().get(request.uri().path()) {
            return Ok(Response::new(body_from(document.to_string())));
        }
        let answer = match Asked::parse(&request) {
            Some(asked) => {
                self.shared.requests.lock().push(asked.clone());
                self.answer(&asked)
            }
            None => Err(Status::not_found("", "", request.uri().path())),
        };
        Ok(answer.unwrap_or_else(|status| {
            let mut response = Response::new(body_from(status.to_json()));
            *response.status_mut() = http::StatusCode::from_u16(status.code).expect("a status has an HTTP code");
            response
        }))
    }
}

fn resource_of<K: Kind>() -> String {
    pintle_client::resource_path(K::GROUP, K::VERSION, K::plural(), "", "", "")
}

impl Asked {
    fn parse(request: &Request<Bytes>) -> Option<Self> {
        let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let parts: Vec<String> = request.uri().path().trim_matches('/').split('/').map(decode).collect();
        let prefix = match parts.first()?.as_str() {
            "api" => 2,
            "apis" => 3,
            _ => return None,
        };
        let (group, mut rest) = parts.split_at_checked(prefix)?;
        let mut namespace = String::new();
        if rest.len() >= 3 && rest[0] == "namespaces" && !matches!(rest[2].as_str(), "status" | "finalize") {
            namespace = rest[1].clone();
            rest = &rest[2..];
        }
        let query = request.uri().query().unwrap_or_default();
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        Some(Self {
            method: request.method().clone(),
            resource: format!("/{}/{}", group.join("/"), rest.first()?),
            namespace,
            name: rest.get(1).cloned().unwrap_or_default(),
            subresource: rest.get(2..).unwrap_or_default().join("/"),
            query: pairs.map(|(name, value)| (name.to_owned(), decode(value))).collect(),
            body: serde_json::from_slice(request.body()).unwrap_or_default(),
        })
    }
}

//! A small API server in memory, for tests of the whole kubelet: objects by path, watches, merging patches.

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use parking_lot::Mutex;
use pintle_client::{Body, Client, Transport, TransportError, body_from};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{broadcast, watch};

/// Version, path and watch event.
type Change = (u64, String, Bytes);

/// Objects by their path, such as `/api/v1/nodes/n1`.
pub struct Server {
    objects: watch::Sender<BTreeMap<String, Value>>,
    changes: broadcast::Sender<Change>,
    /// All changes so far; the number of one is its version.
    history: Mutex<Vec<Change>>,
    /// Who may do what with nodes, as `user verb subresource`.
    pub allowed: Mutex<Vec<String>>,
}

impl Server {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            objects: watch::Sender::default(),
            changes: broadcast::channel(1024).0,
            history: Mutex::default(),
            allowed: Mutex::default(),
        })
    }

    pub fn client(self: &Arc<Self>) -> Client {
        Client::new(Arc::new(InProcess(Arc::clone(self))))
    }

    /// Puts an object, as somebody else would.
    pub fn put(&self, path: &str, mut object: Value) -> Value {
        let mut history = self.history.lock();
        object["metadata"]["resourceVersion"] = (history.len() + 1).to_string().into();
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = format!("uid of {path}").into();
        }
        let known = self.objects.borrow().contains_key(path);
        self.objects.send_modify(|all| drop(all.insert(path.to_owned(), object.clone())));
        self.tell(&mut history, path, if known { "MODIFIED" } else { "ADDED" }, &object);
        object
    }

    pub fn remove(&self, path: &str) -> Option<Value> {
        let mut removed = None;
        let mut history = self.history.lock();
        self.objects.send_modify(|all| removed = all.remove(path));
        let mut object = removed?;
        object["metadata"]["resourceVersion"] = (history.len() + 1).to_string().into();
        self.tell(&mut history, path, "DELETED", &object);
        Some(object)
    }

    fn tell(&self, history: &mut Vec<Change>, path: &str, kind: &str, object: &Value) {
        let event = json!({"type": kind, "object": object}).to_string() + "\n";
        let change = (history.len() as u64 + 1, path.to_owned(), event.into());
        history.push(change.clone());
        // Nobody may be watching.
        let _ = self.changes.send(change);
    }

    /// Waits until the object at a path is as wanted.
    pub async fn until(&self, path: &str, is: impl Fn(&Value) -> bool) -> Value {
        let mut objects = self.objects.subscribe();
        let found = objects.wait_for(|all| all.get(path).is_some_and(&is)).await;
        found.expect("the server outlives the test")[path].clone()
    }

    /// Waits until nothing is at a path.
    pub async fn until_gone(&self, path: &str) {
        let mut objects = self.objects.subscribe();
        objects.wait_for(|all| !all.contains_key(path)).await.expect("the server outlives the test");
    }

    fn answer(&self, request: &Request<Bytes>) -> Response<Body> {
        let path = request.uri().path();
        let query = request.uri().query().unwrap_or_default();
        let body: Value = serde_json::from_slice(request.body()).unwrap_or_default();
        let object = path.strip_suffix("/status").unwrap_or(path);
        match *request.method() {
            Method::GET if query.contains("watch=true") => self.watch(path, query),
            Method::GET => match self.objects.borrow().get(path) {
                Some(found) => ok(found),
                None if is_collection(path) => ok(&self.list(path, query)),
                None => not_found(path),
            },
            Method::POST if path.ends_with("/tokenreviews") => ok(&token_review(&body)),
            Method::POST if path.ends_with("/subjectaccessreviews") => ok(&self.access_review(&body)),
            Method::POST => {
                let name = body["metadata"]["name"].as_str().unwrap_or("unnamed").to_owned();
                ok(&self.put(&format!("{path}/{name}"), body))
            }
            Method::PATCH => {
                let found = self.objects.borrow().get(object).cloned();
                let Some(mut found) = found else { return not_found(path) };
                merge(&mut found, body);
                ok(&self.put(object, found))
            }
            Method::DELETE => self.remove(path).map_or_else(|| not_found(path), |gone| ok(&gone)),
            _ => not_found(path),
        }
    }

    fn access_review(&self, body: &Value) -> Value {
        let attributes = &body["spec"]["resourceAttributes"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let wish = [text(&body["spec"]["user"]), text(&attributes["verb"]), text(&attributes["subresource"])].join(" ");
        json!({"status": {"allowed": self.allowed.lock().contains(&wish)}})
    }

    fn list(&self, path: &str, query: &str) -> Value {
        let version = self.history.lock().len().to_string();
        let all = self.objects.borrow();
        let items: Vec<&Value> =
            all.iter().filter(|(p, o)| in_collection(p, path) && selected(o, query)).map(|(_, o)| o).collect();
        json!({"metadata": {"resourceVersion": version}, "items": items})
    }

    fn watch(&self, path: &str, query: &str) -> Response<Body> {
        let (path, query) = (path.to_owned(), query.to_owned());
        let since = query.split('&').find_map(|p| p.strip_prefix("resourceVersion=")?.parse::<u64>().ok());
        let history = self.history.lock();
        let missed = history.iter().filter(|(version, ..)| *version > since.unwrap_or(0)).cloned();
        let live = futures::stream::unfold(self.changes.subscribe(), |mut receiver| async {
            receiver.recv().await.ok().map(|change| (change, receiver))
        });
        let changes = futures::stream::iter(missed.collect::<Vec<_>>()).chain(live);
        let wanted = move |(_, at, event): Change| {
            let object: Value = serde_json::from_slice(&event).unwrap_or_default();
            let wanted = in_collection(&at, &path) && selected(&object["object"], &query);
            std::future::ready(wanted.then(|| Ok(Frame::data(event))))
        };
        Response::new(Body::new(StreamBody::new(changes.filter_map(wanted))))
    }
}

/// Paths of objects end with a name that follows a plural; collections end with the plural.
fn is_collection(path: &str) -> bool {
    let plurals = ["pods", "nodes", "services", "leases", "configmaps", "secrets", "events", "clustertrustbundles"];
    plurals.iter().any(|plural| path.ends_with(plural))
}

/// A collection of all namespaces holds what is in each.
fn in_collection(object: &str, collection: &str) -> bool {
    let Some((parent, _)) = object.rsplit_once('/') else { return false };
    let (root, plural) = collection.rsplit_once('/').unwrap_or_default();
    parent == collection
        || (parent.starts_with(root) && parent.ends_with(&format!("/{plural}")) && !collection.contains("/namespaces/"))
}

fn selected(object: &Value, query: &str) -> bool {
    let selector = query.split('&').find_map(|p| p.strip_prefix("fieldSelector=")).unwrap_or_default();
    let selector = percent_encoding::percent_decode_str(selector).decode_utf8_lossy().into_owned();
    let Some((field, value)) = selector.split_once('=') else { return true };
    let found = field.split('.').fold(object, |at, part| &at[part]);
    found == value
}

fn merge(into: &mut Value, patch: Value) {
    match (into.as_object_mut(), patch) {
        (Some(object), Value::Object(patch)) => {
            for (key, value) in patch.into_iter().filter(|(key, _)| !key.starts_with('$')) {
                match value {
                    Value::Null => drop(object.remove(&key)),
                    value => merge(object.entry(key).or_insert(Value::Null), value),
                }
            }
        }
        (_, patch) => *into = patch,
    }
}

fn token_review(body: &Value) -> Value {
    match body["spec"]["token"].as_str() {
        Some("nobody") | None => json!({"status": {"authenticated": false}}),
        Some(name) => json!({"status": {"authenticated": true, "user": {"username": name, "groups": ["g"]}}}),
    }
}

fn ok(object: &Value) -> Response<Body> {
    Response::new(body_from(object.to_string()))
}

fn not_found(path: &str) -> Response<Body> {
    let status = pintle_types::Status::not_found("", "things", path);
    let mut response = Response::new(body_from(status.to_json()));
    *response.status_mut() = http::StatusCode::NOT_FOUND;
    response
}

struct InProcess(Arc<Server>);

#[async_trait]
impl Transport for InProcess {
    async fn call(&self, request: Request<Bytes>) -> Result<Response<Body>, TransportError> {
        Ok(self.0.answer(&request))
    }
}

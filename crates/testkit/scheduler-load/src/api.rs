//! The least of an API server that a scheduler needs: nodes and pods in memory, lists, watches and bindings.
//!
//! Pods are rendered from their shape's text when somebody is told of them, so that the server costs little beside
//! what is measured. It checks nothing.

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use parking_lot::Mutex;
use pintle_client::{Body, BoxError, Transport, TransportError, body_from};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{Notify, mpsc};

/// A pod's text in pieces, between which the name, the version, the node and the status belong.
pub(crate) struct Template {
    pub(crate) namespace: &'static str,
    head: String,
    spec: String,
}

impl Template {
    /// Of the pod's labels, finalizers and the like, and of its spec; both are JSON objects without a node.
    pub(crate) fn new(namespace: &'static str, metadata: &Value, spec: &Value) -> Arc<Self> {
        let inner = |value: &Value| {
            let text = value.to_string();
            text[1..text.len() - 1].to_owned()
        };
        let more = inner(metadata);
        let comma = if more.is_empty() { "" } else { "," };
        Arc::new(Self { namespace, head: format!("{more}{comma}"), spec: inner(spec) })
    }

    fn render(&self, name: &str, version: u64, pod: &Pod) -> String {
        let node = pod.node.as_ref().map(|node| format!(",\"nodeName\":\"{node}\"")).unwrap_or_default();
        let status = pod.status.as_deref().unwrap_or("{\"phase\":\"Pending\"}");
        format!(
            "{{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{{{head}\"name\":\"{name}\",\"namespace\":\"{ns}\",\
             \"uid\":\"uid-{name}\",\"resourceVersion\":\"{version}\",\"creationTimestamp\":\"2026-01-01T00:00:00Z\"}},\
             \"spec\":{{{spec}{node}}},\"status\":{status}}}",
            head = self.head,
            ns = self.namespace,
            spec = self.spec,
        )
    }
}

struct Pod {
    template: Arc<Template>,
    node: Option<Box<str>>,
    status: Option<Box<str>>,
}

#[derive(Default)]
struct State {
    version: u64,
    /// Nodes as they were put in.
    nodes: Vec<String>,
    namespaces: Vec<String>,
    pods: HashMap<String, Pod>,
    watchers: Vec<(String, mpsc::UnboundedSender<Bytes>)>,
    /// When each measured pod was bound.
    bound: Vec<Instant>,
    bound_in_all: usize,
    measured: &'static str,
}

/// The server. Clones are the same server.
#[derive(Clone, Default)]
pub(crate) struct Api {
    state: Arc<Mutex<State>>,
    /// Somebody was bound.
    pub(crate) binding: Arc<Notify>,
    /// Pods are watched: what comes from now on is told. Nothing that came between a list and its watch is.
    pub(crate) watched: Arc<Notify>,
}

impl State {
    fn tell(&mut self, resource: &str, event_type: &str, object: &str) {
        let line = Bytes::from(format!("{{\"type\":\"{event_type}\",\"object\":{object}}}\n"));
        self.watchers.retain(|(of, sender)| of != resource || sender.send(line.clone()).is_ok());
    }

    fn tell_pod(&mut self, event_type: &str, name: &str) {
        self.version += 1;
        let Some(pod) = self.pods.get(name) else { return };
        let object = pod.template.render(name, self.version, pod);
        self.tell("pods", event_type, &object);
    }

    fn remove(&mut self, name: &str) {
        self.tell_pod("DELETED", name);
        self.pods.remove(name);
    }

    fn list(&self, resource: &str) -> String {
        let items: Vec<String> = match resource {
            "nodes" => self.nodes.clone(),
            "namespaces" => self.namespaces.clone(),
            "pods" => self.pods.iter().map(|(name, pod)| pod.template.render(name, self.version, pod)).collect(),
            _ => Vec::new(),
        };
        let (version, items) = (self.version, items.join(","));
        let meta = format!("{{\"resourceVersion\":\"{version}\"}}");
        format!("{{\"kind\":\"List\",\"apiVersion\":\"v1\",\"metadata\":{meta},\"items\":[{items}]}}")
    }
}

impl Api {
    pub(crate) fn add_node(&self, node: String) {
        let mut state = self.state.lock();
        state.version += 1;
        state.nodes.push(node);
    }

    pub(crate) fn add_namespace(&self, name: &str) {
        let text = format!(
            "{{\"apiVersion\":\"v1\",\"kind\":\"Namespace\",\"metadata\":{{\"name\":\"{name}\",\"uid\":\"uid-{name}\",\
             \"resourceVersion\":\"1\",\"labels\":{{\"kubernetes.io/metadata.name\":\"{name}\"}}}}}}"
        );
        self.state.lock().namespaces.push(text);
    }

    pub(crate) fn create(&self, name: String, template: &Arc<Template>) {
        let mut state = self.state.lock();
        state.pods.insert(name.clone(), Pod { template: Arc::clone(template), node: None, status: None });
        state.tell_pod("ADDED", &name);
    }

    pub(crate) fn delete(&self, name: &str) {
        self.state.lock().remove(name);
    }

    /// The times of bindings of pods whose name begins so are kept from now on.
    pub(crate) fn measure(&self, prefix: &'static str) {
        let mut state = self.state.lock();
        state.measured = prefix;
        state.bound.clear();
    }

    pub(crate) fn measured(&self) -> usize {
        self.state.lock().bound.len()
    }

    pub(crate) fn bound_in_all(&self) -> usize {
        self.state.lock().bound_in_all
    }

    pub(crate) fn times(&self) -> Vec<Instant> {
        std::mem::take(&mut self.state.lock().bound)
    }

    fn bind(&self, name: &str, body: &[u8]) {
        let wanted = serde_json::from_slice::<Value>(body).unwrap_or_default();
        let node = wanted["target"]["name"].as_str().unwrap_or_default();
        let mut state = self.state.lock();
        let Some(pod) = state.pods.get_mut(name) else { return };
        pod.node = Some(node.into());
        state.tell_pod("MODIFIED", name);
        state.bound_in_all += 1;
        if !state.measured.is_empty() && name.starts_with(state.measured) {
            state.bound.push(Instant::now());
        }
        drop(state);
        self.binding.notify_one();
    }

    fn watch(&self, resource: &str) -> Body {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.state.lock().watchers.push((resource.to_owned(), sender));
        if resource == "pods" {
            self.watched.notify_one();
        }
        let stream = futures::stream::unfold(receiver, |mut receiver| async {
            let bytes: Bytes = receiver.recv().await?;
            Some((bytes, receiver))
        });
        Body::new(StreamBody::new(stream.map(|bytes| Ok::<_, BoxError>(Frame::data(bytes)))))
    }

    fn set_status(&self, name: &str, body: &[u8]) {
        let patch = serde_json::from_slice::<Value>(body).unwrap_or_default();
        let mut state = self.state.lock();
        let Some(pod) = state.pods.get_mut(name) else { return };
        pod.status = Some(patch["status"].to_string().into());
        state.tell_pod("MODIFIED", name);
    }
}

const SUCCESS: &str = "{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{},\"status\":\"Success\"}";

#[async_trait::async_trait]
impl Transport for Api {
    async fn call(&self, request: Request<Bytes>) -> Result<Response<Body>, TransportError> {
        let path = request.uri().path();
        let mut parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        parts.drain(..if parts.first() == Some(&"apis") { 3 } else { 2 });
        if parts.len() > 2 && parts[0] == "namespaces" {
            parts.drain(..2);
        }
        let answer = match (request.method(), parts.as_slice()) {
            (&Method::GET, [resource]) => {
                if request.uri().query().is_some_and(|query| query.contains("watch=")) {
                    return Ok(Response::new(self.watch(resource)));
                }
                self.state.lock().list(resource)
            }
            (&Method::POST, ["pods", name, "binding"]) => {
                self.bind(name, request.body());
                SUCCESS.to_owned()
            }
            (&Method::PATCH, ["pods", name, "status"]) => {
                self.set_status(name, request.body());
                let state = self.state.lock();
                state.pods.get(*name).map(|pod| pod.template.render(name, state.version, pod)).unwrap_or_default()
            }
            (&Method::DELETE, ["pods", name]) => {
                self.delete(name);
                SUCCESS.to_owned()
            }
            (&Method::POST | &Method::PATCH, ["events", ..]) => String::from_utf8_lossy(request.body()).into_owned(),
            (method, _) => return Err(TransportError::new(format!("the bench's server has no {method} {path}"))),
        };
        Ok(Response::new(body_from(answer)))
    }
}

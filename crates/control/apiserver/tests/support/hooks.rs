//! A webhook server over TLS: each path has its own behaviour, and every review that came in is kept.

use crate::support::Cluster;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use pintle_pki::{CertificateAuthority, ClientCertificates, server_config};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::Barrier;

pub const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1";
const BEACON: &str = "/beacon";

/// What a hook does with a review.
#[derive(Clone)]
pub enum Does {
    /// Answers this response, its uid filled in.
    Respond(Value),
    /// Answers what is made of the request.
    Decide(fn(&Value) -> Value),
    /// Answers these bytes.
    Write(StatusCode, Bytes),
    /// Never answers.
    Hang,
    /// Allows as soon as so many wait here.
    Meet(Arc<Barrier>),
}

impl Does {
    pub fn allow() -> Self {
        Self::Respond(json!({"allowed": true}))
    }

    /// Allows, with a JSON patch.
    pub fn patch(operations: Value) -> Self {
        Self::Respond(patch(operations))
    }
}

/// A response with a JSON patch.
pub fn patch(operations: Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(operations.to_string())})
}

#[derive(Default)]
struct State {
    does: Mutex<HashMap<String, Does>>,
    seen: Mutex<Vec<(String, Value)>>,
    connections: Mutex<usize>,
}

/// The server; it ends when it is dropped.
pub struct Hooks {
    pub port: u16,
    ca: String,
    state: Arc<State>,
    serving: tokio::task::JoinHandle<()>,
    _keys: tempfile::TempDir,
}

impl Drop for Hooks {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Hooks {
    /// Speaks HTTP/2, as servers in Go do, or HTTP/1.1 only, as most in Python do.
    pub async fn serve(http2: bool) -> Self {
        let keys = tempfile::tempdir().unwrap();
        let now = pintle_clock::system().now();
        let authority = CertificateAuthority::load_or_create(keys.path(), "ca", now).unwrap();
        let identity = authority.issue_server("hooks", &["127.0.0.1".into()], now).unwrap();
        let mut tls = Arc::unwrap_or_clone(server_config(&identity, ClientCertificates::Ignored).unwrap());
        if !http2 {
            tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        }
        let tls = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State::default());
        state.does.lock().insert(BEACON.into(), Does::allow());
        let shared = state.clone();
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, state) = (tls.clone(), shared.clone());
                *state.connections.lock() += 1;
                tokio::spawn(async move {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let service = service_fn(move |request: Request<Incoming>| answer(request, state.clone()));
                    // The end of a connection is the client's business.
                    let _ =
                        auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { port, ca: authority.certificate_pem().to_owned(), state, serving, _keys: keys }
    }

    pub fn on(&self, path: &str, does: Does) {
        self.state.does.lock().insert(path.into(), does);
    }

    /// The requests that came to a path, in order.
    pub fn seen(&self, path: &str) -> Vec<Value> {
        let seen = self.state.seen.lock();
        seen.iter().filter(|(to, _)| to == path).map(|(_, review)| review["request"].clone()).collect()
    }

    /// The paths that were asked, in order, without the beacon.
    pub fn order(&self) -> Vec<String> {
        let seen = self.state.seen.lock();
        seen.iter().map(|(path, _)| path.clone()).filter(|path| path != BEACON).collect()
    }

    pub fn forget(&self) {
        self.state.seen.lock().clear();
    }

    pub fn connections(&self) -> usize {
        *self.state.connections.lock()
    }

    /// A hook at a path, for these resources and operations; `more` adds to it and replaces.
    pub fn hook(&self, path: &str, resources: &[&str], operations: &[&str], more: Value) -> Value {
        let mut hook = json!({
            "name": format!("{}.example.com", path.trim_start_matches('/')),
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "clientConfig": {
                "url": format!("https://127.0.0.1:{}{path}", self.port), "caBundle": STANDARD.encode(&self.ca),
            },
            "rules": [{
                "apiGroups": ["*"], "apiVersions": ["*"], "resources": resources, "operations": operations,
            }],
        });
        hook.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        hook
    }

    /// Makes a configuration of these hooks and waits until they are asked.
    pub async fn install(&self, cluster: &Cluster, flavor: &str, hooks: Vec<Value>) {
        let beacon = self.hook(BEACON, &["podtemplates"], &["CREATE"], json!({"failurePolicy": "Ignore"}));
        let hooks: Vec<Value> = hooks.into_iter().chain([beacon]).collect();
        let name = format!("{flavor}-{}", self.seen(BEACON).len());
        let before = self.seen(BEACON).len();
        let path = format!("{CONFIGURATIONS}/{flavor}webhookconfigurations");
        cluster.create(&path, json!({"metadata": {"name": name}, "webhooks": hooks})).await;
        let others = *self.state.connections.lock();
        for _ in 0..10_000 {
            self.shine(cluster).await;
            if self.seen(BEACON).len() > before {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("the hooks were never asked, after {others} connections");
    }

    async fn shine(&self, cluster: &Cluster) {
        let template = json!({"metadata": {"name": "beacon"}, "template": {
            "metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
        }});
        let path = "/api/v1/namespaces/default/podtemplates?dryRun=All";
        let reply = cluster.admin(Method::POST, path, template).await;
        assert_eq!(reply.code, StatusCode::CREATED, "{reply:?}");
    }
}

async fn answer(request: Request<Incoming>, state: Arc<State>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await?.to_bytes();
    let review: Value = serde_json::from_slice(&body).unwrap_or_default();
    state.seen.lock().push((path.clone(), review.clone()));
    let does = state.does.lock().get(&path).cloned();
    let (code, body) = match does {
        None => (StatusCode::NOT_FOUND, Bytes::from("404 page not found")),
        Some(Does::Respond(response)) => (StatusCode::OK, reviewed(&review, response)),
        Some(Does::Decide(decide)) => (StatusCode::OK, reviewed(&review, decide(&review["request"]))),
        Some(Does::Write(code, body)) => (code, body),
        Some(Does::Hang) => std::future::pending().await,
        Some(Does::Meet(barrier)) => {
            barrier.wait().await;
            (StatusCode::OK, reviewed(&review, json!({"allowed": true})))
        }
    };
    Ok(Response::builder().status(code).body(Full::new(body)).unwrap())
}

fn reviewed(review: &Value, response: Value) -> Bytes {
    let mut response = response;
    if response.get("uid").is_none() {
        response["uid"] = review["request"]["uid"].clone();
    }
    let review = json!({"apiVersion": review["apiVersion"], "kind": "AdmissionReview", "response": response});
    Bytes::from(review.to_string())
}

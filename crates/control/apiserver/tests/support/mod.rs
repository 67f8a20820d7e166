//! A server over an empty store in memory, asked through its local transport.
#![allow(dead_code, reason = "each test binary uses a part of this")]

pub mod outside;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use pintle_apiserver::{Config, Server, User};
use pintle_client::{Transport, collect};
use pintle_kinds::Table;
use pintle_pki::{CertificateAuthority, ClientCertificates, SigningKey, server_config};
use pintle_registry::{Options, Registry};
use pintle_store::{EmbeddedStore, Store};
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// A cluster that nobody but the test uses.
pub struct Cluster {
    pub server: Arc<Server>,
    pub authority: CertificateAuthority,
    pub stop: CancellationToken,
    _keys: tempfile::TempDir,
}

/// An answer, its body read.
#[derive(Debug)]
pub struct Reply {
    pub code: StatusCode,
    pub headers: http::HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    pub fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_default().to_owned()
    }
}

impl Cluster {
    pub async fn new() -> Self {
        Self::with(|_, _| {}).await
    }

    /// A cluster whose settings `change` may change.
    pub async fn with(change: impl FnOnce(&mut Config, &CertificateAuthority)) -> Self {
        Self::over(Arc::new(EmbeddedStore::in_memory().unwrap()), change).await
    }

    /// A cluster over a store in which another one may have left something.
    pub async fn over(store: Arc<dyn Store>, change: impl FnOnce(&mut Config, &CertificateAuthority)) -> Self {
        let keys = tempfile::tempdir().unwrap();
        let clock = pintle_clock::system();
        let authority = CertificateAuthority::load_or_create(keys.path(), "ca", clock.now()).unwrap();
        let identity = authority.issue_server("api", &["127.0.0.1".into()], clock.now()).unwrap();
        let tls = server_config(&identity, ClientCertificates::Optional(authority.certificate_pem())).unwrap();
        let bind = SocketAddr::new(IpAddr::from([127, 0, 0, 1]), 0);
        let ca = authority.certificate_pem().to_owned();
        let token_key = Arc::new(SigningKey::ephemeral().unwrap());
        let mut config = Config::new(bind, [192, 0, 2, 1].into(), tls, ca, token_key);
        config.static_tokens = vec![("s3cret".into(), User::new("robot", &["machines"]))];
        change(&mut config, &authority);
        let registry = Registry::open(store, Table::builtin(), clock.clone(), Options::default()).await.unwrap();
        let server = Server::new(config, registry, clock);
        let stop = CancellationToken::new();
        server.start(stop.clone()).await.unwrap();
        Self { server, authority, stop, _keys: keys }
    }

    /// Sends a request as `user`.
    pub async fn send(&self, user: User, request: Request<Bytes>) -> Reply {
        let response = self.server.local_transport(user).call(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = collect(body, 64 << 20).await.unwrap();
        Reply { code: parts.status, headers: parts.headers, body }
    }

    /// Sends a request with a JSON body as an administrator.
    pub async fn admin(&self, method: Method, path: &str, body: Value) -> Reply {
        self.send(admin(), request(method, path, body)).await
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.admin(Method::GET, path, Value::Null).await
    }

    /// Creates an object that must be accepted.
    pub async fn create(&self, path: &str, body: Value) -> Value {
        let reply = self.admin(Method::POST, path, body).await;
        assert_eq!(reply.code, StatusCode::CREATED, "{reply:?}");
        reply.json()
    }

    /// The default account of a namespace, without which there are no pods.
    pub async fn default_account(&self, namespace: &str) {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
        self.create(&path, json!({"metadata": {"name": "default"}})).await;
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The events of one frame of a watch: those that come at a time are sent together.
pub fn events(frame: &[u8]) -> Vec<Value> {
    serde_json::Deserializer::from_slice(frame).into_iter().map(Result::unwrap).collect()
}

pub fn admin() -> User {
    User::new("admin", &["system:masters"])
}

pub fn request(method: Method, path: &str, body: Value) -> Request<Bytes> {
    let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
    let content_type = match method {
        Method::PATCH => "application/merge-patch+json",
        _ => "application/json",
    };
    let builder = Request::builder().method(method).uri(path).header("user-agent", "tests/1");
    builder.header("content-type", content_type).body(body).unwrap()
}

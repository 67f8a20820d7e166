//! Who asks: client certificates, front proxies, bearer tokens, nobody; and on whose behalf.

mod impersonation;

use crate::server::Server;
use async_trait::async_trait;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use pintle_auth::authentication::tokens::bearer;
use pintle_auth::authentication::{Authenticated, Objects};
use pintle_auth::{Auth, User};
use pintle_registry::{AdmitAll, Patch, Request, UserInfo};
use pintle_types::Status;
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use std::sync::Arc;

pub(crate) use impersonation::impersonate;

/// Keys and values for the audit log.
type Notes = Vec<(String, String)>;

/// What a connection says about who is behind it; worked out once, when it is made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Connection {
    /// Nothing when no client certificate was shown.
    pub user: Option<Arc<User>>,
    /// Whether it is a front proxy's, whose headers say who asks.
    proxy: bool,
}

impl Connection {
    /// A connection of a part of this process.
    pub fn of_user(user: Arc<User>) -> Self {
        Self { user: Some(user), proxy: false }
    }

    /// From the verified certificates of a TLS connection. `fingerprint` is the first one's SHA-256.
    pub fn of_certificates(
        auth: &Auth,
        certificates: Option<&[CertificateDer<'_>]>,
        fingerprint: Option<[u8; 32]>,
    ) -> Self {
        let (Some(chain), Some(peer)) = (certificates, pintle_pki::peer(certificates)) else { return Self::default() };
        let proxy = auth.front_proxy.as_ref().is_some_and(|proxy| proxy.is_proxy(chain, &peer.common_name));
        // With proxies, the handshake lets in the certificates of two authorities.
        if auth.clients.as_ref().is_some_and(|clients| !clients.accepts(chain)) {
            return Self { user: None, proxy };
        }
        let mut user = User { name: peer.common_name, groups: peer.organizations, ..User::default() };
        if let Some(sum) = fingerprint {
            let id = format!("X509SHA256={}", hex::encode(sum));
            user.extra.insert("authentication.kubernetes.io/credential-id".into(), vec![id]);
        }
        Self { user: Some(Arc::new(user.authenticated())), proxy }
    }
}

impl Server {
    /// The user of a request, and what the audit log is to say of the credential. A bad credential is an error even
    /// where nobody would be let in.
    pub(crate) async fn authenticate(
        &self,
        connection: &Connection,
        headers: &HeaderMap,
        path: &str,
    ) -> Result<(Arc<User>, Notes), Box<Status>> {
        if let Some(proxy) = self.auth.front_proxy.as_ref().filter(|_| connection.proxy)
            && let Some(user) = proxy.user_of(headers)
        {
            return Ok((Arc::new(user), Notes::new()));
        }
        if let Some(user) = &connection.user {
            return Ok((user.clone(), Notes::new()));
        }
        if let Some(token) = bearer(headers) {
            let known = Box::pin(self.user_of_token(&token, &[])).await;
            return known.map(|known| (Arc::new(known.user), known.annotations)).map_err(|why| {
                tracing::debug!(why, "a bearer token was refused");
                Box::new(Status::unauthorized())
            });
        }
        if !headers.contains_key(AUTHORIZATION) && self.auth.anonymous.load().admits(path) {
            return Ok((self.anonymous.clone(), Notes::new()));
        }
        Err(Box::new(Status::unauthorized()))
    }

    /// Who a bearer token stands for, or why for nobody. Without `audiences`, the token must be for this server.
    pub(crate) async fn user_of_token(&self, token: &str, audiences: &[String]) -> Result<Authenticated, String> {
        self.auth.tokens.authenticate(self, self.clock.now(), token, audiences).await
    }
}

#[async_trait]
impl Objects for Server {
    async fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        self.core_object(resource, namespace, name).await.ok()
    }

    async fn label_secret(&self, namespace: &str, name: &str, key: &str, value: &str) {
        let table = self.registry.table();
        let Some(def) = table.get("", "v1", "secrets") else { return };
        let user =
            UserInfo { name: "system:apiserver".into(), groups: vec!["system:masters".into()], ..UserInfo::default() };
        let request = Request::new(&user, &AdmitAll, "kube-apiserver");
        let patch = Patch::Merge(json!({"metadata": {"labels": {key: value}}}));
        if let Err(error) = self.registry.patch(&request, def, namespace, name, "", &patch).await {
            tracing::warn!(namespace, name, %error, "that a secret's token was used could not be noted");
        }
    }
}

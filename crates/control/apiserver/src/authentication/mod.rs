//! Who asks: client certificates, bearer tokens, nobody; and on whose behalf.

mod impersonation;
pub(crate) mod service_account;

use crate::server::Server;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use pintle_auth::User;
use pintle_pki::Peer;
use pintle_types::Status;
use std::sync::Arc;

pub(crate) use impersonation::impersonate;

/// What a connection says about who is behind it; worked out once, when it is made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Connection {
    /// Nothing when no client certificate was shown.
    pub user: Option<Arc<User>>,
}

impl Connection {
    /// From the verified certificate of a TLS connection. `fingerprint` is the certificate's SHA-256.
    pub fn of_peer(peer: Option<Peer>, fingerprint: Option<[u8; 32]>) -> Self {
        let user = peer.map(|peer| {
            let mut user = User { name: peer.common_name, groups: peer.organizations, ..User::default() };
            if let Some(sum) = fingerprint {
                let id = format!("X509SHA256={}", hex::encode(sum));
                user.extra.insert("authentication.kubernetes.io/credential-id".into(), vec![id]);
            }
            Arc::new(user.authenticated())
        });
        Self { user }
    }
}

/// Longer tokens are nobody's.
const MAX_TOKEN_BYTES: usize = 32 * 1024;

impl Server {
    /// The user of a request. A bad credential is an error even where nobody would be let in.
    pub(crate) async fn authenticate(
        &self,
        connection: &Connection,
        headers: &HeaderMap,
    ) -> Result<Arc<User>, Box<Status>> {
        if let Some(user) = &connection.user {
            return Ok(user.clone());
        }
        if let Some(token) = bearer(headers) {
            return self.user_of_token(token, &[]).await.ok_or_else(|| Box::new(Status::unauthorized()));
        }
        if self.config.anonymous && !headers.contains_key(AUTHORIZATION) {
            return Ok(self.anonymous.clone());
        }
        Err(Box::new(Status::unauthorized()))
    }

    /// The user that a bearer token stands for. Without `audiences`, the token must be for this server.
    pub(crate) async fn user_of_token(&self, token: &str, audiences: &[String]) -> Option<Arc<User>> {
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        if audiences.is_empty() || audiences.contains(&self.config.issuer) {
            let fixed = self.config.static_tokens.iter().find(|(known, _)| same(known, token));
            if let Some((_, user)) = fixed {
                return Some(Arc::new(user.clone().authenticated()));
            }
        }
        service_account::user_of(self, token, audiences).await.map(Arc::new)
    }
}

/// Compares in a time that does not tell how much of the text is right.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |sum, (x, y)| sum | (x ^ y)) == 0
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

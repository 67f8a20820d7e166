//! Bearer tokens of all kinds, asked in upstream's order: the file, service accounts, bootstrap, issuers, the webhook.

use super::oidc::Issuer;
use super::service_account::ServiceAccounts;
use super::static_token::StaticTokens;
use super::webhook::TokenWebhook;
use super::{Authenticated, Objects, Verdict, bootstrap_token, jwt, shared_audiences};
use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use jiff::Timestamp;
use std::sync::Arc;

/// What upstream says of a token that nobody knows.
pub const UNKNOWN_TOKEN: &str = "invalid bearer token";

/// Everything that knows tokens.
#[derive(Debug)]
pub struct Tokens {
    pub fixed: StaticTokens,
    pub accounts: ServiceAccounts,
    /// Whether bootstrap tokens are taken.
    pub bootstrap: bool,
    /// Replaced when their file changes.
    pub issuers: ArcSwap<Vec<Arc<Issuer>>>,
    pub webhook: Option<TokenWebhook>,
}

impl Tokens {
    /// Service accounts, and nobody else.
    pub fn new(accounts: ServiceAccounts) -> Self {
        Self { fixed: StaticTokens::default(), accounts, bootstrap: false, issuers: ArcSwap::default(), webhook: None }
    }

    /// Who a token stands for. Without `audiences`, it must be for this server. An error says why it is no good.
    pub async fn authenticate(
        &self,
        objects: &dyn Objects,
        now: Timestamp,
        token: &str,
        audiences: &[String],
    ) -> Result<Authenticated, String> {
        if token.is_empty() || token.len() > jwt::MAX_TOKEN_BYTES {
            return Err(UNKNOWN_TOKEN.into());
        }
        let mut errors = vec![UNKNOWN_TOKEN.to_owned()];
        if let Some(known) = self.of_file(token, audiences) {
            return Ok(known);
        }
        if let Some(known) = noted(self.accounts.authenticate(objects, now, token, audiences).await, &mut errors) {
            return Ok(known);
        }
        let own = &self.accounts.audiences;
        if self.bootstrap {
            let verdict = bootstrap_token::authenticate(objects, own, now, token, audiences).await;
            if let Some(known) = noted(verdict, &mut errors) {
                return Ok(known);
            }
        }
        for issuer in self.issuers.load_full().iter() {
            if let Some(known) = noted(issuer.authenticate(own, now, token, audiences).await, &mut errors) {
                return Ok(known);
            }
        }
        if let Some(webhook) = &self.webhook
            && let Some(known) = noted(webhook.authenticate(own, token, audiences).await, &mut errors)
        {
            return Ok(known);
        }
        Err(crate::authorization::aggregate(errors))
    }

    fn of_file(&self, token: &str, audiences: &[String]) -> Option<Authenticated> {
        let user = self.fixed.user_of(token)?;
        let shared = shared_audiences(&self.accounts.audiences, audiences);
        (!shared.is_empty()).then(|| Authenticated::new(user.clone(), shared))
    }
}

fn noted(verdict: Verdict, errors: &mut Vec<String>) -> Option<Authenticated> {
    verdict.unwrap_or_else(|error| {
        errors.push(error);
        None
    })
}

/// The bearer token of a request: of its header, or of the protocols that a browser's WebSocket offers.
pub fn bearer(headers: &HeaderMap) -> Option<String> {
    of_header(headers).or_else(|| of_protocols(headers))
}

fn of_header(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned())
}

fn of_protocols(headers: &HeaderMap) -> Option<String> {
    const PREFIX: &str = "base64url.bearer.authorization.k8s.io.";
    let mut tokens = pintle_websocket::protocols(headers).filter_map(|protocol| protocol.strip_prefix(PREFIX));
    let token = URL_SAFE_NO_PAD.decode(tokens.next()?).ok()?;
    String::from_utf8(token).ok().filter(|token| !token.is_empty() && tokens.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::User;
    use crate::authentication::keys::KeyRing;
    use crate::authentication::service_account::Order;
    use async_trait::async_trait;
    use http::header::SEC_WEBSOCKET_PROTOCOL;
    use pintle_pki::SigningKey;
    use serde_json::{Value, json};

    struct Fixed(Vec<(&'static str, Value)>);

    #[async_trait]
    impl Objects for Fixed {
        async fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
            let wanted = format!("{resource}/{namespace}/{name}");
            self.0.iter().find(|(key, _)| *key == wanted).map(|(_, value)| value.clone())
        }

        async fn label_secret(&self, _: &str, _: &str, _: &str, _: &str) {}
    }

    fn tokens(others: Vec<super::super::keys::PublicKey>) -> Tokens {
        let signer = Arc::new(SigningKey::ephemeral().unwrap()).into();
        let issuers = vec!["https://new".into(), "https://old".into()];
        Tokens::new(ServiceAccounts::new(KeyRing::new(signer, others), issuers, Vec::new()))
    }

    fn account() -> Value {
        json!({"metadata": {"name": "bot", "namespace": "a", "uid": "u1"}})
    }

    fn order<'a>(account: &'a Value, audiences: &'a [String]) -> Order<'a> {
        let (issued_at, expires_at) = (1000, 2000);
        Order {
            namespace: "a",
            account,
            bound: None,
            node: None,
            audiences,
            issued_at,
            expires_at,
            warn_after: Some(1500),
        }
    }

    async fn ask(
        tokens: &Tokens,
        objects: &Fixed,
        second: i64,
        token: &str,
        audiences: &[&str],
    ) -> Result<Authenticated, String> {
        let audiences: Vec<String> = audiences.iter().map(|a| (*a).to_owned()).collect();
        tokens.authenticate(objects, Timestamp::from_second(second).unwrap(), token, &audiences).await
    }

    #[tokio::test]
    async fn service_account_tokens_count_while_they_and_their_account_last() {
        let account = account();
        let there = Fixed(vec![("serviceaccounts/a/bot", account.clone())]);
        let ours = tokens(Vec::new());
        let audiences = ours.accounts.audiences.clone();
        let token = ours.accounts.issue(&order(&account, &audiences)).unwrap();
        let bot = ask(&ours, &there, 1100, &token, &[]).await.unwrap();
        assert_eq!((bot.user.name.as_str(), bot.annotations.len()), ("system:serviceaccount:a:bot", 0));
        assert_eq!(ask(&ours, &there, 1600, &token, &[]).await.unwrap().annotations.len(), 1);
        let expired = "[invalid bearer token, service account token has expired]";
        assert_eq!(ask(&ours, &there, 2011, &token, &[]).await, Err(expired.into()));
        assert!(ask(&ours, &there, 1100, &token, &["vault"]).await.is_err());
        let gone = "[invalid bearer token, service account token has been invalidated]";
        assert_eq!(ask(&ours, &Fixed(Vec::new()), 1100, &token, &[]).await, Err(gone.into()));
        assert_eq!(ask(&ours, &there, 1100, "x", &[]).await, Err(UNKNOWN_TOKEN.into()));
    }

    #[tokio::test]
    async fn after_a_rotation_old_keys_still_check() {
        let account = account();
        let there = Fixed(vec![("serviceaccounts/a/bot", account.clone())]);
        let old = tokens(Vec::new());
        let token = old.accounts.issue(&order(&account, &old.accounts.audiences)).unwrap();
        let new = tokens(old.accounts.keys.verifiers().to_vec());
        assert!(ask(&new, &there, 1100, &token, &[]).await.is_ok());
        assert!(ask(&tokens(Vec::new()), &there, 1100, &token, &[]).await.is_err());
        assert_eq!(new.accounts.keys.key_set()["keys"].as_array().unwrap().len(), 2);
    }

    #[tokio::test]
    async fn tokens_of_secrets_count_while_the_secret_has_them() {
        let account = account();
        let ours = tokens(Vec::new());
        let mut secret = json!({"metadata": {"name": "s", "namespace": "a"}});
        let token = ours.accounts.issue_legacy(&account, &secret).unwrap();
        secret["data"] = json!({"token": base64::engine::general_purpose::STANDARD.encode(&token)});
        let objects =
            |secret: &Value| Fixed(vec![("serviceaccounts/a/bot", account.clone()), ("secrets/a/s", secret.clone())]);
        assert!(ask(&ours, &objects(&secret), 1100, &token, &[]).await.is_ok());
        secret["data"]["token"] = "eA==".into();
        assert!(ask(&ours, &objects(&secret), 1100, &token, &[]).await.unwrap_err().contains("server's copy"));
    }

    #[test]
    fn browsers_hide_the_token_among_the_protocols() {
        let mut headers = HeaderMap::new();
        headers.insert(SEC_WEBSOCKET_PROTOCOL, "v4, base64url.bearer.authorization.k8s.io.dG9rZW4".parse().unwrap());
        assert_eq!(bearer(&headers), Some("token".into()));
        headers.insert(AUTHORIZATION, "Bearer  direct".parse().unwrap());
        assert_eq!(bearer(&headers), Some("direct".into()));
        assert_eq!(User::anonymous().name, "system:anonymous");
    }
}

//! Tokens of OpenID Connect issuers: their keys fetched and kept, their claims checked and mapped to users.
//!
//! Source: apiserver's `plugin/pkg/authenticator/token/oidc`.

use super::jwt::{self, Parsed};
use super::keys::PublicKey;
use super::{Authenticated, Verdict, shared_audiences};
use crate::User;
use crate::cel::Expression;
use crate::outbound::{Endpoint, OutboundError, trusting};
use arc_swap::ArcSwap;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// The algorithms that tokens may be signed with. (ES512 is not: its curve is not supported.)
pub const ALGORITHMS: [&str; 8] = ["RS256", "RS384", "RS512", "ES256", "ES384", "PS256", "PS384", "PS512"];
const TIMEOUT: Duration = Duration::from_secs(30);
/// Keys are fetched again for an unknown key id, but not more often than this: anybody can name unknown keys.
const FETCH_PAUSE: Duration = Duration::from_secs(5);
const MAX_KEYS: usize = 256;

/// How a text or a list is made from claims.
#[derive(Debug)]
pub enum Mapping {
    Claim { name: String, prefix: String },
    Expression(Expression),
}

/// What tokens must fulfil.
#[derive(Debug)]
pub enum Rule {
    Claim { name: String, required: String },
    Expression { expression: Expression, message: String },
}

/// The settings of an issuer.
#[derive(Debug)]
pub struct IssuerSettings {
    pub url: String,
    /// Where the discovery document is, when not below `url`.
    pub discovery_url: Option<String>,
    /// PEM of the authorities of the issuer's certificate; nothing is the system's.
    pub authority_pem: Option<String>,
    pub audiences: Vec<String>,
    pub algorithms: Vec<String>,
    pub username: Mapping,
    pub groups: Option<Mapping>,
    pub uid: Option<Mapping>,
    pub extra: Vec<(String, Expression)>,
    pub claim_rules: Vec<Rule>,
    pub user_rules: Vec<Rule>,
}

#[derive(Debug, Default)]
struct Keys {
    list: Vec<PublicKey>,
    fetched: Option<Instant>,
}

/// An issuer with the keys that it has published.
#[derive(Debug)]
pub struct Issuer {
    pub settings: IssuerSettings,
    tls: Arc<rustls::ClientConfig>,
    keys: ArcSwap<Keys>,
    /// Held while keys are fetched, so that they are fetched once.
    fetching: Mutex<()>,
}

impl Issuer {
    /// Nothing is fetched before the first token.
    pub fn new(settings: IssuerSettings) -> Result<Self, OutboundError> {
        let tls = trusting(settings.authority_pem.as_deref())?;
        Ok(Self { settings, tls, keys: ArcSwap::default(), fetching: Mutex::default() })
    }

    /// The user of a token; nothing when somebody else issued it.
    pub async fn authenticate(&self, own: &[String], now: Timestamp, token: &str, audiences: &[String]) -> Verdict {
        let Some(parsed) = Parsed::new(token).filter(|p| p.claimed_issuer() == self.settings.url) else {
            return Ok(None);
        };
        let keys = self.keys_for(parsed.key_id()).await.map_err(|e| format!("oidc: {e}"))?;
        let algorithms: Vec<&str> = self.settings.algorithms.iter().map(String::as_str).collect();
        if parsed.algorithm() == "ES512" {
            return Err("oidc: verify token: signatures by ES512 are not supported; have the issuer use ES384".into());
        }
        let claims = parsed.verified(&keys.list, &algorithms);
        let claims = claims.ok_or("oidc: verify token: failed to verify id token signature")?;
        self.check_times(&claims, now)?;
        let user = self.user(&claims).map_err(|why| format!("oidc: {why}"))?;
        let shared = shared_audiences(own, audiences);
        if shared.is_empty() {
            return Ok(None);
        }
        Ok(Some(Authenticated::new(user.authenticated(), shared)))
    }

    fn check_times(&self, claims: &Value, now: Timestamp) -> Result<(), String> {
        let second = now.as_second();
        let expiry = jwt::seconds(&claims["exp"]).ok_or("oidc: verify token: the token has no expiry")?;
        if expiry <= second {
            return Err(format!("oidc: verify token: oidc: token is expired (Token Expiry: {expiry})"));
        }
        // Upstream's library allows for clocks that are five minutes apart.
        if jwt::seconds(&claims["nbf"]).is_some_and(|at| at > second + 300) {
            return Err("oidc: verify token: oidc: current time before the nbf (not before) time".into());
        }
        let meant = jwt::audiences(claims);
        if !self.settings.audiences.iter().any(|audience| meant.contains(&audience.as_str())) {
            let wanted = &self.settings.audiences;
            return Err(format!("oidc: verify token: oidc: expected audience in {wanted:?} got {meant:?}"));
        }
        Ok(())
    }

    /// The issuer's keys, fetched when there are none or none of this name.
    async fn keys_for(&self, id: &str) -> Result<Arc<Keys>, String> {
        let known = |keys: &Keys| keys.list.iter().any(|key| id.is_empty() || key.id == id);
        let fresh = |keys: &Keys| keys.fetched.is_some_and(|at| at.elapsed() < FETCH_PAUSE);
        let keys = self.keys.load_full();
        if known(&keys) || fresh(&keys) {
            return Ok(keys);
        }
        let _one = self.fetching.lock().await;
        let keys = self.keys.load_full();
        if known(&keys) || fresh(&keys) {
            return Ok(keys);
        }
        let fetched = self.fetch().await;
        let list = fetched.as_ref().map_or_else(|_| keys.list.clone(), Clone::clone);
        self.keys.store(Arc::new(Keys { list, fetched: Some(Instant::now()) }));
        fetched.map_err(|e| format!("fetching keys: {e}"))?;
        Ok(self.keys.load_full())
    }

    async fn get(&self, url: &str) -> Result<Value, String> {
        let endpoint = Endpoint::new(url, Some(self.tls.clone()), TIMEOUT).map_err(|e| e.to_string())?;
        let body = endpoint.get().await.map_err(|e| e.to_string())?;
        serde_json::from_slice(&body).map_err(|e| format!("{url}: {e}"))
    }

    async fn fetch(&self) -> Result<Vec<PublicKey>, String> {
        let url = self.settings.url.trim_end_matches('/');
        let below = format!("{url}/.well-known/openid-configuration");
        let document = self.get(self.settings.discovery_url.as_deref().unwrap_or(&below)).await?;
        if document["issuer"] != self.settings.url {
            let (wanted, got) = (&self.settings.url, &document["issuer"]);
            return Err(format!(
                "oidc: issuer did not match the issuer returned by provider, expected {wanted:?} got {got}"
            ));
        }
        let set = self.get(document["jwks_uri"].as_str().ok_or("the discovery document has no jwks_uri")?).await?;
        let keys = set["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(keys.iter().take(MAX_KEYS).filter_map(PublicKey::from_jwk).collect())
    }

    /// The user that checked claims name.
    fn user(&self, claims: &Value) -> Result<User, String> {
        let settings = &self.settings;
        for rule in &settings.claim_rules {
            rule.check("claims", claims)?;
        }
        let name = username(&settings.username, claims)?;
        if name.is_empty() {
            return Err("username claim value is empty".into());
        }
        let mut user = User { name, ..User::default() };
        if let Some(mapping) = &settings.groups {
            user.groups = groups(mapping, claims)?;
        }
        if let Some(mapping) = &settings.uid {
            user.uid = match mapping {
                Mapping::Claim { name, .. } => text_claim(claims, name)?,
                Mapping::Expression(expression) => expression.text("claims", claims)?,
            };
        }
        user.extra = extra(&settings.extra, claims)?;
        if let Some(id) = claims["jti"].as_str().filter(|id| !id.is_empty()) {
            user.extra.insert("authentication.kubernetes.io/credential-id".into(), vec![format!("JTI={id}")]);
        }
        if !settings.user_rules.is_empty() {
            let value = json!({"username": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra});
            for rule in &settings.user_rules {
                rule.check("user", &value)?;
            }
        }
        Ok(user)
    }
}

impl Rule {
    fn check(&self, variable: &str, value: &Value) -> Result<(), String> {
        match self {
            Self::Claim { name, required } => match value.get(name) {
                None => Err(format!("required claim {name} not present in ID token")),
                Some(found) if found == required.as_str() => Ok(()),
                Some(Value::String(found)) => {
                    Err(format!("required claim {name} value does not match. Got = {found}, want = {required}"))
                }
                Some(_) => Err(format!("parse claim {name}: a text is wanted")),
            },
            Self::Expression { expression, message } => {
                let failed = |why: String| match variable {
                    "user" => format!("error evaluating user info validation rule: {why}"),
                    _ => format!("error evaluating claim validation expression: {why}"),
                };
                if expression.holds(variable, value).map_err(failed)? {
                    return Ok(());
                }
                let message = match message.as_str() {
                    "" => format!("expression '{}' resulted in false", expression.text),
                    some => some.to_owned(),
                };
                Err(failed(format!("validation expression '{}' failed: {message}", expression.text)))
            }
        }
    }
}

fn text_claim(claims: &Value, name: &str) -> Result<String, String> {
    match claims.get(name) {
        None => Err(format!("parse username claims {name:?}: claim not present")),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(format!("parse username claims {name:?}: a text is wanted")),
    }
}

fn username(mapping: &Mapping, claims: &Value) -> Result<String, String> {
    let (name, prefix) = match mapping {
        Mapping::Expression(expression) => return expression.text("claims", claims),
        Mapping::Claim { name, prefix } => (name, prefix),
    };
    let text = text_claim(claims, name)?;
    // Whoever can choose their mail address freely must not become somebody else by it.
    if name == "email"
        && let Some(verified) = claims.get("email_verified")
    {
        match verified.as_bool() {
            Some(true) => {}
            Some(false) => return Err("email not verified".into()),
            None => return Err("parse 'email_verified' claim: true or false is wanted".into()),
        }
    }
    if text.is_empty() { Ok(text) } else { Ok(format!("{prefix}{text}")) }
}

fn groups(mapping: &Mapping, claims: &Value) -> Result<Vec<String>, String> {
    let (name, prefix) = match mapping {
        Mapping::Expression(expression) => {
            let groups = expression.texts("claims", claims)?;
            return Ok(groups.into_iter().filter(|g| !g.is_empty()).collect());
        }
        Mapping::Claim { name, prefix } => (name, prefix),
    };
    let list = match claims.get(name) {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(list)) => {
            let texts: Option<Vec<String>> = list.iter().map(|item| item.as_str().map(str::to_owned)).collect();
            texts.ok_or_else(|| format!("parse groups claim {name:?}: a list of texts is wanted"))?
        }
        Some(_) => return Err(format!("parse groups claim {name:?}: a text or a list of texts is wanted")),
    };
    Ok(list.into_iter().map(|group| format!("{prefix}{group}")).collect())
}

fn extra(mappings: &[(String, Expression)], claims: &Value) -> Result<BTreeMap<String, Vec<String>>, String> {
    let mut out = BTreeMap::new();
    for (key, expression) in mappings {
        let failed = |why| format!("error evaluating extra mapping for key '{key}': {why}");
        let values = expression.texts("claims", claims).map_err(failed)?;
        if !values.is_empty() {
            out.insert(key.clone(), values);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issuer(change: impl FnOnce(&mut IssuerSettings)) -> Issuer {
        let claim = |name: &str, prefix: &str| Mapping::Claim { name: name.into(), prefix: prefix.into() };
        let mut settings = IssuerSettings {
            url: "https://issuer".into(),
            discovery_url: None,
            authority_pem: None,
            audiences: vec!["cluster".into()],
            algorithms: ALGORITHMS.map(str::to_owned).to_vec(),
            username: claim("sub", "oidc:"),
            groups: Some(claim("groups", "g:")),
            uid: None,
            extra: Vec::new(),
            claim_rules: Vec::new(),
            user_rules: Vec::new(),
        };
        change(&mut settings);
        Issuer::new(settings).unwrap()
    }

    #[test]
    fn claims_become_users() {
        let plain = issuer(|_| {});
        let user = plain.user(&json!({"sub": "jane", "groups": ["a", "b"]})).unwrap();
        assert_eq!((user.name.as_str(), user.groups), ("oidc:jane", vec!["g:a".to_owned(), "g:b".into()]));
        assert_eq!(plain.user(&json!({"sub": "jane", "groups": "a"})).unwrap().groups, ["g:a"]);
        assert!(plain.user(&json!({"groups": ["a"]})).is_err() && plain.user(&json!({"sub": ""})).is_err());
        let mail = issuer(|s| s.username = Mapping::Claim { name: "email".into(), prefix: String::new() });
        assert_eq!(mail.user(&json!({"email": "j@x", "email_verified": true})).unwrap().name, "j@x");
        assert_eq!(mail.user(&json!({"email": "j@x", "email_verified": false})), Err("email not verified".into()));
        let rule = Rule::Claim { name: "hd".into(), required: "x".into() };
        let strict = issuer(|s| s.claim_rules.push(rule));
        assert_eq!(strict.user(&json!({"sub": "jane"})), Err("required claim hd not present in ID token".into()));
        assert!(strict.user(&json!({"sub": "jane", "hd": "x"})).is_ok());
    }

    #[test]
    fn times_and_audiences_are_checked() {
        let issuer = issuer(|_| {});
        let now = Timestamp::from_second(1000).unwrap();
        let check = |claims: Value, good: bool| assert_eq!(issuer.check_times(&claims, now).is_ok(), good, "{claims}");
        check(json!({"exp": 1001, "aud": "cluster"}), true);
        check(json!({"exp": 1001.5, "aud": ["other", "cluster"]}), true);
        check(json!({"exp": 1000, "aud": "cluster"}), false);
        check(json!({"aud": "cluster"}), false);
        check(json!({"exp": 1001, "aud": "other"}), false);
        check(json!({"exp": 2000, "nbf": 1400, "aud": "cluster"}), false);
    }
}

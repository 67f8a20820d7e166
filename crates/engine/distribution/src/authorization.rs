//! Answers a registry's challenge: basic credentials, or a bearer token from its token server.
//!
//! Source: Docker registry v2 authentication, "Token Authentication Specification"; RFC 7235 for the challenge.

use crate::connection::{Connector, Outgoing};
use crate::error::{Error, Result};
use crate::{Credentials, stream};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::Method;
use http::header::AUTHORIZATION;

/// The longest token answer that is read, in bytes.
const MAX_ANSWER: usize = 1 << 20;

/// What a `WWW-Authenticate` header asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    Bearer { realm: String, service: String, scope: String },
}

impl Challenge {
    /// Reads one challenge; unknown schemes are nothing.
    pub(crate) fn parse(header: &str) -> Option<Self> {
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service, mut scope) = Default::default();
        for (name, value) in parameters(rest) {
            match name.as_str() {
                "realm" => realm = value,
                "service" => service = value,
                "scope" => scope = value,
                _ => {}
            }
        }
        (!realm.is_empty()).then_some(Self::Bearer { realm, service, scope })
    }
}

/// `name="value", …`; a value may contain commas.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim_matches([',', ' ']).to_ascii_lowercase();
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        found.push((name, value.to_owned()));
        rest = next;
    }
    found
}

pub(crate) fn basic(credentials: &Credentials) -> Option<String> {
    let named = !credentials.username.is_empty();
    named.then(|| format!("Basic {}", BASE64.encode(format!("{}:{}", credentials.username, credentials.password))))
}

/// Gets a token from the token server of a challenge.
pub(crate) async fn token(
    connector: &Connector,
    challenge: &Challenge,
    scopes: &[String],
    credentials: &Credentials,
) -> Result<String> {
    let Challenge::Bearer { realm, service, scope } = challenge else {
        return Err(Error::Invalid("the registry asks for no token".into()));
    };
    let mut scopes: Vec<&str> = scopes.iter().map(String::as_str).collect();
    if scopes.is_empty() && !scope.is_empty() {
        scopes.push(scope);
    }
    let answer = if credentials.identity_token.is_empty() {
        let mut url = format!("{realm}{}service={}", if realm.contains('?') { '&' } else { '?' }, escape(service));
        for scope in scopes {
            url.push_str(&format!("&scope={}", escape(scope)));
        }
        let mut request = Outgoing::new(Method::GET, url);
        if let Some(value) = basic(credentials) {
            request = request.header(AUTHORIZATION, value);
        }
        connector.send(request).await?
    } else {
        let body = format!(
            "grant_type=refresh_token&client_id=pintle&service={}&scope={}&refresh_token={}",
            escape(service),
            escape(&scopes.join(" ")),
            escape(&credentials.identity_token)
        );
        let request = Outgoing::new(Method::POST, realm.clone())
            .header(http::header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(body);
        connector.send(request).await?
    };
    let status = answer.status().as_u16();
    let bytes = stream::collect(answer, MAX_ANSWER).await?;
    if status != 200 {
        return Err(crate::registry::refusal(status, &bytes));
    }
    let value: serde_json::Value =
        serde_json::from_slice(&bytes).map_err(|e| Error::Invalid(format!("the token server's answer: {e}")))?;
    let token = value["token"].as_str().or_else(|| value["access_token"].as_str());
    token.map(str::to_owned).ok_or_else(|| Error::Invalid("the token server's answer has no token".into()))
}

/// Percent-encodes all but unreserved characters (RFC 3986, section 2.3).
pub(crate) fn escape(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let header =
            r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push""#;
        let expected = Challenge::Bearer {
            realm: "https://auth.example/token".into(),
            service: "registry.example".into(),
            scope: "repository:a/b:pull,push".into(),
        };
        assert_eq!(Challenge::parse(header), Some(expected));
        assert_eq!(Challenge::parse("Basic realm=\"x\""), Some(Challenge::Basic));
        assert_eq!(Challenge::parse("Bearer service=x"), None);
        assert_eq!(Challenge::parse("Negotiate"), None);
    }

    #[test]
    fn credentials_do_not_appear_when_printed() {
        let secret = Credentials { username: "me".into(), password: "hidden".into(), ..Credentials::default() };
        assert!(!format!("{secret:?}").contains("hidden"));
        assert_eq!(basic(&secret).as_deref(), Some("Basic bWU6aGlkZGVu"));
        assert_eq!(basic(&Credentials::default()), None);
    }
}

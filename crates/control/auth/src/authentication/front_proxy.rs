//! Front proxies: servers that have found out who asks and say so in headers, on connections that their certificate
//! proves to be theirs.
//!
//! Source: apiserver's `pkg/authentication/request/headerrequest`.

use crate::User;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use percent_encoding::percent_decode_str;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use serde_json::{Value, json};
use std::sync::Arc;

/// The settings `--requestheader-*`.
#[derive(Clone, Debug)]
pub struct FrontProxySettings {
    /// PEM of the authority of proxies' certificates.
    pub authority_pem: String,
    /// The common names that proxies may have; empty is any.
    pub allowed_names: Vec<String>,
    pub username_headers: Vec<String>,
    pub uid_headers: Vec<String>,
    pub group_headers: Vec<String>,
    pub extra_prefixes: Vec<String>,
}

impl FrontProxySettings {
    /// The headers that upstream's documentation names.
    pub fn new(authority_pem: String) -> Self {
        let one = |name: &str| vec![name.to_owned()];
        Self {
            authority_pem,
            allowed_names: Vec::new(),
            username_headers: one("X-Remote-User"),
            uid_headers: one("X-Remote-Uid"),
            group_headers: one("X-Remote-Group"),
            extra_prefixes: one("X-Remote-Extra-"),
        }
    }

    /// What the ConfigMap `extension-apiserver-authentication` tells other servers of these settings.
    pub fn published(&self) -> Vec<(&'static str, String)> {
        let list = |items: &[String]| json!(items).to_string();
        let mut out = vec![
            ("requestheader-allowed-names", list(&self.allowed_names)),
            ("requestheader-client-ca-file", self.authority_pem.clone()),
            ("requestheader-extra-headers-prefix", list(&self.extra_prefixes)),
            ("requestheader-group-headers", list(&self.group_headers)),
            ("requestheader-username-headers", list(&self.username_headers)),
        ];
        if !self.uid_headers.is_empty() {
            out.push(("requestheader-uid-headers", list(&self.uid_headers)));
        }
        out
    }
}

/// Tells whose certificate a connection showed.
pub struct CertificateCheck(Arc<dyn ClientCertVerifier>);

impl std::fmt::Debug for CertificateCheck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CertificateCheck")
    }
}

impl CertificateCheck {
    /// A check against the authorities of a PEM text.
    pub fn new(authority_pem: &str) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authority_pem.as_bytes()) {
            roots.add(certificate.map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        Ok(Self(verifier.map_err(|e| e.to_string())?))
    }

    /// Whether the chain leads to one of the authorities now.
    pub fn accepts(&self, chain: &[CertificateDer<'_>]) -> bool {
        let Some((first, rest)) = chain.split_first() else { return false };
        self.0.verify_client_cert(first, rest, UnixTime::now()).is_ok()
    }
}

/// Believes the headers of proxies.
#[derive(Debug)]
pub struct FrontProxy {
    pub settings: FrontProxySettings,
    check: CertificateCheck,
}

impl FrontProxy {
    pub fn new(settings: FrontProxySettings) -> Result<Self, String> {
        Ok(Self { check: CertificateCheck::new(&settings.authority_pem)?, settings })
    }

    /// Whether a connection with this certificate chain is a proxy's. To be asked once for a connection.
    pub fn is_proxy(&self, chain: &[CertificateDer<'_>], common_name: &str) -> bool {
        let names = &self.settings.allowed_names;
        self.check.accepts(chain) && (names.is_empty() || names.iter().any(|name| name == common_name))
    }

    /// Who the headers of a proxy's request name; nothing when they name nobody.
    pub fn user_of(&self, headers: &HeaderMap) -> Option<User> {
        let all = |names: &[String]| -> Vec<String> {
            let values = names.iter().flat_map(|name| headers.get_all(name.as_str()));
            values.filter_map(|v| v.to_str().ok()).map(str::to_owned).collect()
        };
        let first = |names: &[String]| all(names).into_iter().find(|v| !v.is_empty());
        let settings = &self.settings;
        let mut user = User {
            name: first(&settings.username_headers)?,
            uid: first(&settings.uid_headers).unwrap_or_default(),
            groups: all(&settings.group_headers),
            ..User::default()
        };
        for (name, value) in headers {
            let after = |prefix: &String| name.as_str().strip_prefix(&prefix.to_ascii_lowercase());
            let Some(key) = settings.extra_prefixes.iter().find_map(after) else { continue };
            let key = percent_decode_str(key).decode_utf8_lossy().into_owned();
            if let Ok(value) = value.to_str() {
                user.extra.entry(key).or_default().push(value.to_owned());
            }
        }
        Some(user.authenticated())
    }
}

/// Takes away the credentials of a request and the headers that only proxies may set, the usual ones and those of the
/// settings, so that nothing behind believes them.
pub fn strip(proxy: Option<&FrontProxy>, headers: &mut HeaderMap) {
    headers.remove(AUTHORIZATION);
    let is_own = |name: &str| {
        let Some(settings) = proxy.map(|proxy| &proxy.settings) else { return false };
        let mut names = settings.username_headers.iter().chain(&settings.uid_headers).chain(&settings.group_headers);
        names.any(|own| own.eq_ignore_ascii_case(name))
            || settings.extra_prefixes.iter().any(|prefix| {
                name.as_bytes().get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
            })
    };
    let is_usual = |name: &str| {
        let rest = name.strip_prefix("x-remote-");
        rest.is_some_and(|rest| matches!(rest, "user" | "uid" | "group") || rest.starts_with("extra-"))
    };
    let claims: Vec<_> =
        headers.keys().filter(|name| is_usual(name.as_str()) || is_own(name.as_str())).cloned().collect();
    for name in claims {
        headers.remove(name);
    }
}

/// The data of the ConfigMap `extension-apiserver-authentication`.
pub fn published_data(client_authority_pem: &str, proxy: Option<&FrontProxySettings>) -> Value {
    let mut data = json!({"client-ca-file": client_authority_pem});
    for (key, value) in proxy.map(FrontProxySettings::published).unwrap_or_default() {
        data[key] = value.into();
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::{HeaderName, HeaderValue};
    use pintle_pki::CertificateAuthority;

    fn headers(list: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in list {
            map.append(HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap());
        }
        map
    }

    #[test]
    fn a_proxy_is_known_by_its_certificate_and_believed() {
        let folder = tempfile::tempdir().unwrap();
        let now = jiff::Timestamp::now();
        let authority = CertificateAuthority::create(folder.path(), "proxies", now).unwrap();
        let other = CertificateAuthority::create(folder.path(), "other", now).unwrap();
        let mut settings = FrontProxySettings::new(authority.certificate_pem().to_owned());
        settings.allowed_names = vec!["front".into()];
        let proxy = FrontProxy::new(settings).unwrap();
        let chain = authority.issue_client("front", &[], now).unwrap().chain().unwrap();
        assert!(proxy.is_proxy(&chain, "front") && !proxy.is_proxy(&chain, "back") && !proxy.is_proxy(&[], "front"));
        let foreign = other.issue_client("front", &[], now).unwrap().chain().unwrap();
        assert!(!proxy.is_proxy(&foreign, "front"));
        let mut asked = headers(&[
            ("X-Remote-User", "jane"),
            ("X-Remote-Group", "a"),
            ("X-Remote-Group", "b"),
            ("X-Remote-Uid", "7"),
            ("X-Remote-Extra-Scopes%2fx", "s"),
        ]);
        let user = proxy.user_of(&asked).unwrap();
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("jane", "7"));
        assert_eq!(user.groups, ["a", "b", "system:authenticated"]);
        assert_eq!(user.extra["scopes/x"], ["s"]);
        strip(Some(&proxy), &mut asked);
        assert!(asked.is_empty() && proxy.user_of(&asked).is_none());
        let mut own = headers(&[("X-Remote-User", "jane"), ("X-Who", "jane"), ("Authorization", "x"), ("Accept", "x")]);
        let mut settings = FrontProxySettings::new(authority.certificate_pem().to_owned());
        settings.username_headers = vec!["X-Who".into()];
        strip(Some(&FrontProxy::new(settings).unwrap()), &mut own);
        assert_eq!(own.keys().map(|k| k.as_str()).collect::<Vec<_>>(), ["accept"]);
    }
}

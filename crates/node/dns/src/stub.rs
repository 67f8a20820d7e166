//! Which servers know which domains, from the cluster's ConfigMap for that: `stubDomains` and `upstreamNameservers`.
//!
//! The form is the one that Kubernetes documents for the ConfigMap `kube-dns`: JSON below each of the two keys.

use hickory_proto::rr::Name;
use pintle_types::k8s::api::core::v1::ConfigMap;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

const STUB_DOMAINS: &str = "stubDomains";
const UPSTREAM: &str = "upstreamNameservers";
const PORT: u16 = 53;
/// As many servers as CoreDNS takes for one domain.
const MAX_SERVERS: usize = 15;
const MAX_DOMAINS: usize = 1000;

/// What the ConfigMap says that is wrong; the settings before it stay.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("{key} is not JSON of the form {form}: {reason}")]
    Form { key: &'static str, form: &'static str, reason: String },
    #[error("{key}: {text:?} is no address like 10.0.0.1 or 10.0.0.1:5353")]
    Server { key: &'static str, text: String },
    #[error("{STUB_DOMAINS}: {text:?} is no domain: {reason}")]
    Domain { text: String, reason: String },
    #[error("{key} has more than {limit} entries")]
    TooMany { key: &'static str, limit: usize },
}

/// Servers by domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Routes {
    stubs: Vec<(Name, Vec<SocketAddr>)>,
    upstream: Option<Vec<SocketAddr>>,
}

impl Routes {
    /// Nothing for a name that no setting speaks of.
    pub(crate) fn servers_for(&self, name: &Name) -> Option<&[SocketAddr]> {
        let below = self.stubs.iter().filter(|(domain, _)| domain.zone_of(name));
        let nearest = below.max_by_key(|(domain, _)| domain.num_labels());
        nearest.map(|(_, servers)| servers.as_slice()).or(self.upstream.as_deref())
    }
}

/// Reads the settings; an empty ConfigMap says nothing.
pub(crate) fn parse(settings: &ConfigMap) -> Result<Routes, Error> {
    let value =
        |key: &str| settings.data.as_ref().and_then(|data| data.get(key)).filter(|text| !text.trim().is_empty());
    let mut routes = Routes::default();
    if let Some(text) = value(STUB_DOMAINS) {
        let form = r#"{"example.com": ["10.0.0.1"]}"#;
        let read = |error: serde_json::Error| Error::Form { key: STUB_DOMAINS, form, reason: error.to_string() };
        let domains: BTreeMap<String, Vec<String>> = serde_json::from_str(text).map_err(read)?;
        if domains.len() > MAX_DOMAINS {
            return Err(Error::TooMany { key: STUB_DOMAINS, limit: MAX_DOMAINS });
        }
        for (domain, addresses) in domains {
            routes.stubs.push((name(&domain)?, servers(STUB_DOMAINS, &addresses)?));
        }
    }
    if let Some(text) = value(UPSTREAM) {
        let read = |error: serde_json::Error| Error::Form {
            key: UPSTREAM,
            form: r#"["10.0.0.1"]"#,
            reason: error.to_string(),
        };
        let addresses: Vec<String> = serde_json::from_str(text).map_err(read)?;
        routes.upstream = Some(servers(UPSTREAM, &addresses)?).filter(|servers| !servers.is_empty());
    }
    Ok(routes)
}

fn name(text: &str) -> Result<Name, Error> {
    let failed = |error: hickory_proto::ProtoError| Error::Domain { text: text.to_owned(), reason: error.to_string() };
    let mut name = Name::from_ascii(text).map_err(failed)?.to_lowercase();
    name.set_fqdn(true);
    Ok(name)
}

fn servers(key: &'static str, texts: &[String]) -> Result<Vec<SocketAddr>, Error> {
    if texts.len() > MAX_SERVERS {
        return Err(Error::TooMany { key, limit: MAX_SERVERS });
    }
    let server = |text: &String| {
        let alone = text.parse::<IpAddr>().map(|address| SocketAddr::new(address, PORT));
        alone.or_else(|_| text.parse()).map_err(|_| Error::Server { key, text: text.clone() })
    };
    texts.iter().map(server).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(stubs: &str, upstream: &str) -> ConfigMap {
        let pairs = [(STUB_DOMAINS, stubs), (UPSTREAM, upstream)];
        let data = pairs.into_iter().map(|(key, text)| (key.to_owned(), text.to_owned())).collect();
        ConfigMap { data: Some(data), ..ConfigMap::default() }
    }

    #[test]
    fn the_nearest_domain_decides() {
        let stubs = r#"{"acme.local": ["10.0.0.1"], "deep.Acme.local": ["10.0.0.2:5353", "fd00::1"]}"#;
        let routes = parse(&settings(stubs, r#"["8.8.8.8"]"#)).expect("settings");
        let ask = |text: &str| -> Vec<String> {
            let name = Name::from_ascii(text).expect("a name");
            routes.servers_for(&name).unwrap_or_default().iter().map(ToString::to_string).collect()
        };
        assert_eq!(ask("x.acme.local."), ["10.0.0.1:53"]);
        assert_eq!(ask("acme.local."), ["10.0.0.1:53"]);
        assert_eq!(ask("x.deep.acme.local."), ["10.0.0.2:5353", "[fd00::1]:53"]);
        assert_eq!(ask("notacme.local."), ["8.8.8.8:53"]);
        assert_eq!(parse(&ConfigMap::default()), Ok(Routes::default()));
        assert_eq!(Routes::default().servers_for(&Name::root()), None);
        assert_eq!(parse(&settings("", "[]")), Ok(Routes::default()));
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (stubs, upstream, words) in [
            ("[1]", "", "stubDomains is not JSON of the form {\"example.com\": [\"10.0.0.1\"]}"),
            (r#"{"a..b": []}"#, "", "stubDomains: \"a..b\" is no domain"),
            (r#"{"a": ["b"]}"#, "", "stubDomains: \"b\" is no address like 10.0.0.1"),
            ("", "{}", "upstreamNameservers is not JSON of the form"),
            ("", r#"["10.0.0.1:99999"]"#, "upstreamNameservers: \"10.0.0.1:99999\" is no address"),
        ] {
            let error = parse(&settings(stubs, upstream)).expect_err("it is wrong").to_string();
            assert!(error.starts_with(words), "{error}");
        }
    }

    #[test]
    fn broken_settings_are_refused_or_bounded() {
        pintle_noise::feed_text(&[r#"{"acme.local": ["10.0.0.1", "10.0.0.2:53"]}"#], 500, |text| {
            if let Ok(routes) = parse(&settings(text, text)) {
                assert!(routes.stubs.len() <= MAX_DOMAINS);
            }
        });
    }
}

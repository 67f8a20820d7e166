//! Reads which programs there are, and what they answer.

use pintle_cri::AuthConfig;
use pintle_schema::decode::{self, Limits};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

const CONFIG_VERSIONS: [&str; 3] =
    ["kubelet.config.k8s.io/v1", "kubelet.config.k8s.io/v1beta1", "kubelet.config.k8s.io/v1alpha1"];
const VERSIONS: [&str; 3] = [
    "credentialprovider.kubelet.k8s.io/v1",
    "credentialprovider.kubelet.k8s.io/v1beta1",
    "credentialprovider.kubelet.k8s.io/v1alpha1",
];

/// Why the programs are not known.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {path:?}: {source}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path:?} is no CredentialProviderConfig: {why}")]
    Form { path: PathBuf, why: String },
    #[error("plugin binary executable {0:?} did not exist")]
    Program(PathBuf),
}

/// One program.
pub(super) struct Provider {
    pub(super) name: String,
    pub(super) images: Vec<String>,
    /// How long answers count that do not say it.
    pub(super) cache: Duration,
    pub(super) version: String,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<(String, String)>,
}

/// What an answer is kept for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum CacheKey {
    Image(String),
    Registry(String),
    Global,
}

pub(super) struct Answer {
    pub(super) key: CacheKey,
    pub(super) lasts: Option<Duration>,
    /// By the images that they are for.
    pub(super) auth: Vec<(String, AuthConfig)>,
}

pub(super) fn read(path: &Path) -> Result<Vec<Provider>, ConfigError> {
    let bytes = std::fs::read(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let form = |why: String| ConfigError::Form { path: path.to_owned(), why };
    let value = decode::yaml(&bytes, Limits::default()).map_err(|e| form(e.to_string()))?.value;
    if text(&value["kind"]) != "CredentialProviderConfig" || !CONFIG_VERSIONS.contains(&text(&value["apiVersion"])) {
        return Err(form("its kind or apiVersion is another".to_owned()));
    }
    let list = value["providers"].as_array().filter(|list| !list.is_empty());
    let list = list.ok_or_else(|| form("at least 1 item in plugins is required".to_owned()))?;
    list.iter().map(|of| provider(of).map_err(form)).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn provider(of: &Value) -> Result<Provider, String> {
    let name = text(&of["name"]).to_owned();
    if !crate::host::is_plain_name(&name) || name.contains(' ') {
        return Err(format!("the name of a provider is a file's in the folder of programs, not {name:?}"));
    }
    if !of["tokenAttributes"].is_null() {
        return Err(format!("tokenAttributes of {name:?} are not supported"));
    }
    let (version, images) = (text(&of["apiVersion"]).to_owned(), texts(&of["matchImages"]));
    if !VERSIONS.contains(&version.as_str()) {
        return Err(format!("the apiVersion of {name:?} is none of {VERSIONS:?}"));
    }
    if images.is_empty() {
        return Err(format!("at least 1 item in matchImages of {name:?} is required"));
    }
    let cache = duration(text(&of["defaultCacheDuration"]));
    let cache = cache.ok_or_else(|| format!("the defaultCacheDuration of {name:?} is required and at least 0"))?;
    let pair = |of: &Value| (text(&of["name"]).to_owned(), text(&of["value"]).to_owned());
    let env = of["env"].as_array().into_iter().flatten().map(pair).collect();
    Ok(Provider { name, images, cache, version, args: texts(&of["args"]), env })
}

/// Understands what a program wrote.
pub(super) fn answer(output: &[u8], version: &str, image: &str) -> Result<Answer, String> {
    let value: Value = serde_json::from_slice(output).map_err(|e| format!("its answer is no JSON: {e}"))?;
    if text(&value["kind"]) != "CredentialProviderResponse" || text(&value["apiVersion"]) != version {
        return Err(format!("its answer is no CredentialProviderResponse of {version}"));
    }
    let key = match text(&value["cacheKeyType"]) {
        "Image" => CacheKey::Image(image.to_owned()),
        "Registry" => CacheKey::Registry(super::registry(image).to_owned()),
        "Global" => CacheKey::Global,
        other => return Err(format!("unknown cache key type {other:?}")),
    };
    let lasts = match &value["cacheDuration"] {
        Value::Null => None,
        of => Some(duration(text(of)).ok_or("its cacheDuration is no duration")?),
    };
    let auth = |(pattern, of): (&String, &Value)| {
        let (username, password) = (text(&of["username"]).to_owned(), text(&of["password"]).to_owned());
        let server_address = super::registry(image).to_owned();
        (pattern.clone(), AuthConfig { username, password, server_address, ..Default::default() })
    };
    let auth = value["auth"].as_object().into_iter().flatten().map(auth).collect();
    Ok(Answer { key, lasts, auth })
}

/// `1h10m0s` and the like; nothing that is negative.
fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut sum) = (text, 0.0);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let unit = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let seconds = [("h", 3600.0), ("m", 60.0), ("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9)];
        sum += number.parse::<f64>().ok()? * seconds.iter().find(|(name, _)| *name == unit)?.1;
        rest = tail;
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(sum).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn durations_are_read() {
        for (text, seconds) in [
            ("10m", Some(600.0)),
            ("1h0m1.5s", Some(3601.5)),
            ("0s", Some(0.0)),
            ("", None),
            ("-1s", None),
            ("1x", None),
            ("5", None),
        ] {
            assert_eq!(duration(text).map(|d| d.as_secs_f64()), seconds, "{text}");
        }
    }

    #[test]
    fn providers_that_cannot_be_are_refused() {
        let good = json!({"name": "p", "apiVersion": VERSIONS[0], "matchImages": ["a"], "defaultCacheDuration": "0s"});
        assert!(provider(&good).is_ok());
        for (field, value) in [
            ("name", json!("../p")),
            ("apiVersion", json!("v1")),
            ("matchImages", json!([])),
            ("defaultCacheDuration", json!(null)),
            ("tokenAttributes", json!({})),
        ] {
            let mut bad = good.clone();
            bad[field] = value;
            assert!(provider(&bad).is_err(), "{bad}");
        }
    }
}

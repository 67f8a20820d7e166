//! A request, taken apart: its path without the version, its query, its body within bounds.

use crate::answer::Result;
use crate::drain::Draining;
use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use percent_encoding::percent_decode_str;
use pintle_docker::DockerError;
use pintle_docker::model::without_nulls;
use serde::de::DeserializeOwned;
use std::collections::HashMap;

/// The largest JSON body, in bytes.
const MAX_BODY: usize = 4 << 20;
/// Pairs of a query that are read.
const MAX_PAIRS: usize = 256;

/// A request.
pub(crate) struct Call {
    pub(crate) method: Method,
    /// Minor version of the API that the client asked for.
    pub(crate) version: u32,
    pub(crate) path: String,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    upgrade: Option<OnUpgrade>,
    body: Option<Draining>,
}

impl Call {
    pub(crate) fn new(mut request: Request<Incoming>) -> Result<Self> {
        let path = percent_decode_str(request.uri().path()).decode_utf8_lossy().into_owned();
        let (version, path) = strip_version(&path)?;
        Ok(Self {
            method: request.method().clone(),
            version,
            path: path.trim_matches('/').to_owned(),
            query: Query::parse(request.uri().query().unwrap_or_default()),
            headers: request.headers().clone(),
            upgrade: Some(hyper::upgrade::on(&mut request)),
            body: Some(Draining::new(request.into_body())),
        })
    }

    /// The parts of the path.
    pub(crate) fn parts(&self) -> Vec<String> {
        self.path.split('/').map(str::to_owned).collect()
    }

    /// The body as it comes; it can be taken once.
    pub(crate) fn body(&mut self) -> Result<Draining> {
        self.body.take().ok_or_else(|| DockerError::internal("the request's body was taken already"))
    }

    /// What becomes of the connection after the answer; it can be taken once.
    pub(crate) fn upgrade(&mut self) -> Result<OnUpgrade> {
        self.upgrade.take().ok_or_else(|| DockerError::internal("the connection was taken already"))
    }

    /// Whether the client is ready for a stream in the place of HTTP.
    pub(crate) fn wants_upgrade(&self) -> bool {
        self.headers.contains_key(http::header::UPGRADE)
    }

    /// A small body whole.
    pub(crate) async fn bytes(&mut self) -> Result<Bytes> {
        let body = Limited::new(self.body()?, MAX_BODY).collect().await;
        let body = body.map_err(|e| DockerError::invalid(format!("failed to read the request's body: {e}")))?;
        Ok(body.to_bytes())
    }

    /// A small body of JSON; nothing is like `{}`.
    pub(crate) async fn json<T: DeserializeOwned + Default>(&mut self) -> Result<T> {
        let bytes = self.bytes().await?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(T::default());
        }
        let bad = |e: serde_json::Error| DockerError::invalid(format!("invalid JSON: {e}"));
        let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(bad)?;
        serde_json::from_value(without_nulls(value)).map_err(bad)
    }

    /// A header's text, empty when it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }
}

/// A request's query, decoded.
pub(crate) struct Query(HashMap<String, Vec<String>>);

impl Query {
    pub(crate) fn parse(text: &str) -> Self {
        let decode = |part: &str| percent_decode_str(&part.replace('+', " ")).decode_utf8_lossy().into_owned();
        let mut all: HashMap<String, Vec<String>> = HashMap::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()).take(MAX_PAIRS) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            all.entry(decode(key)).or_default().push(decode(value));
        }
        Self(all)
    }

    /// The first value of a key, empty when it is not there.
    pub(crate) fn get(&self, key: &str) -> &str {
        self.0.get(key).and_then(|v| v.first()).map(String::as_str).unwrap_or_default()
    }

    /// All values of a key.
    pub(crate) fn all(&self, key: &str) -> &[String] {
        self.0.get(key).map(Vec::as_slice).unwrap_or_default()
    }

    /// A flag as the Engine reads it: anything but nothing, `0`, `no`, `false` and `none` is true.
    pub(crate) fn flag(&self, key: &str) -> bool {
        !matches!(self.get(key).to_ascii_lowercase().as_str(), "" | "0" | "no" | "false" | "none")
    }

    /// The same of one that is true when it is not said.
    pub(crate) fn flag_or_true(&self, key: &str) -> bool {
        !self.0.contains_key(key) || self.flag(key)
    }

    /// A number, when one is said.
    pub(crate) fn number(&self, key: &str) -> Result<Option<i64>> {
        match self.get(key) {
            "" => Ok(None),
            text => {
                let bad = |_| DockerError::invalid(format!("strconv.Atoi: parsing {text:?}: invalid syntax"));
                text.parse().map(Some).map_err(bad)
            }
        }
    }

    /// `filters`: lists of values, also in the old form of maps.
    pub(crate) fn filters(&self) -> Result<HashMap<String, Vec<String>>> {
        let text = self.get("filters");
        if text.is_empty() {
            return Ok(HashMap::new());
        }
        let bad = || DockerError::invalid("invalid filter");
        let value: serde_json::Value = serde_json::from_str(text).map_err(|_| bad())?;
        let mut all = HashMap::new();
        for (key, values) in value.as_object().ok_or_else(bad)? {
            let list = match values {
                serde_json::Value::Array(items) => {
                    items.iter().map(|v| v.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>().ok_or_else(bad)?
                }
                serde_json::Value::Object(set) => set
                    .iter()
                    .filter(|(_, on)| **on != serde_json::Value::Bool(false))
                    .map(|(k, _)| k.clone())
                    .collect(),
                _ => return Err(bad()),
            };
            all.insert(key.clone(), list);
        }
        Ok(all)
    }
}

/// Takes `/v1.45` off a path, when it is a version that is spoken.
fn strip_version(path: &str) -> Result<(u32, &str)> {
    let minor = |text: &str| text.rsplit('.').next().and_then(|m| m.parse::<u32>().ok()).unwrap_or_default();
    let newest = minor(crate::API_VERSION);
    let Some((version, rest)) = path.strip_prefix("/v1.").map(|p| p.split_once('/').unwrap_or((p, ""))) else {
        return Ok((newest, path));
    };
    let asked = version.parse::<u32>();
    let asked = asked.map_err(|_| DockerError::invalid(format!("invalid version 1.{version}")))?;
    let (oldest, own) = (crate::MIN_API_VERSION, crate::API_VERSION);
    if asked < minor(oldest) {
        return Err(DockerError::invalid(format!(
            "client version 1.{asked} is too old. Minimum supported API version is {oldest}, please upgrade your \
             client to a newer version"
        )));
    }
    if asked > newest {
        return Err(DockerError::invalid(format!(
            "client version 1.{asked} is too new. Maximum supported API version is {own}"
        )));
    }
    Ok((asked, rest))
}

/// Whether the value of a filter is a truth value.
pub(crate) fn is_truth(text: &str) -> bool {
    matches!(text, "true" | "false" | "1" | "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_checked_and_taken_off() {
        assert_eq!(strip_version("/v1.45/images/json").unwrap(), (45, "images/json"));
        assert_eq!(strip_version("/_ping").unwrap().1, "/_ping");
        for (path, word) in [("/v1.12/x", "too old"), ("/v1.99/x", "too new"), ("/v1.x/x", "invalid")] {
            assert!(strip_version(path).unwrap_err().message.contains(word), "{path}");
        }
    }

    #[test]
    fn queries_are_decoded() {
        let query = Query::parse("repo=a%2Fb&tag=1&all=0&force&t=x&t=y");
        assert_eq!(
            (query.get("repo"), query.flag("tag"), query.flag("all"), query.flag("force")),
            ("a/b", true, false, false)
        );
        assert_eq!(query.all("t"), ["x", "y"]);
    }

    #[test]
    fn filters_come_in_two_forms() {
        for text in [r#"{"label":["a=b"]}"#, r#"{"label":{"a=b":true}}"#] {
            let encoded = percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC);
            let query = Query::parse(&format!("filters={encoded}"));
            assert_eq!(query.filters().unwrap()["label"], ["a=b"], "{text}");
        }
        assert!(Query::parse("filters=%7B").filters().is_err());
    }
}

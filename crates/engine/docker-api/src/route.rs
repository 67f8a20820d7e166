//! Which request is answered by what.

use crate::answer::{Answer, Failure, bytes, failure, value};
use crate::{API_VERSION, MIN_API_VERSION, State, containers, images};
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use serde_json::json;
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

/// A request's query, decoded; of a repeated key, the last.
pub(crate) struct Query(HashMap<String, String>);

impl Query {
    fn parse(text: &str) -> Self {
        let decode = |part: &str| percent_decode_str(&part.replace('+', " ")).decode_utf8_lossy().into_owned();
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).take(256);
        Self(
            pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(k, v)| (decode(k), decode(v))).collect(),
        )
    }
    pub(crate) fn get(&self, key: &str) -> &str {
        self.0.get(key).map(String::as_str).unwrap_or_default()
    }
    /// A flag as the Engine reads it: anything but nothing, `0`, `no`, `false` and `none` is true.
    pub(crate) fn flag(&self, key: &str) -> bool {
        !matches!(self.get(key).to_ascii_lowercase().as_str(), "" | "0" | "no" | "false" | "none")
    }
}

pub(crate) async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Answer, Infallible> {
    Ok(dispatch(&state, request).await.unwrap_or_else(failure))
}

async fn dispatch(state: &Arc<State>, request: Request<Incoming>) -> Result<Answer, Failure> {
    let path = percent_decode_str(request.uri().path()).decode_utf8_lossy().into_owned();
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let path = strip_version(&path)?;
    let method = request.method().clone();
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match (&method, parts.as_slice()) {
        (&Method::GET | &Method::HEAD, ["_ping"]) => Ok(bytes(StatusCode::OK, "text/plain; charset=utf-8", "OK")),
        (&Method::GET, ["version"]) => Ok(version()),
        (&Method::GET, ["images", "json"]) => Ok(images::list(state)),
        (&Method::POST, ["images", "load"]) => images::load(state, request.into_body()).await,
        (&Method::GET, ["images", name @ .., "json"]) => images::inspect(state, &name.join("/")),
        (&Method::POST, ["images", name @ .., "tag"]) => images::tag(state, name.join("/"), &query).await,
        (&Method::DELETE, ["images", name @ ..]) => images::remove(state, name.join("/")).await,
        (&Method::GET, ["containers", "json"]) => containers::list(state, &query).await,
        (&Method::GET, ["containers", id, "json"]) => containers::inspect(state, id).await,
        (&Method::GET, ["containers", id, "logs"]) => containers::logs(state, id, &query).await,
        _ => Err(Failure::unsupported(&format!("{method} {path}"))),
    }
}

/// Takes `/v1.45` off a path, when it is a version that is spoken.
fn strip_version(path: &str) -> Result<&str, Failure> {
    let Some((version, rest)) = path.strip_prefix("/v1.").map(|p| p.split_once('/').unwrap_or((p, ""))) else {
        return Ok(path);
    };
    let minor = |text: &str| text.rsplit('.').next().and_then(|m| m.parse::<u32>().ok()).unwrap_or_default();
    let asked = version.parse::<u32>().map_err(|_| Failure::bad_request(format!("invalid version 1.{version}")))?;
    if asked < minor(MIN_API_VERSION) {
        let message = format!(
            "client version 1.{asked} is too old. Minimum supported API version is {MIN_API_VERSION}, please upgrade your client to a newer version"
        );
        return Err(Failure::bad_request(message));
    }
    if asked > minor(API_VERSION) {
        let message = format!("client version 1.{asked} is too new. Maximum supported API version is {API_VERSION}");
        return Err(Failure::bad_request(message));
    }
    Ok(rest)
}

fn version() -> Answer {
    let own = env!("CARGO_PKG_VERSION");
    value(&json!({
        "Platform": { "Name": "pintle" },
        "Components": [{ "Name": "Engine", "Version": own, "Details": { "ApiVersion": API_VERSION, "MinAPIVersion": MIN_API_VERSION, "Os": "linux" } }],
        "Version": own,
        "ApiVersion": API_VERSION,
        "MinAPIVersion": MIN_API_VERSION,
        "Os": "linux",
        "Arch": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_checked_and_taken_off() {
        assert_eq!(strip_version("/v1.45/images/json").unwrap(), "images/json");
        assert_eq!(strip_version("/_ping").unwrap(), "/_ping");
        for (path, word) in [("/v1.12/x", "too old"), ("/v1.99/x", "too new"), ("/v1.x/x", "invalid")] {
            assert!(strip_version(path).unwrap_err().message.contains(word), "{path}");
        }
    }

    #[test]
    fn queries_are_decoded() {
        let query = Query::parse("repo=a%2Fb&tag=1&all=0&force");
        assert_eq!(
            (query.get("repo"), query.flag("tag"), query.flag("all"), query.flag("force")),
            ("a/b", true, false, false)
        );
    }
}

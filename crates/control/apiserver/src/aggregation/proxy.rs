//! Passes a request on to the server that answers its group and version, with the user in headers.
//!
//! Source: kube-aggregator's `handler_proxy.go`; RequestHeader authentication for the headers.

use crate::pipeline::{Call, RequestBody};
use crate::response::{self, Answer};
use crate::server::Server;
use crate::subresources::upgrade::{is_upgrade, join, passed_on};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use pintle_aggregator::{Address, Known};
use pintle_auth::User;
use pintle_client::{Body, BoxError, body_from, empty_body};

/// What a header's name can hold as it is.
const HEADER_KEY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'!').remove(b'~');

const REDIRECTED: &str = "the backend attempted to redirect this request, which is not permitted";

/// Passes a request on.
pub(crate) async fn proxy(call: &Call, known: &Known) -> Answer {
    if !known.is_available() {
        return Ok(unavailable("service unavailable"));
    }
    let remote = match &known.remote {
        Ok(remote) => remote,
        Err(error) => return Ok(response::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))),
    };
    let Some(address) = address(&call.server, known).await else { return Ok(unavailable("service unavailable")) };
    let upgrade = is_upgrade(&call.headers);
    let path = call.uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
    let mut request = Request::new(if upgrade { empty_body() } else { body_of(call) });
    *request.method_mut() = call.method.clone();
    *request.uri_mut() =
        path.parse().map_err(|e| Box::new(pintle_types::Status::bad_request(format!("the path: {e}"))))?;
    *request.headers_mut() = headers(call, upgrade);
    let sent =
        if upgrade { remote.send_upgrade(&address, request).await } else { remote.send(&address, request).await };
    let mut answer = match sent {
        Ok(answer) => answer,
        Err(error) => return Ok(unavailable(&format!("error trying to reach service: {error}"))),
    };
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return join(call, &mut answer);
    }
    // Clients would take what they show to this server to wherever another one sends them (CVE-2022-3172).
    if answer.status().is_redirection() && answer.headers().contains_key(http::header::LOCATION) {
        return Ok(response::text(StatusCode::BAD_GATEWAY, REDIRECTED));
    }
    let (mut parts, body) = answer.into_parts();
    parts.version = http::Version::HTTP_11;
    for name in ["connection", "keep-alive", "transfer-encoding", "upgrade"] {
        parts.headers.remove(name);
    }
    Ok(Response::from_parts(parts, Body::new(body.map_err(BoxError::from))))
}

fn unavailable(text: &str) -> Response<Body> {
    response::text(StatusCode::SERVICE_UNAVAILABLE, format!("{text}\n"))
}

/// Where the server of an APIService is now.
pub(super) async fn address(server: &Server, known: &Known) -> Option<Address> {
    let found = super::place(server, known.spec.service.as_ref()?).await;
    found
        .inspect_err(|error| tracing::debug!(api_service = known.spec.name, %error, "an APIService leads nowhere"))
        .ok()
}

fn body_of(call: &Call) -> Body {
    match call.take_body() {
        None => empty_body(),
        Some(RequestBody::Bytes(bytes)) => body_from(bytes),
        Some(RequestBody::Stream(stream)) => Body::new(stream.map_err(BoxError::from)),
    }
}

fn headers(call: &Call, upgrade: bool) -> HeaderMap {
    let mut headers = passed_on(&call.headers, upgrade);
    add_user(&mut headers, &call.user);
    if let Ok(value) = HeaderValue::from_str(call.uri.path()) {
        headers.insert("x-forwarded-uri", value);
    }
    if let Some(host) = call.headers.get(http::header::HOST) {
        headers.insert("x-forwarded-host", host.clone());
    }
    headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
    headers
}

/// Says who asks, as front proxies do.
pub(super) fn add_user(headers: &mut HeaderMap, user: &User) {
    let mut add = |name: String, value: &str| {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(value)) {
            headers.append(name, value);
        }
    };
    add("x-remote-user".into(), &user.name);
    if !user.uid.is_empty() {
        add("x-remote-uid".into(), &user.uid);
    }
    user.groups.iter().for_each(|group| add("x-remote-group".into(), group));
    for (key, values) in &user.extra {
        let name = format!("x-remote-extra-{}", utf8_percent_encode(key, HEADER_KEY)).to_lowercase();
        values.iter().for_each(|value| add(name.clone(), value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_told_in_headers() {
        let mut user = User::new("jo", &["a", "b"]);
        user.extra.insert("example.com/role".into(), vec!["x".into(), "y".into()]);
        let mut headers = HeaderMap::new();
        add_user(&mut headers, &user);
        let all = |name: &str| headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).collect::<Vec<_>>();
        assert_eq!(all("x-remote-user"), ["jo"]);
        assert_eq!(all("x-remote-group"), ["a", "b", "system:authenticated"]);
        assert_eq!(all("x-remote-extra-example.com%2frole"), ["x", "y"]);
        assert!(all("x-remote-uid").is_empty());
    }
}

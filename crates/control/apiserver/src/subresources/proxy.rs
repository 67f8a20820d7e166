//! `proxy` of pods, services and nodes: a request passed on to a pod, to a pod behind a service, or to a kubelet.
//!
//! The address is worked out once, checked, and that very address is dialled (CVE-2020-8562).

use super::connect;
use super::kubelet::{self, unreachable};
use super::rewrite::Rewriter;
use super::upgrade::{is_upgrade, pass, passed_on};
use crate::pipeline::{Call, RequestBody};
use crate::resources::Target;
use crate::response::Answer;
use http::header::{HOST, LOCATION};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::client::conn::http1::SendRequest;
use pintle_client::{Body, BoxError, body_from, empty_body};
use pintle_registry::GetOptions;
use pintle_types::{Reason, Status};
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};

/// Tells what is behind where it seems to be.
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

pub(super) async fn proxy(target: &Target<'_>) -> Answer {
    let path = target.path.rest.as_ref().map(|rest| format!("/{rest}")).unwrap_or_default();
    let options = if path.is_empty() { json!({}) } else { json!({"path": path}) };
    connect::admit(target, options).await?;
    let call = target.call;
    let is_read = matches!(call.method, Method::GET | Method::HEAD);
    if target.path.rest.is_none() && is_read && !is_upgrade(&call.headers) {
        return with_slash(call);
    }
    let (address, backend) = match &*target.def.resource {
        "nodes" => to_node(target).await?,
        "pods" => open(target, pod_address(target).await?).await?,
        _ => open(target, service_address(target).await?).await?,
    };
    let path = path_behind(target);
    let uri = call.uri.query().map_or_else(|| path.clone(), |query| format!("{path}?{query}"));
    if is_upgrade(&call.headers) {
        return pass(call, backend, address, &uri).await;
    }
    let asked = asked_host(call);
    let rewriter = Rewriter::new(call.uri.path(), &path, address, &asked);
    let host = if asked.is_empty() { address.to_string() } else { asked };
    let answer = forward(call, backend, address, (&host, &uri)).await?;
    rewriter.answer(answer, call.method == Method::HEAD, address).await
}

/// The path of the request behind the proxy, with the slash at its end if the client gave one.
fn path_behind(target: &Target<'_>) -> String {
    let mut path = format!("/{}", target.path.rest.as_deref().unwrap_or_default());
    if target.call.uri.path().ends_with('/') && !path.ends_with('/') {
        path.push('/');
    }
    path
}

/// The host that the client asked, which is told to what is behind; empty where it named none.
fn asked_host(call: &Call) -> String {
    let header = call.headers.get(HOST).and_then(|value| value.to_str().ok());
    header.or_else(|| call.uri.authority().map(|authority| authority.as_str())).unwrap_or_default().to_owned()
}

/// Relative links of the page behind need the slash.
fn with_slash(call: &Call) -> Answer {
    let mut location = format!("{}/", call.uri.path());
    if let Some(query) = call.uri.query() {
        location = format!("{location}?{query}");
    }
    let mut response = Response::new(empty_body());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(value) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(LOCATION, value);
    }
    Ok(response)
}

/// Scheme, name and port of `name`, `name:port` or `scheme:name:port`.
fn parts_of(text: &str) -> Result<(&str, &str, &str), Box<Status>> {
    let parts: Vec<&str> = text.split(':').collect();
    match parts.as_slice() {
        [name] => Ok(("", name, "")),
        [name, port] => Ok(("", name, port)),
        [scheme @ ("" | "http" | "https"), name, port] => Ok((scheme, name, port)),
        _ => Err(Box::new(Status::bad_request(format!("invalid request {text:?}: not scheme:name:port")))),
    }
}

/// What is behind: its address, and a connection to it.
type Backend = (SocketAddr, SendRequest<Body>);

/// Connects to what the address and the scheme of the name say. Nobody knows whose certificates those have, so upstream
/// believes any, too.
async fn open(target: &Target<'_>, address: SocketAddr) -> Result<Backend, Box<Status>> {
    let server = &target.call.server;
    let stream = kubelet::dial(address).await?;
    let (scheme, ..) = parts_of(&target.path.name)?;
    if scheme != "https" {
        return Ok((address, kubelet::speak(server, address, stream).await?));
    }
    let config = pintle_pki::client_config_unverified_http1().map_err(|e| unreachable(address, e))?;
    let stream = kubelet::encrypted(address, config, stream).await?;
    Ok((address, kubelet::speak(server, address, stream).await?))
}

/// The kubelet of a node, or whatever else listens on another port of it.
async fn to_node(target: &Target<'_>) -> Result<Backend, Box<Status>> {
    let (_, name, port) = parts_of(&target.path.name)?;
    let kubelet = kubelet::address_of(&target.call.server, name).await?;
    let port = if port.is_empty() { kubelet.port() } else { number(port)? };
    if port == kubelet.port() {
        return Ok((kubelet, kubelet::connect(&target.call.server, kubelet).await?));
    }
    open(target, SocketAddr::new(allowed(kubelet.ip())?, port)).await
}

fn number(port: &str) -> Result<u16, Box<Status>> {
    port.parse().map_err(|_| Box::new(Status::bad_request(format!("invalid port {port:?}"))))
}

/// Addresses of this machine and its link are not for clients of the API to reach.
fn allowed(address: IpAddr) -> Result<IpAddr, Box<Status>> {
    let link_local = match address {
        IpAddr::V4(a) => a.is_link_local() || a.is_broadcast(),
        IpAddr::V6(a) => a.segments()[0] & 0xffc0 == 0xfe80,
    };
    if address.is_loopback() || address.is_unspecified() || address.is_multicast() || link_local {
        return Err(Box::new(Status::bad_request("address not allowed")));
    }
    Ok(address)
}

async fn pod_address(target: &Target<'_>) -> Result<SocketAddr, Box<Status>> {
    let (_, name, port) = parts_of(&target.path.name)?;
    let pod = target.call.server.core_object("pods", &target.path.namespace, name).await?;
    let address = pod["status"]["podIP"].as_str().and_then(|a| a.parse().ok());
    let address = address.ok_or_else(|| Box::new(Status::bad_request("address not allowed")))?;
    let first = pod["spec"]["containers"].as_array().into_iter().flatten();
    let declared = first.filter_map(|c| c["ports"][0]["containerPort"].as_u64()).next();
    let port = match port {
        "" => declared.and_then(|p| u16::try_from(p).ok()).unwrap_or(80),
        text => number(text)?,
    };
    Ok(SocketAddr::new(allowed(address)?, port))
}

async fn service_address(target: &Target<'_>) -> Result<SocketAddr, Box<Status>> {
    let (_, name, port) = parts_of(&target.path.name)?;
    let server = &target.call.server;
    let ns = &target.path.namespace;
    let service = server.core_object("services", ns, name).await?;
    let unavailable = |message: String| Box::new(Status::failure(503, Reason::ServiceUnavailable, message));
    let port_name = service_port(&service, port)
        .ok_or_else(|| unavailable(format!("no service port {port:?} found for service {name:?}")))?;
    let none = || unavailable(format!("no endpoints available for service {name:?}"));
    let table = server.registry.table();
    let endpoints = table.get("", "v1", "endpoints").ok_or_else(|| Box::new(Status::no_such_resource()))?;
    let endpoints = server.registry.get(endpoints, ns, name, &GetOptions::default()).await.map_err(|_| none())?;
    ready_address(&endpoints.to_value(), &port_name).ok_or_else(none).and_then(|a| {
        allowed(a.ip())?;
        Ok(a)
    })
}

/// The name of the port that is meant: by name or number, or the only one.
fn service_port(service: &Value, wanted: &str) -> Option<String> {
    let ports = service["spec"]["ports"].as_array()?;
    let name = |p: &Value| p["name"].as_str().unwrap_or_default().to_owned();
    if wanted.is_empty() {
        return ports.iter().find(|p| p["name"].is_null() || ports.len() == 1).map(name);
    }
    ports.iter().find(|p| p["name"] == wanted || p["port"].as_u64() == wanted.parse().ok()).map(name)
}

/// Any ready address, so that requests spread over the pods.
fn ready_address(endpoints: &Value, port_name: &str) -> Option<SocketAddr> {
    let subsets = endpoints["subsets"].as_array()?;
    let mut found = Vec::new();
    for subset in subsets {
        let ports = subset["ports"].as_array().into_iter().flatten();
        let port =
            ports.filter(|p| p["name"].as_str().unwrap_or_default() == port_name).find_map(|p| p["port"].as_u64());
        let Some(port) = port.and_then(|p| u16::try_from(p).ok()) else { continue };
        let addresses = subset["addresses"].as_array().into_iter().flatten();
        found.extend(addresses.filter_map(|a| a["ip"].as_str()?.parse().ok()).map(|ip| SocketAddr::new(ip, port)));
    }
    if found.is_empty() { None } else { Some(found[rand::random_range(0..found.len())]) }
}

/// Sends the request on and the answer back, both as streams.
async fn forward(
    call: &Call,
    mut backend: SendRequest<Body>,
    address: SocketAddr,
    (host, uri): (&str, &str),
) -> Answer {
    let body = match call.take_body() {
        None => empty_body(),
        Some(RequestBody::Bytes(bytes)) => body_from(bytes),
        Some(RequestBody::Stream(stream)) => Body::new(stream.map_err(BoxError::from)),
    };
    let mut request = Request::new(body);
    *request.method_mut() = call.method.clone();
    *request.uri_mut() = uri.parse().map_err(|e| Box::new(Status::bad_request(format!("the path: {e}"))))?;
    *request.headers_mut() = passed_on(&call.headers, false);
    for (name, value) in [(HOST, host), (FORWARDED_URI, call.uri.path())] {
        if let Ok(value) = HeaderValue::from_str(value) {
            request.headers_mut().insert(name, value);
        }
    }
    let answer = backend.send_request(request).await.map_err(|e| unreachable(address, e))?;
    let (mut parts, body) = answer.into_parts();
    for name in ["connection", "keep-alive", "transfer-encoding", "upgrade"] {
        parts.headers.remove(name);
    }
    let body = body.map_err(move |e| {
        let _alive = &backend;
        BoxError::from(e)
    });
    Ok(Response::from_parts(parts, Body::new(body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_carry_scheme_and_port() {
        assert_eq!(parts_of("a").unwrap(), ("", "a", ""));
        assert_eq!(parts_of("a:http").unwrap(), ("", "a", "http"));
        assert_eq!(parts_of("https:a:443").unwrap(), ("https", "a", "443"));
        assert!(parts_of("ftp:a:1").is_err());
    }

    #[test]
    fn only_ready_addresses_of_the_port_are_used() {
        let endpoints = json!({"subsets": [
            {"addresses": [{"ip": "10.0.0.1"}], "ports": [{"name": "web", "port": 80}]},
            {"notReadyAddresses": [{"ip": "10.0.0.2"}], "ports": [{"name": "web", "port": 80}]},
        ]});
        assert_eq!(ready_address(&endpoints, "web"), Some("10.0.0.1:80".parse().unwrap()));
        assert_eq!(ready_address(&endpoints, "other"), None);
        assert!(allowed("127.0.0.1".parse().unwrap()).is_err());
        assert!(allowed("169.254.169.254".parse().unwrap()).is_err());
        assert!(allowed("10.42.0.5".parse().unwrap()).is_ok());
    }
}

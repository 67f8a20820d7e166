//! HTTP requests as probes and hooks make them: no proxy, no verification of certificates, few redirects.

use super::tcp;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use pintle_types::k8s::api::core::v1::{Container, HTTPGetAction};
use pintle_types::k8s::apimachinery::pkg::util::intstr::IntOrString;
use rustls::pki_types::ServerName;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

const MAX_BODY_BYTES: usize = 10 * 1024;
const MAX_REDIRECTS: usize = 10;

/// What to ask.
#[derive(Clone, Debug)]
pub struct Target {
    tls: bool,
    host: String,
    port: u16,
    path: String,
    headers: Vec<(String, String)>,
}

impl Target {
    /// From an action; `pod_ip` is asked when it names no host.
    pub fn of_action(action: &HTTPGetAction, container: &Container, pod_ip: &str, agent: &str) -> Result<Self, String> {
        let host = action.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(pod_ip);
        let path = action.path.as_deref().unwrap_or("/");
        let mut headers: Vec<(String, String)> =
            action.http_headers.iter().flatten().map(|h| (h.name.clone(), h.value.clone())).collect();
        let has = |name: &str| headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
        let (agent_set, accept_set) = (has("user-agent"), has("accept"));
        if !agent_set {
            headers.push(("User-Agent".into(), agent.to_owned()));
        }
        if !accept_set {
            headers.push(("Accept".into(), "*/*".into()));
        }
        Ok(Self {
            tls: action.scheme.as_deref().is_some_and(|s| s.eq_ignore_ascii_case("https")),
            host: host.to_owned(),
            port: port(&action.port, container)?,
            path: if path.starts_with('/') { path.to_owned() } else { format!("/{path}") },
            headers,
        })
    }

    fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{}", tcp::authority(&self.host, self.port), self.path)
    }
}

/// A port by number, or by the name that the container gives it.
pub fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named =
                container.ports.iter().flatten().find(|p| p.name.as_ref() == Some(name)).map(|p| p.container_port);
            Some(named.or_else(|| name.parse().ok()).ok_or_else(|| format!("couldn't find port: {name:?}"))?)
        }
    };
    number.and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0).ok_or_else(|| "invalid port number".into())
}

/// Asks, follows redirects on the same host, and judges the answer: 200 to 399 is success.
pub async fn get(target: &Target, timeout: Duration) -> Result<String, String> {
    let url = target.url();
    let asked = tokio::time::timeout(timeout, follow(target.clone(), timeout)).await;
    match asked {
        Err(_) => Err(tcp::timed_out(&format!("Get {url:?}"))),
        Ok(Err(error)) => Err(format!("Get {url:?}: {error}")),
        Ok(Ok((status, body))) if (200..400).contains(&status.as_u16()) => Ok(body),
        Ok(Ok((status, _))) => Err(format!("HTTP probe failed with statuscode: {}", status.as_u16())),
    }
}

async fn follow(mut target: Target, timeout: Duration) -> Result<(StatusCode, String), String> {
    for _ in 0..MAX_REDIRECTS {
        let (status, location, body) = once(&target, timeout).await?;
        let next = location.filter(|_| status.is_redirection());
        match next.and_then(|location| redirected(&target, &location)) {
            Some(next) => target = next,
            // A redirect to somewhere else is taken as a sign of life.
            None => return Ok((status, body)),
        }
    }
    Err("stopped after 10 redirects".into())
}

fn redirected(from: &Target, location: &str) -> Option<Target> {
    let uri: http::Uri = location.parse().ok()?;
    let path = uri.path_and_query().map(ToString::to_string).unwrap_or_else(|| "/".into());
    let mut next = Target { path, ..from.clone() };
    if let Some(host) = uri.host() {
        next.tls = uri.scheme_str() == Some("https");
        next.port = uri.port_u16().unwrap_or(if next.tls { 443 } else { 80 });
        if host.trim_matches(['[', ']']) != from.host {
            return None;
        }
    }
    Some(next)
}

async fn once(target: &Target, timeout: Duration) -> Result<(StatusCode, Option<String>, String), String> {
    let stream = tcp::connect(&target.host, target.port, timeout).await?;
    if !target.tls {
        return exchange(TokioIo::new(stream), target).await;
    }
    let name = ServerName::try_from(target.host.clone()).map_err(|e| e.to_string())?;
    let connector = tokio_rustls::TlsConnector::from(unverified()?);
    let stream = connector.connect(name, stream).await.map_err(|e| e.to_string())?;
    exchange(TokioIo::new(stream), target).await
}

async fn exchange<S>(io: TokioIo<S>, target: &Target) -> Result<(StatusCode, Option<String>, String), String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.map_err(|e| e.to_string())?;
    let answer = async {
        let response = sender.send_request(request(target)?).await.map_err(|e| e.to_string())?;
        let status = response.status();
        let location = response.headers().get(header::LOCATION).and_then(|l| l.to_str().ok()).map(str::to_owned);
        let body = Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await;
        // A body that is too long to show still is an answer.
        let body = body.map(|b| String::from_utf8_lossy(&b.to_bytes()).into_owned()).unwrap_or_default();
        Ok((status, location, body))
    };
    tokio::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => return answer,
        // The answer may be complete before the connection's end is noticed, and is still to be read then.
        _ = connection => {}
    }
    answer.await
}

fn request(target: &Target) -> Result<Request<Empty<Bytes>>, String> {
    let mut request = Request::get(&target.path);
    let mut host = tcp::authority(&target.host, target.port);
    for (name, value) in &target.headers {
        if name.eq_ignore_ascii_case("host") {
            host.clone_from(value);
            continue;
        }
        let name: HeaderName = name.parse().map_err(|_| format!("invalid header name {name:?}"))?;
        let value: HeaderValue = value.parse().map_err(|_| format!("invalid value of header {name}"))?;
        request = request.header(name, value);
    }
    request.header(header::HOST, host).header(header::CONNECTION, "close").body(Empty::new()).map_err(|e| e.to_string())
}

/// TLS settings that take any certificate: a probe asks whether the server lives, not who it is.
fn unverified() -> Result<Arc<rustls::ClientConfig>, String> {
    static CONFIG: OnceLock<Result<Arc<rustls::ClientConfig>, String>> = OnceLock::new();
    CONFIG.get_or_init(|| pintle_pki::client_config_unverified_http1().map_err(|e| e.to_string())).clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn server(answer: &'static str) -> u16 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut buffer = [0; 1024];
                let _read = stream.read(&mut buffer).await;
                let _written = stream.write_all(answer.as_bytes()).await;
            }
        });
        port
    }

    fn target(port: u16) -> Target {
        let action = HTTPGetAction { port: IntOrString::Int(port.into()), ..Default::default() };
        Target::of_action(&action, &Container::default(), "127.0.0.1", "kube-probe/1.36").unwrap()
    }

    #[tokio::test]
    async fn answers_are_judged_by_their_code() {
        let ok = server("HTTP/1.1 204 No Content\r\n\r\n").await;
        assert_eq!(get(&target(ok), Duration::from_secs(5)).await, Ok(String::new()));
        let bad = server("HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n").await;
        let error = get(&target(bad), Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(error, "HTTP probe failed with statuscode: 500");
    }

    #[tokio::test]
    async fn a_refused_connection_reads_as_in_go() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let error = get(&target(port), Duration::from_secs(5)).await.unwrap_err();
        let to = format!("127.0.0.1:{port}");
        assert_eq!(error, format!("Get \"http://{to}/\": dial tcp {to}: connect: connection refused"));
    }

    #[test]
    fn ports_may_be_named() {
        let container: Container =
            serde_json::from_value(serde_json::json!({"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}))
                .unwrap();
        assert_eq!(port(&IntOrString::String("web".into()), &container), Ok(8080));
        assert!(port(&IntOrString::String("none".into()), &container).is_err());
        assert!(port(&IntOrString::Int(0), &container).is_err());
    }
}

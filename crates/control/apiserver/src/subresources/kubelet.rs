//! Connections to kubelets: where a node's kubelet listens, and a fresh TLS connection to it.

use crate::server::Server;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use pintle_client::Body;
use pintle_types::{Reason, Status};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Where a kubelet listens unless its node says otherwise.
const DEFAULT_PORT: u16 = 10250;
/// A node that is gone must not hold a request for longer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The path and query of a request to a kubelet or a pod.
pub(super) fn path_and_query(path: &str, query: &[(String, String)]) -> String {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    let encoded = |s: &str| utf8_percent_encode(s, NON_ALPHANUMERIC).to_string();
    let pairs: Vec<String> = query.iter().map(|(k, v)| format!("{}={}", encoded(k), encoded(v))).collect();
    if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", pairs.join("&")) }
}

/// What could not be reached, in the words that kubectl's users know from upstream.
pub(super) fn unreachable(address: SocketAddr, why: impl std::fmt::Display) -> Box<Status> {
    Box::new(Status::failure(500, Reason::InternalError, format!("error dialing backend: dial tcp {address}: {why}")))
}

/// The address of the kubelet of a node.
pub(crate) async fn address_of(server: &Server, node: &str) -> Result<SocketAddr, Box<Status>> {
    let node_object = server.core_object("nodes", "", node).await?;
    let status = &node_object["status"];
    let addresses = status["addresses"].as_array().map(Vec::as_slice).unwrap_or_default();
    let internal = addresses.iter().find(|a| a["type"] == "InternalIP").and_then(|a| a["address"].as_str());
    let none = || {
        let message = format!("no preferred addresses found; known addresses: {}", status["addresses"]);
        Box::new(Status::internal(message))
    };
    let address: IpAddr = internal.and_then(|a| a.parse().ok()).ok_or_else(none)?;
    if address.is_unspecified() || address.is_multicast() {
        return Err(Box::new(Status::bad_request("address not allowed")));
    }
    Ok(SocketAddr::new(address, port_of(status)))
}

fn port_of(status: &Value) -> u16 {
    let port = status["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64();
    port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0).unwrap_or(DEFAULT_PORT)
}

/// Opens a TCP connection, or says why not.
pub(super) async fn dial(address: SocketAddr) -> Result<TcpStream, Box<Status>> {
    match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => {
            // Keystrokes should not wait for each other; a socket without the option works all the same.
            let _ = stream.set_nodelay(true);
            Ok(stream)
        }
        Ok(Err(e)) => Err(unreachable(address, e)),
        Err(_) => Err(unreachable(address, "i/o timeout")),
    }
}

/// Sends HTTP/1.1 requests on a connection of its own to the kubelet of a node, whose certificate is checked.
pub(crate) async fn connect(server: &Server, address: SocketAddr) -> Result<http1::SendRequest<Body>, Box<Status>> {
    let Some(tls) = &server.config.kubelet_tls else {
        let message = "this server has no certificate to show to kubelets";
        return Err(Box::new(Status::failure(503, Reason::ServiceUnavailable, message)));
    };
    let stream = encrypted(address, tls.clone(), dial(address).await?).await?;
    speak(server, address, stream).await
}

/// Begins TLS on an open connection.
pub(super) async fn encrypted(
    address: SocketAddr,
    config: Arc<ClientConfig>,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, Box<Status>> {
    let name = ServerName::IpAddress(address.ip().into());
    tokio::time::timeout(CONNECT_TIMEOUT, TlsConnector::from(config).connect(name, stream))
        .await
        .map_err(|_| unreachable(address, "TLS handshake timeout"))?
        .map_err(|e| unreachable(address, e))
}

/// Speaks HTTP/1.1 on an open connection; the connection's work is done by a task that ends with it.
pub(super) async fn speak<S>(
    server: &Server,
    address: SocketAddr,
    stream: S,
) -> Result<http1::SendRequest<Body>, Box<Status>>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| unreachable(address, e))?;
    server.tasks.spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%address, %error, "a proxied connection ended with an error");
        }
    });
    Ok(sender)
}

//! The way to one other server: TLS, one shared HTTP/2 connection, or HTTP/1.1 connections that serve one request after
//! the other.

use crate::place::Address;
use bytes::Bytes;
use http::{Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use pintle_client::Body;
use pintle_pki::{AnyServer, Identity};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

/// A server that is gone must not hold a request for longer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Idle shared connections are asked for a sign of life, so that a vanished server is noticed.
const PING: Duration = Duration::from_secs(30);
/// What the machine itself trusts, where distributions put it.
const MACHINE_TRUST: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Whose certificates are believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Authorities in PEM.
    Bundle(Vec<u8>),
    /// The authorities that the machine trusts.
    Machine,
    /// Any certificate will do: `insecureSkipTLSVerify`.
    Nobody,
}

/// Why a server can't be asked.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    #[error("{0}")]
    Trust(String),
    #[error("dial tcp {address}: {why}")]
    Dial { address: String, why: String },
    #[error("tls: {0}")]
    Tls(String),
    #[error("{0}")]
    Exchange(String),
}

/// A server, and the connection to it that requests share.
pub struct Remote {
    host: String,
    shared_tls: TlsConnector,
    plain_tls: TlsConnector,
    shared: Mutex<Option<(Address, http2::SendRequest<Body>)>>,
    /// Connections to servers that speak HTTP/1.1 only, between two requests.
    idle: Mutex<Vec<Idle>>,
}

/// A connection that waits for its next request.
struct Idle {
    at: Address,
    sender: http1::SendRequest<Body>,
    since: Instant,
}

/// Go's servers keep idle connections for two minutes; whoever keeps them longer finds them closed.
const MAX_IDLE: Duration = Duration::from_secs(60);
const MAX_IDLE_CONNECTIONS: usize = 8;

type Stream = tokio_rustls::client::TlsStream<TcpStream>;

impl Remote {
    /// `host` is the name that the certificate must have.
    pub fn new(host: &str, trust: &Trust, identity: Option<&Identity>) -> Result<Self, RemoteError> {
        let config = tls(trust, identity)?;
        let with = |protocols: &[&[u8]]| {
            let mut config = config.clone();
            config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
            TlsConnector::from(Arc::new(config))
        };
        let (shared_tls, plain_tls) = (with(&[b"h2", b"http/1.1"]), with(&[b"http/1.1"]));
        Ok(Self { host: host.to_owned(), shared_tls, plain_tls, shared: Mutex::new(None), idle: Mutex::default() })
    }

    /// The name that is asked for.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Sends a request whose URI is a path; the answer's body is a stream.
    pub async fn send(&self, at: &Address, request: Request<Body>) -> Result<Response<Incoming>, RemoteError> {
        Ok(self.exchange(at, request).await?.0)
    }

    /// The answer, with its connection if that can serve another request once the answer is read.
    async fn exchange(
        &self,
        at: &Address,
        request: Request<Body>,
    ) -> Result<(Response<Incoming>, Option<http1::SendRequest<Body>>), RemoteError> {
        let kept = self.shared.lock().clone().filter(|(address, sender)| address == at && !sender.is_closed());
        if let Some((_, mut sender)) = kept
            && sender.ready().await.is_ok()
        {
            let answer = sender.send_request(self.addressed(request, true)).await.map_err(exchange)?;
            return Ok((answer, None));
        }
        let mut request = request;
        while let Some(mut sender) = self.take_idle(at).await {
            match sender.try_send_request(self.addressed(request, false)).await {
                Ok(answer) => return Ok((answer, Some(sender))),
                // It was closed before the request went out: another connection takes it.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(exchange(error.into_error())),
                },
            }
        }
        let stream = self.connect(at, &self.shared_tls).await?;
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            let mut sender = plain(stream).await?;
            let answer = sender.send_request(self.addressed(request, false)).await.map_err(exchange)?;
            return Ok((answer, Some(sender)));
        }
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).keep_alive_interval(PING).adaptive_window(true);
        let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(exchange)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a shared connection to another API server ended");
            }
        });
        *self.shared.lock() = Some((at.clone(), sender.clone()));
        Ok((sender.send_request(self.addressed(request, true)).await.map_err(exchange)?, None))
    }

    /// A connection that is ready for a request; those that were closed meanwhile are forgotten.
    async fn take_idle(&self, at: &Address) -> Option<http1::SendRequest<Body>> {
        loop {
            let mut sender = {
                let mut idle = self.idle.lock();
                idle.retain(|kept| !kept.sender.is_closed() && kept.since.elapsed() < MAX_IDLE);
                let place = idle.iter().rposition(|kept| kept.at == *at)?;
                idle.swap_remove(place).sender
            };
            if sender.ready().await.is_ok() {
                return Some(sender);
            }
        }
    }

    fn keep_idle(&self, at: &Address, sender: http1::SendRequest<Body>) {
        let mut idle = self.idle.lock();
        if idle.len() < MAX_IDLE_CONNECTIONS && !sender.is_closed() {
            idle.push(Idle { at: at.clone(), sender, since: Instant::now() });
        }
    }

    /// Sends a request that may change the protocol of its connection.
    pub async fn send_upgrade(&self, at: &Address, request: Request<Body>) -> Result<Response<Incoming>, RemoteError> {
        let stream = self.connect(at, &self.plain_tls).await?;
        plain(stream).await?.send_request(self.addressed(request, false)).await.map_err(exchange)
    }

    /// HTTP/2 wants the host in the URI, HTTP/1.1 in a header.
    fn addressed(&self, mut request: Request<Body>, shared: bool) -> Request<Body> {
        let path = request.uri().path_and_query().map_or("/", |p| p.as_str()).to_owned();
        request.headers_mut().remove(http::header::HOST);
        if shared {
            *request.version_mut() = Version::HTTP_2;
            if let Ok(uri) = format!("https://{}{path}", self.host).parse::<Uri>() {
                *request.uri_mut() = uri;
            }
        } else {
            *request.version_mut() = Version::HTTP_11;
            if let Ok(host) = self.host.parse() {
                request.headers_mut().insert(http::header::HOST, host);
            }
        }
        request
    }

    async fn connect(&self, at: &Address, tls: &TlsConnector) -> Result<Stream, RemoteError> {
        let failed = |why: String| RemoteError::Dial { address: at.to_string(), why };
        let connecting = async {
            match at {
                Address::Socket(address) => TcpStream::connect(address).await,
                Address::Name(name, port) => TcpStream::connect((name.as_str(), *port)).await,
            }
        };
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
        let stream = stream.map_err(|_| failed("i/o timeout".into()))?.map_err(|e| failed(connect_error(&e)))?;
        // Small requests should not wait for each other; a socket without the option works all the same.
        let _ = stream.set_nodelay(true);
        let name = ServerName::try_from(self.host.clone()).map_err(|e| RemoteError::Tls(e.to_string()))?;
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, tls.connect(name, stream)).await;
        stream
            .map_err(|_| RemoteError::Tls("handshake timeout".into()))?
            .map_err(|e| RemoteError::Tls(format!("failed to verify certificate: {e}")))
    }
}

/// Speaks HTTP/1.1 on a connection, which lives as long as there is a sender or an answer.
async fn plain(stream: Stream) -> Result<http1::SendRequest<Body>, RemoteError> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(exchange)?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a connection to another API server ended");
        }
    });
    Ok(sender)
}

fn exchange(error: hyper::Error) -> RemoteError {
    RemoteError::Exchange(error.to_string())
}

/// As Go names what the system says.
fn connect_error(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connect: connection refused".into(),
        std::io::ErrorKind::HostUnreachable => "connect: no route to host".into(),
        std::io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".into(),
        std::io::ErrorKind::TimedOut => "i/o timeout".into(),
        _ => error.to_string(),
    }
}

fn tls(trust: &Trust, identity: Option<&Identity>) -> Result<ClientConfig, RemoteError> {
    let refused = |e: pintle_pki::Error| RemoteError::Trust(e.to_string());
    let pem = match trust {
        Trust::Bundle(pem) => String::from_utf8_lossy(pem).into_owned(),
        Trust::Machine => machine_trust()?,
        Trust::Nobody => return unverified(identity),
    };
    let config = pintle_pki::client_config_http1(&pem, identity).map_err(refused)?;
    Ok(Arc::unwrap_or_clone(config))
}

fn machine_trust() -> Result<String, RemoteError> {
    let found = MACHINE_TRUST.iter().find_map(|path| std::fs::read_to_string(path).ok());
    found.ok_or_else(|| RemoteError::Trust("this machine has no file of trusted authorities; set a caBundle".into()))
}

fn unverified(identity: Option<&Identity>) -> Result<ClientConfig, RemoteError> {
    let refused = |e: &dyn std::fmt::Display| RemoteError::Trust(e.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| refused(&e))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer));
    let Some(identity) = identity else { return Ok(builder.with_no_client_auth()) };
    let chain = identity.chain().map_err(|e| refused(&e))?;
    let key = identity.key().map_err(|e| refused(&e))?;
    builder.with_client_auth_cert(chain, key).map_err(|e| refused(&e))
}

impl Remote {
    /// Asks for a small document and reads it whole, within `limit` bytes and `patience`.
    pub async fn fetch(
        &self,
        at: &Address,
        request: Request<Body>,
        limit: usize,
        patience: Duration,
    ) -> Result<Response<Bytes>, RemoteError> {
        use http_body_util::{BodyExt, Limited};
        let whole = async {
            let (answer, connection) = self.exchange(at, request).await?;
            let (parts, body) = answer.into_parts();
            let read = Limited::new(body, limit).collect().await;
            let bytes = read.map_err(|e| RemoteError::Exchange(e.to_string()))?.to_bytes();
            if let Some(connection) = connection {
                self.keep_idle(at, connection);
            }
            Ok(Response::from_parts(parts, bytes))
        };
        match tokio::time::timeout(patience, whole).await {
            Ok(answer) => answer,
            Err(_) => Err(RemoteError::Exchange("context deadline exceeded".into())),
        }
    }
}

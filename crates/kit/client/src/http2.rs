//! Requests over one HTTP/2 connection, made anew when it breaks.

use crate::transport::{Body, Transport, TransportError};
use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderValue};
use http::uri::{Authority, Scheme, Uri};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use std::path::PathBuf;
use std::sync::{Arc, Mutex as SyncMutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a token read from a file is used before the file is read again: bound tokens are replaced in place.
const TOKEN_LIFETIME: Duration = Duration::from_secs(60);

/// The bearer token that says who asks.
#[derive(Clone, Debug)]
pub enum Token {
    Fixed(String),
    /// Read again every minute.
    File(PathBuf),
}

/// Where the server is, and how to be sure of it.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// Scheme, host and port: `https://10.0.0.1:6443`.
    pub server: Uri,
    /// Trust and client certificate; needed for `https`.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// The name that the server's certificate must have; the host of `server` when absent.
    pub server_name: Option<String>,
    pub token: Option<Token>,
}

/// A [`Transport`] over the network.
pub struct HttpTransport {
    endpoint: Endpoint,
    connection: Mutex<Option<SendRequest<Full<Bytes>>>>,
    token: Option<TokenSource>,
}

struct Endpoint {
    scheme: Scheme,
    authority: Authority,
    host: String,
    port: u16,
    tls: Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>,
}

impl HttpTransport {
    /// Checks the settings; connects at the first request.
    pub fn new(config: HttpConfig) -> Result<Self, TransportError> {
        let endpoint = Endpoint::new(&config)?;
        let token = config.token.map(|token| TokenSource { token, read: SyncMutex::new(None) });
        Ok(Self { endpoint, connection: Mutex::new(None), token })
    }

    /// The connection to use: the present one, or a new one.
    async fn connection(&self) -> Result<SendRequest<Full<Bytes>>, TransportError> {
        let mut slot = self.connection.lock().await;
        if let Some(sender) = slot.as_ref()
            && !sender.is_closed()
        {
            return Ok(sender.clone());
        }
        let sender = match timeout(CONNECT_TIMEOUT, self.endpoint.connect()).await {
            Ok(sender) => sender?,
            Err(_) => {
                let authority = &self.endpoint.authority;
                return Err(TransportError::new(format!("{authority}: no connection within {CONNECT_TIMEOUT:?}")));
            }
        };
        *slot = Some(sender.clone());
        Ok(sender)
    }

    fn complete(&self, request: &mut Request<Bytes>) -> Result<(), TransportError> {
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(self.endpoint.scheme.clone());
        parts.authority = Some(self.endpoint.authority.clone());
        *request.uri_mut() =
            Uri::from_parts(parts).map_err(|error| TransportError::caused("the request's path", error))?;
        if let Some(token) = &self.token {
            request.headers_mut().insert(AUTHORIZATION, token.header()?);
        }
        Ok(())
    }
}

/// A request that got no answer.
pub(crate) struct Unanswered {
    pub(crate) error: TransportError,
    /// Whether the server may have seen it: then it may also have done what it was asked.
    pub(crate) left: bool,
}

impl From<TransportError> for Unanswered {
    fn from(error: TransportError) -> Self {
        Self { error, left: false }
    }
}

#[async_trait::async_trait]
impl Transport for HttpTransport {
    async fn call(&self, request: Request<Bytes>) -> Result<Response<Body>, TransportError> {
        self.attempt(request).await.map_err(|unanswered| unanswered.error)
    }
}

impl HttpTransport {
    /// As [`Transport::call`]; tells also whether the request left.
    pub(crate) async fn attempt(&self, mut request: Request<Bytes>) -> Result<Response<Body>, Unanswered> {
        self.complete(&mut request)?;
        let mut message = Some(request.map(Full::new));
        // A connection may be found broken only when it is used. A request that never left is sent once more.
        for _ in 0..2 {
            let Some(request) = message.take() else { break };
            let mut sender = self.connection().await?;
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(response.map(|body| Body::new(body.map_err(Into::into)))),
                Err(mut error) => {
                    message = error.take_message();
                    if message.is_none() {
                        let authority = &self.endpoint.authority;
                        let error = TransportError::caused(format!("asking {authority}"), error.into_error());
                        return Err(Unanswered { error, left: true });
                    }
                }
            }
        }
        let authority = &self.endpoint.authority;
        Err(TransportError::new(format!("{authority}: the connection closed before the request left")).into())
    }
}

impl Endpoint {
    fn new(config: &HttpConfig) -> Result<Self, TransportError> {
        let server = &config.server;
        let bad = |why: &str| TransportError::new(format!("the server's address {server}: {why}"));
        let authority = server.authority().ok_or_else(|| bad("names no host"))?.clone();
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let secure = server.scheme_str() == Some("https");
        if !secure && server.scheme_str() != Some("http") {
            return Err(bad("begins with neither https:// nor http://"));
        }
        let tls = match (&config.tls, secure) {
            (Some(tls), true) => {
                let name = config.server_name.clone().unwrap_or_else(|| host.clone());
                let name = ServerName::try_from(name).map_err(|_| bad("the host is neither a name nor an address"))?;
                let mut tls = (**tls).clone();
                tls.alpn_protocols = vec![b"h2".to_vec()];
                Some((Arc::new(tls), name))
            }
            (None, true) => return Err(bad("https needs TLS settings")),
            (_, false) => None,
        };
        let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
        Ok(Self { scheme: if secure { Scheme::HTTPS } else { Scheme::HTTP }, authority, host, port, tls })
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, TransportError> {
        let failed = |error: std::io::Error| TransportError::caused(format!("connecting to {}", self.authority), error);
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        match &self.tls {
            None => self.handshake(stream).await,
            Some((config, name)) => {
                let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
                let stream = connector.connect(name.clone(), stream).await.map_err(failed)?;
                if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
                    return Err(TransportError::new(format!("{} does not speak HTTP/2", self.authority)));
                }
                self.handshake(stream).await
            }
        }
    }

    async fn handshake<S>(&self, stream: S) -> Result<SendRequest<Full<Bytes>>, TransportError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(15))
            .keep_alive_while_idle(true)
            .adaptive_window(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| TransportError::caused(format!("speaking HTTP/2 with {}", self.authority), error))?;
        let authority = self.authority.clone();
        // Ends when the last sender is dropped or the connection breaks, whichever comes first.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%authority, %error, "the connection ended");
            }
        });
        Ok(sender)
    }
}

struct TokenSource {
    token: Token,
    read: SyncMutex<Option<(Instant, HeaderValue)>>,
}

impl TokenSource {
    fn header(&self) -> Result<HeaderValue, TransportError> {
        let mut read = self.read.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let fresh = |at: &Instant| matches!(self.token, Token::Fixed(_)) || at.elapsed() < TOKEN_LIFETIME;
        if let Some((at, header)) = read.as_ref()
            && fresh(at)
        {
            return Ok(header.clone());
        }
        let text = match &self.token {
            Token::Fixed(token) => token.clone(),
            Token::File(path) => std::fs::read_to_string(path)
                .map_err(|error| TransportError::caused(format!("reading the token {}", path.display()), error))?,
        };
        let mut header = HeaderValue::from_str(&format!("Bearer {}", text.trim()))
            .map_err(|error| TransportError::caused("the token can't stand in a header", error))?;
        header.set_sensitive(true);
        *read = Some((Instant::now(), header.clone()));
        Ok(header)
    }
}

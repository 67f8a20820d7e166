//! Requests to servers outside: webhooks and issuers of tokens. One HTTP/1.1 connection each; what is asked often is
//! cached by whoever asks.

use bytes::Bytes;
use http::{Method, Request, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use pintle_client::{HttpConfig, Kubeconfig, Token};
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// How often a webhook is asked, and the time before it is asked a second time, as upstream does.
const ATTEMPTS: u32 = 5;
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// More is no review, key set or discovery document.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// Why a server outside could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    #[error("the address {0:?} is no http or https address with a host")]
    Address(String),
    #[error("the authority's certificates: {0}")]
    Authority(String),
    #[error("{address}: {why}")]
    Failed { address: String, why: String },
    #[error("{address}: the connection broke: {why}")]
    Broken { address: String, why: String },
    #[error("{address}: answered {code}")]
    Refused { address: String, code: u16 },
    #[error("{address}: no answer within {after:?}")]
    Late { address: String, after: Duration },
    #[error(transparent)]
    Kubeconfig(#[from] pintle_client::KubeconfigError),
    #[error("reading the token {path}: {source}")]
    Token { path: String, source: std::io::Error },
}

impl OutboundError {
    /// Whether the same question may be answered a moment later.
    fn passes(&self) -> bool {
        matches!(self, Self::Refused { code: 429 | 500 | 504, .. } | Self::Broken { .. })
    }
}

/// A server outside.
pub(crate) struct Endpoint {
    uri: Uri,
    tls: Option<Arc<rustls::ClientConfig>>,
    server_name: Option<String>,
    token: Option<Token>,
    timeout: Duration,
    retry_pause: Duration,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Endpoint({})", self.uri)
    }
}

fn without_identity(roots: RootCertStore) -> Result<rustls::ClientConfig, OutboundError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|e| OutboundError::Authority(e.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Where distributions keep the authorities that everybody trusts.
const SYSTEM_AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// TLS settings that trust the authorities of this PEM text, or those of the system.
pub(crate) fn trusting(authority_pem: Option<&str>) -> Result<Arc<rustls::ClientConfig>, OutboundError> {
    let text = match authority_pem {
        Some(text) => text.to_owned(),
        None => SYSTEM_AUTHORITIES.iter().find_map(|path| std::fs::read_to_string(path).ok()).unwrap_or_default(),
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
        let certificate = certificate.map_err(|e| OutboundError::Authority(e.to_string()))?;
        let added = roots.add(certificate);
        // Among those of the system, some may be of a form that is not supported; the others count.
        if let (Err(error), true) = (added, authority_pem.is_some()) {
            return Err(OutboundError::Authority(error.to_string()));
        }
    }
    if roots.is_empty() && authority_pem.is_some() {
        return Err(OutboundError::Authority("there is none in the text".into()));
    }
    Ok(Arc::new(without_identity(roots)?))
}

impl Endpoint {
    pub fn new(
        address: &str,
        tls: Option<Arc<rustls::ClientConfig>>,
        timeout: Duration,
    ) -> Result<Self, OutboundError> {
        let wrong = || OutboundError::Address(address.to_owned());
        let uri: Uri = address.parse().map_err(|_| wrong())?;
        let known = matches!(uri.scheme_str(), Some("http" | "https"));
        if !known || uri.host().is_none_or(str::is_empty) {
            return Err(wrong());
        }
        Ok(Self { uri, tls, server_name: None, token: None, timeout, retry_pause: RETRY_PAUSE })
    }

    /// The server that a kubeconfig names, with its path.
    pub fn of_kubeconfig(path: &Path, timeout: Duration) -> Result<Self, OutboundError> {
        let config: HttpConfig = Kubeconfig::load(path)?.http_config()?;
        let mut endpoint = Self::new(&config.server.to_string(), None, timeout)?;
        endpoint.tls = config.tls.map(|tls| {
            let mut tls = (*tls).clone();
            tls.alpn_protocols = vec![b"http/1.1".to_vec()];
            Arc::new(tls)
        });
        endpoint.server_name = config.server_name;
        endpoint.token = config.token;
        Ok(endpoint)
    }

    pub async fn get(&self) -> Result<Bytes, OutboundError> {
        self.ask(Method::GET, Bytes::new()).await
    }

    /// Asks again, a few times and ever later, when the server fails in a way that passes.
    pub async fn post(&self, body: impl Into<Bytes>) -> Result<Bytes, OutboundError> {
        let body = body.into();
        let mut pause = self.retry_pause;
        for _ in 1..ATTEMPTS {
            match self.ask(Method::POST, body.clone()).await {
                Err(error) if error.passes() => tracing::debug!(%error, "a webhook is asked again"),
                other => return other,
            }
            tokio::time::sleep(pause).await;
            pause = pause.mul_f64(1.5);
        }
        self.ask(Method::POST, body).await
    }

    async fn ask(&self, method: Method, body: Bytes) -> Result<Bytes, OutboundError> {
        let asked = tokio::time::timeout(self.timeout, self.exchange(method, body)).await;
        asked.unwrap_or_else(|_| Err(OutboundError::Late { address: self.uri.to_string(), after: self.timeout }))
    }

    fn failed(&self, why: impl std::fmt::Display) -> OutboundError {
        OutboundError::Failed { address: self.uri.to_string(), why: why.to_string() }
    }

    async fn exchange(&self, method: Method, body: Bytes) -> Result<Bytes, OutboundError> {
        let host = self.uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        let secure = self.uri.scheme_str() == Some("https");
        let port = self.uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let stream = TcpStream::connect((host.as_str(), port)).await.map_err(|e| self.failed(e))?;
        stream.set_nodelay(true).map_err(|e| self.failed(e))?;
        let request = self.request(method, body)?;
        if !secure {
            return self.send(stream, request).await;
        }
        let tls = match &self.tls {
            Some(tls) => tls.clone(),
            None => trusting(None)?,
        };
        let name = ServerName::try_from(self.server_name.clone().unwrap_or(host)).map_err(|e| self.failed(e))?;
        let stream = tokio_rustls::TlsConnector::from(tls).connect(name, stream).await.map_err(|e| self.failed(e))?;
        self.send(stream, request).await
    }

    fn request(&self, method: Method, body: Bytes) -> Result<Request<Full<Bytes>>, OutboundError> {
        let path = self.uri.path_and_query().map_or("/", |p| p.as_str());
        let authority = self.uri.authority().map_or("", |a| a.as_str());
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, authority)
            .header(header::USER_AGENT, "pintle")
            .header(header::ACCEPT, "application/json, */*")
            .header(header::CONNECTION, "close");
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(token) = self.token()? {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        request.body(Full::new(body)).map_err(|e| self.failed(e))
    }

    fn token(&self) -> Result<Option<String>, OutboundError> {
        match &self.token {
            None => Ok(None),
            Some(Token::Fixed(token)) => Ok(Some(token.clone())),
            Some(Token::File(path)) => {
                let text = std::fs::read_to_string(path);
                let failed = |source| OutboundError::Token { path: path.display().to_string(), source };
                text.map(|t| Some(t.trim().to_owned())).map_err(failed)
            }
        }
    }

    async fn send<S>(&self, stream: S, request: Request<Full<Bytes>>) -> Result<Bytes, OutboundError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| self.failed(e))?;
        let answer = async {
            let broken = |e: hyper::Error| OutboundError::Broken { address: self.uri.to_string(), why: e.to_string() };
            let response = sender.send_request(request).await.map_err(broken)?;
            let code = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
            let body = body.map_err(|e| self.failed(e))?.to_bytes();
            if !code.is_success() {
                return Err(OutboundError::Refused { address: self.uri.to_string(), code: code.as_u16() });
            }
            Ok(body)
        };
        // The connection is driven here, beside the answer: nothing is left running when the caller gives up.
        tokio::pin!(answer, connection);
        tokio::select! {
            answer = &mut answer => answer,
            ended = &mut connection => match ended {
                Ok(()) => answer.await,
                Err(error) => Err(self.failed(error)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// Asks a server that gives these answers, one a connection; an empty one is a connection that ends.
    async fn ask(answers: &[&str]) -> Result<Bytes, OutboundError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/x", listener.local_addr().unwrap());
        let mut endpoint = Endpoint::new(&address, None, Duration::from_secs(10)).unwrap();
        endpoint.retry_pause = Duration::ZERO;
        let serving = async {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"{}") {
                    stream.read_buf(&mut head).await.unwrap();
                }
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            std::future::pending().await
        };
        tokio::select! {
            answer = endpoint.post("{}") => answer,
            never = serving => never,
        }
    }

    #[tokio::test]
    async fn what_passes_is_tried_again() {
        let (good, busy) = ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", "HTTP/1.1 429 Too Many\r\n\r\n");
        assert_eq!(ask(&[busy, "", "HTTP/1.1 500 Oh\r\n\r\n", good]).await.unwrap(), "ok");
        let refused = ask(&["HTTP/1.1 403 No\r\n\r\n", good]).await;
        assert!(matches!(refused, Err(OutboundError::Refused { code: 403, .. })), "{refused:?}");
        let given_up = ask(&[busy, busy, busy, busy, busy, good]).await;
        assert!(matches!(given_up, Err(OutboundError::Refused { code: 429, .. })), "{given_up:?}");
        let nonsense = Endpoint::new("ftp://x", None, Duration::ZERO);
        assert!(matches!(nonsense, Err(OutboundError::Address(_))));
    }
}

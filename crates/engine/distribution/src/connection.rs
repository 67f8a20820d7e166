//! Connections to registries: HTTPS with the machine's trusted authorities, plain HTTP where that is allowed.

use crate::error::{Error, Result};
use bytes::Bytes;
use http::header::{HOST, HeaderName, LOCATION, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A body that is sent.
pub(crate) type SendBody = BoxBody<Bytes, std::io::Error>;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a server may take to begin its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_REDIRECTS: usize = 10;
const AGENT: &str = concat!("pintle/", env!("CARGO_PKG_VERSION"));

/// Where trusted authorities are found.
#[derive(Clone, Debug)]
pub struct TrustRoots {
    /// Files of PEM certificates; those that exist count.
    pub files: Vec<PathBuf>,
    /// A folder with one per registry (`host:port/ca.crt`), as Docker has it.
    pub per_registry: PathBuf,
}

impl Default for TrustRoots {
    fn default() -> Self {
        let files = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
        Self { files: files.iter().map(PathBuf::from).collect(), per_registry: "/etc/docker/certs.d".into() }
    }
}

/// Opens connections.
#[derive(Clone, Debug)]
pub struct Connector {
    roots: TrustRoots,
    insecure: Arc<[String]>,
    /// By authority: reading all certificates for every request would take longer than the request.
    tls: Arc<Mutex<HashMap<String, Arc<ClientConfig>>>>,
}

/// A request to be sent.
pub(crate) struct Outgoing {
    pub(crate) method: Method,
    pub(crate) url: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: SendBody,
}

impl Outgoing {
    pub(crate) fn new(method: Method, url: impl Into<String>) -> Self {
        Self { method, url: url.into(), headers: HeaderMap::new(), body: bytes_body(Bytes::new()) }
    }

    /// A value that no header may carry is left out: the server then says what is missing.
    pub(crate) fn header(mut self, name: HeaderName, value: impl AsRef<str>) -> Self {
        if let Ok(value) = HeaderValue::from_str(value.as_ref()) {
            self.headers.append(name, value);
        }
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = bytes_body(body.into());
        self
    }
}

pub(crate) fn bytes_body(bytes: Bytes) -> SendBody {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}

impl Connector {
    pub fn new(roots: TrustRoots, insecure: &[String]) -> Self {
        Self { roots, insecure: insecure.into(), tls: Arc::default() }
    }

    /// Whether a host may go without a verified certificate.
    pub(crate) fn is_insecure(&self, authority: &str) -> bool {
        let host = host_of(authority);
        let address: Option<std::net::IpAddr> = host.parse().ok();
        let in_range = |entry: &str| {
            let range: Option<ipnet::IpNet> = entry.parse().ok();
            range.zip(address).is_some_and(|(range, address)| range.contains(&address))
        };
        let listed = |entry: &String| entry == authority || entry == host || in_range(entry);
        self.insecure.iter().any(listed)
    }

    /// Sends a request and follows redirects of reads; credentials go to the first host only.
    pub(crate) async fn send(&self, request: Outgoing) -> Result<Response<Incoming>> {
        let reads = request.method == Method::GET || request.method == Method::HEAD;
        let (method, mut url, mut headers) = (request.method.clone(), request.url.clone(), request.headers.clone());
        let mut answer = self.once(request).await?;
        for _ in 0..MAX_REDIRECTS {
            let location = answer.headers().get(LOCATION).and_then(|l| l.to_str().ok());
            let Some(location) = location.filter(|_| reads && answer.status().is_redirection()) else {
                return Ok(answer);
            };
            let next = join(&url, location)?;
            if authority_of(&next) != authority_of(&url) {
                headers.remove(http::header::AUTHORIZATION);
            }
            let mut again = Outgoing::new(method.clone(), next.clone());
            again.headers = headers.clone();
            answer = self.once(again).await?;
            url = next;
        }
        Err(Error::Invalid(format!("stopped after {MAX_REDIRECTS} redirects at {url}")))
    }

    async fn once(&self, request: Outgoing) -> Result<Response<Incoming>> {
        let Outgoing { method, url, mut headers, body } = request;
        let uri: Uri = url.parse().map_err(|e| Error::Invalid(format!("the address {url:?}: {e}")))?;
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        let secure = uri.scheme_str() == Some("https");
        if !secure && !self.is_insecure(&authority) {
            return Err(Error::Invalid(format!("{url}: plain HTTP is not allowed for this host")));
        }
        let failed = |why: String| Error::Connection { method: go_method(&method), url: url.clone(), why };
        let tcp = dial(&authority, if secure { 443 } else { 80 }).await.map_err(failed)?;
        let path = uri.path_and_query().map_or("/", |p| p.as_str());
        let host = HeaderValue::from_str(&authority).map_err(|e| failed(e.to_string()))?;
        headers.insert(HOST, host);
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        let mut request =
            Request::builder().method(method.clone()).uri(path).body(body).map_err(|e| failed(e.to_string()))?;
        *request.headers_mut() = headers;
        let sent = if secure {
            let stream = self.tls(&authority, tcp).await.map_err(failed)?;
            exchange(stream, request).await
        } else {
            exchange(tcp, request).await
        };
        sent.map_err(|why| Error::Broken { method: go_method(&method), url: url.clone(), why })
    }

    async fn tls(
        &self,
        authority: &str,
        tcp: TcpStream,
    ) -> std::result::Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
        let known = self.tls.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get(authority).cloned();
        let config = match known {
            Some(config) => config,
            None => {
                let made = Arc::new(self.tls_config(authority)?);
                let mut all = self.tls.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                Arc::clone(all.entry(authority.to_owned()).or_insert(made))
            }
        };
        let name = ServerName::try_from(host_of(authority).to_owned()).map_err(|e| e.to_string())?;
        let handshake = tokio_rustls::TlsConnector::from(config).connect(name, tcp);
        let done = tokio::time::timeout(CONNECT_TIMEOUT, handshake).await;
        done.map_err(|_| "net/http: TLS handshake timeout".to_owned())?.map_err(|e| match e.to_string() {
            text if text.contains("InvalidContentType") => "http: server gave HTTP response to HTTPS client".to_owned(),
            text => format!("tls: {text}"),
        })
    }

    fn tls_config(&self, authority: &str) -> std::result::Result<ClientConfig, String> {
        let builder = ClientConfig::builder();
        if self.is_insecure(authority) {
            let verifier = Arc::new(pintle_pki::AnyServer);
            return Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth());
        }
        let mut store = RootCertStore::empty();
        let own = self.roots.per_registry.join(authority).join("ca.crt");
        for file in self.roots.files.iter().chain([&own]) {
            // Distributions keep them in different places: those that are not there are no error.
            let Ok(certificates) = CertificateDer::pem_file_iter(file) else { continue };
            store.add_parsable_certificates(certificates.flatten());
        }
        Ok(builder.with_root_certificates(store).with_no_client_auth())
    }
}

async fn dial(authority: &str, default_port: u16) -> std::result::Result<TcpStream, String> {
    let host = host_of(authority);
    let port = authority.strip_prefix(host).or_else(|| authority.rsplit_once(']').map(|(_, p)| p));
    let port = port.and_then(|p| p.strip_prefix(':')).and_then(|p| p.parse().ok()).unwrap_or(default_port);
    let found = tokio::net::lookup_host((host, port)).await;
    let addresses: Vec<_> = found.map_err(|e| format!("dial tcp: lookup {host}: {e}"))?.collect();
    let mut why = format!("dial tcp: lookup {host}: no such host");
    for address in addresses {
        match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Only a little slower where it is refused.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(e)) => why = format!("dial tcp {address}: connect: {}", plain(&e)),
            Err(_) => why = format!("dial tcp {address}: i/o timeout"),
        }
    }
    Err(why)
}

/// The kernel's words without Rust's number behind them, in lower case as Go prints them.
fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

/// Go's names of methods in its error texts: `Get`, `Head`.
fn go_method(method: &Method) -> String {
    let name = method.as_str();
    let (first, rest) = name.split_at(1.min(name.len()));
    format!("{first}{}", rest.to_lowercase())
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<SendBody>,
) -> std::result::Result<Response<Incoming>, String> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    // It ends with the answer's body; its error shows there.
    tokio::spawn(connection);
    let has_body = hyper::body::Body::size_hint(request.body()).exact() != Some(0);
    let sending = sender.send_request(request);
    if has_body {
        // An upload takes as long as it takes.
        return sending.await.map_err(|e| e.to_string());
    }
    let answered = tokio::time::timeout(ANSWER_TIMEOUT, sending).await;
    answered.map_err(|_| "timeout awaiting response headers".to_owned())?.map_err(|e| e.to_string())
}

/// A host without its port, an IPv6 address without its brackets.
pub(crate) fn host_of(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    authority.rsplit_once(':').filter(|(host, _)| !host.contains(':')).map_or(authority, |(host, _)| host)
}

fn authority_of(url: &str) -> Option<String> {
    url.parse::<Uri>().ok()?.authority().map(ToString::to_string)
}

/// Resolves a `Location` against the address it came from.
pub(crate) fn join(base: &str, location: &str) -> Result<String> {
    if location.starts_with("http://") || location.starts_with("https://") {
        return Ok(location.to_owned());
    }
    let uri: Uri = base.parse().map_err(|e| Error::Invalid(format!("the address {base:?}: {e}")))?;
    let (scheme, authority) = (uri.scheme_str().unwrap_or("https"), uri.authority().map_or("", |a| a.as_str()));
    let path = if location.starts_with('/') { location.to_owned() } else { format!("/{location}") };
    Ok(format!("{scheme}://{authority}{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_and_listed_hosts_are_insecure() {
        let mut insecure = crate::Options::default().insecure;
        insecure.extend(["registry.test:5000".into(), "10.1.0.0/16".into()]);
        let connector = Connector::new(TrustRoots::default(), &insecure);
        for host in ["localhost:5000", "127.0.0.1", "[::1]:5000", "registry.test:5000", "10.1.2.3:80"] {
            assert!(connector.is_insecure(host), "{host}");
        }
        for host in ["registry.test", "10.2.0.1", "localhost.example", "docker.io"] {
            assert!(!connector.is_insecure(host), "{host}");
        }
    }

    #[test]
    fn locations_are_resolved() {
        let base = "https://r.test:5000/v2/a/blobs/uploads/";
        assert_eq!(join(base, "/v2/x?a=1").unwrap(), "https://r.test:5000/v2/x?a=1");
        assert_eq!(join(base, "http://other/x").unwrap(), "http://other/x");
    }
}

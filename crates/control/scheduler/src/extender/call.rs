//! One request to an extender: HTTP/1.1 over TCP or TLS, a connection each.

use super::{ExtenderError, Settings, Tls};
use base64::Engine;
use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use pintle_pki::Identity;
use rustls_pki_types::ServerName;
use serde_json::Value;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// An answer may hold all nodes of a cluster.
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// Where an extender is, and how to be sure of it.
pub(super) struct Endpoint {
    base: String,
    uri: Uri,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    timeout: Duration,
}

/// Text of PEM: what is given as data, or what a file holds. Nothing when neither is named.
fn pem(data: &str, file: &str) -> Result<Option<String>, String> {
    if !data.is_empty() {
        let decoded = base64::engine::general_purpose::STANDARD.decode(data);
        let bytes = decoded.map_err(|error| format!("data of tlsConfig is no base64: {error}"))?;
        return String::from_utf8(bytes).map(Some).map_err(|_| "data of tlsConfig is no PEM".to_owned());
    }
    if file.is_empty() {
        return Ok(None);
    }
    std::fs::read_to_string(file).map(Some).map_err(|error| format!("reading {file}: {error}"))
}

fn connector(settings: &Settings) -> Result<TlsConnector, String> {
    let none = Tls::default();
    let tls = settings.tls.as_ref().unwrap_or(&none);
    let authority = pem(&tls.authority, &tls.authority_file)?;
    if tls.insecure && authority.is_some() {
        return Err("specifying a root certificates file with the insecure flag is not allowed".into());
    }
    let certificate = pem(&tls.certificate, &tls.certificate_file)?;
    let identity = match (certificate, pem(&tls.key, &tls.key_file)?) {
        (Some(certificate_pem), Some(key_pem)) => Some(Identity { certificate_pem, key_pem }),
        (None, None) => None,
        _ => return Err("tlsConfig names a certificate without its key, or a key without its certificate".into()),
    };
    let config = match authority {
        Some(authority) => pintle_pki::client_config_http1(&authority, identity.as_ref()),
        None if identity.is_some() => {
            return Err("a client certificate without an authority to know the server by is not supported".into());
        }
        // As upstream's: asked for HTTPS without an authority, any server is believed.
        None if tls.insecure || settings.https => pintle_pki::client_config_unverified(),
        None => return Err("https needs tlsConfig.caFile or tlsConfig.caData, or enableHTTPS to believe any".into()),
    };
    let mut config = (*config.map_err(|error| error.to_string())?).clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(std::sync::Arc::new(config)))
}

impl Endpoint {
    pub(super) fn new(settings: &Settings) -> Result<Self, ExtenderError> {
        let wrong = |why: String| ExtenderError::Settings { url: settings.url.clone(), why };
        let base = settings.url.trim_end_matches('/').to_owned();
        let uri: Uri = base.parse().map_err(|_| wrong("the address is no URL".into()))?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| wrong("the address has no host".into()))?;
        let tls = match uri.scheme_str() {
            Some("http") => None,
            Some("https") => {
                let named = settings.tls.as_ref().map(|tls| tls.server_name.clone()).filter(|name| !name.is_empty());
                let name = named.unwrap_or_else(|| host.trim_matches(['[', ']']).to_owned());
                let name = ServerName::try_from(name).map_err(|error| wrong(error.to_string()))?;
                Some((connector(settings).map_err(wrong)?, name))
            }
            _ => return Err(wrong("the address begins with neither http:// nor https://".into())),
        };
        Ok(Self { base, uri, tls, timeout: settings.timeout })
    }

    /// Posts a question to a verb.
    pub(super) async fn call(&self, verb: &str, question: &Value) -> Result<Value, ExtenderError> {
        let url = format!("{}/{verb}", self.base);
        let failed = |why: String| ExtenderError::Failed { method: "Post", url: url.clone(), why };
        let asked = tokio::time::timeout(self.timeout, self.exchange(verb, question)).await;
        let late = |_| "context deadline exceeded (Client.Timeout exceeded while awaiting headers)".to_owned();
        let (code, body) = asked.map_err(late).and_then(|answer| answer).map_err(failed)?;
        if code != 200 {
            return Err(ExtenderError::Code { verb: verb.to_owned(), url, code });
        }
        serde_json::from_slice(&body).map_err(|error| failed(format!("the answer is no JSON: {error}")))
    }

    async fn exchange(&self, verb: &str, question: &Value) -> Result<(u16, Bytes), String> {
        let host = self.uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let port = self.uri.port_u16().unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let stream = TcpStream::connect((host, port)).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let path = format!("{}/{verb}", self.uri.path().trim_end_matches('/'));
        let authority = self.uri.authority().map_or("", |authority| authority.as_str());
        let request = Request::post(path)
            .header(header::HOST, authority)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONNECTION, "close")
            .body(Full::new(Bytes::from(question.to_string())))
            .map_err(|error| error.to_string())?;
        match &self.tls {
            None => send(stream, request).await,
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await.map_err(|error| error.to_string())?;
                send(stream, request).await
            }
        }
    }
}

async fn send<S>(stream: S, request: Request<Full<Bytes>>) -> Result<(u16, Bytes), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(|error| error.to_string())?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let code = response.status().as_u16();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
        Ok((code, body.map_err(|error| error.to_string())?.to_bytes()))
    };
    // The connection is driven here, beside the answer: nothing is left running when the caller gives up.
    tokio::pin!(answer, connection);
    tokio::select! {
        answer = &mut answer => answer,
        ended = &mut connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(error.to_string()),
        },
    }
}

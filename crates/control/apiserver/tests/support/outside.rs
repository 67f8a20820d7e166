//! A small TLS server outside the cluster: an issuer of tokens, or a webhook.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use pintle_pki::{CertificateAuthority, ClientCertificates, server_config};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpListener;

type Handler = dyn Fn(&str, &Value) -> (u16, Value) + Send + Sync;

/// Answers until it is dropped.
pub struct Outside {
    pub url: String,
    pub ca: String,
    /// The bodies of all requests so far.
    pub asked: Arc<Mutex<Vec<Value>>>,
    serving: tokio::task::JoinHandle<()>,
    folder: tempfile::TempDir,
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Outside {
    /// The handler is given the path and the JSON of each request.
    pub async fn serve(handler: impl Fn(&str, &Value) -> (u16, Value) + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let now = pintle_clock::system().now();
        let authority = CertificateAuthority::load_or_create(folder.path(), "ca", now).unwrap();
        let identity = authority.issue_server("outside", &["127.0.0.1".into()], now).unwrap();
        let tls = tokio_rustls::TlsAcceptor::from(server_config(&identity, ClientCertificates::Ignored).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (handler, seen): (Arc<Handler>, _) = (Arc::new(handler), asked.clone());
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, handler, seen) = (tls.clone(), handler.clone(), seen.clone());
                tokio::spawn(async move {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let service = service_fn(move |request| answer(request, handler.clone(), seen.clone()));
                    // The end of a connection is the client's business.
                    let _ =
                        auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { url, ca: authority.certificate_pem().to_owned(), asked, serving, folder }
    }

    /// A file of the server's own folder.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A kubeconfig that names the server.
    pub fn kubeconfig(&self) -> PathBuf {
        use base64::Engine;
        let ca = base64::engine::general_purpose::STANDARD.encode(&self.ca);
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             clusters: [{{name: c, cluster: {{server: \"{}/review\", certificate-authority-data: {ca}}}}}]\n\
             contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\nusers: [{{name: u, user: {{token: t}}}}]\n",
            self.url
        );
        self.write("kubeconfig", &text)
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

async fn answer(
    request: Request<Incoming>,
    handler: Arc<Handler>,
    seen: Arc<Mutex<Vec<Value>>>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await?.to_bytes();
    let value = serde_json::from_slice(&body).unwrap_or_default();
    let (code, answer) = handler(&path, &value);
    seen.lock().push(value);
    let mut response = Response::new(Full::from(answer.to_string()));
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response.headers_mut().insert("content-type", "application/json".parse().unwrap());
    Ok(response)
}

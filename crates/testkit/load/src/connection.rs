//! One connection to the server, in HTTP/1.1 or HTTP/2.

use crate::target::Target;
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use std::sync::Arc;
use tokio::net::TcpStream;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    Http1,
    Http2,
}

impl Version {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
}

/// An open connection. Those of HTTP/2 can be cloned and used at the same time.
pub(crate) enum Connection {
    Http1(http1::SendRequest<Full<Bytes>>, String),
    Http2(http2::SendRequest<Full<Bytes>>, String),
}

/// What a request carries.
#[derive(Clone, Default)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    /// Of the body.
    pub(crate) media: &'static str,
    pub(crate) accept: &'static str,
    pub(crate) body: Bytes,
}

pub(crate) const JSON: &str = "application/json";
pub(crate) const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

impl Call {
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self { path: path.into(), accept: JSON, ..Self::default() }
    }

    pub(crate) fn send(method: Method, path: impl Into<String>, media: &'static str, body: impl Into<Bytes>) -> Self {
        Self { method, path: path.into(), media, accept: JSON, body: body.into() }
    }
}

impl Connection {
    pub(crate) async fn open(target: &Target, version: Version) -> Result<Self> {
        let mut tls = (*target.tls).clone();
        tls.alpn_protocols = match version {
            Version::Http1 => vec![b"http/1.1".to_vec()],
            Version::Http2 => vec![b"h2".to_vec()],
        };
        let stream =
            TcpStream::connect(&target.address).await.with_context(|| format!("connect to {}", target.address))?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(target.host.clone())?;
        let stream = tokio_rustls::TlsConnector::from(Arc::new(tls)).connect(name, stream).await?;
        let io = TokioIo::new(stream);
        let host = target.address.clone();
        Ok(match version {
            Version::Http1 => {
                let (sender, connection) = http1::handshake(io).await?;
                tokio::spawn(connection);
                Self::Http1(sender, host)
            }
            Version::Http2 => {
                let mut builder = http2::Builder::new(TokioExecutor::new());
                builder.initial_stream_window_size(4 << 20).initial_connection_window_size(16 << 20);
                let (sender, connection) = builder.handshake(io).await?;
                tokio::spawn(connection);
                Self::Http2(sender, host)
            }
        })
    }

    /// The same connection, for a request beside others.
    pub(crate) fn share(&self) -> Result<Self> {
        match self {
            Self::Http1(..) => bail!("a connection of HTTP/1.1 carries one request at a time"),
            Self::Http2(sender, host) => Ok(Self::Http2(sender.clone(), host.clone())),
        }
    }

    /// Sends a request and waits for the head of the answer.
    pub(crate) async fn begin(&mut self, call: &Call) -> Result<Response<Incoming>> {
        let mut request = Request::builder().method(call.method.clone()).header(ACCEPT, call.accept);
        if !call.media.is_empty() {
            request = request.header(CONTENT_TYPE, call.media);
        }
        let body = Full::new(call.body.clone());
        Ok(match self {
            Self::Http1(sender, host) => {
                sender.ready().await?;
                let request = request.header(HOST, host.as_str()).uri(&call.path).body(body)?;
                sender.send_request(request).await?
            }
            Self::Http2(sender, host) => {
                sender.ready().await?;
                let request = request.uri(format!("https://{host}{}", call.path)).body(body)?;
                sender.send_request(request).await?
            }
        })
    }

    /// Sends a request and reads the whole answer, which must be a good one.
    pub(crate) async fn call(&mut self, call: &Call) -> Result<Bytes> {
        let response = self.begin(call).await?;
        let status = response.status();
        let bytes = response.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            bail!("{} {} answered {status}: {}", call.method, call.path, String::from_utf8_lossy(&bytes));
        }
        Ok(bytes)
    }
}

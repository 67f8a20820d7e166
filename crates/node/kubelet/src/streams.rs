//! What the kubelet's API needs from whoever upgrades its connections: streams of exec, attach and port-forward.

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use pintle_cri::{ByteReader, ByteStream, ByteWriter, TerminalSize};
use tokio::sync::{mpsc, oneshot};

/// Which streams a client asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

/// A request that can't be upgraded, or an upgrade that failed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StreamError(pub String);

/// The client's side of an exec or attach.
pub struct RemoteStreams {
    pub stdin: Option<ByteReader>,
    pub stdout: Option<ByteWriter>,
    pub stderr: Option<ByteWriter>,
    pub resize: mpsc::Receiver<TerminalSize>,
    /// Takes the outcome, once, as a `metav1.Status`; the connection ends after it was written.
    pub outcome: oneshot::Sender<serde_json::Value>,
}

/// One forwarded connection.
pub struct PortStream {
    pub port: u16,
    pub data: ByteStream,
    /// Takes a text when the connection failed.
    pub error: ByteWriter,
}

/// The answer to send, and the streams that come once the client has switched protocols.
pub type Upgrade<T> = (Response<Full<Bytes>>, BoxFuture<'static, Result<T, StreamError>>);

/// Upgrades requests to streams, over WebSocket or SPDY/3.1.
pub trait Streaming: Send + Sync + 'static {
    fn exec(&self, request: Request<Incoming>, wants: Wants) -> Result<Upgrade<RemoteStreams>, StreamError>;
    /// `ports` are those named in the request, when the protocol names them there.
    fn port_forward(
        &self,
        request: Request<Incoming>,
        ports: &[u16],
    ) -> Result<Upgrade<BoxStream<'static, PortStream>>, StreamError>;
}

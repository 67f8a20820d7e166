//! gRPC over one HTTP/2 connection: calls with one answer, and calls that stay open in both directions.
//!
//! Source: the gRPC project's "gRPC over HTTP2". Messages are neither compressed nor, when received, greater than
//! [`MAX_MESSAGE`].

use super::endpoints::Address;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::channel::mpsc;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Either, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::convert::Infallible;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// The greatest message taken from a server: a page of the greatest objects.
const MAX_MESSAGE: usize = 256 << 20;
/// Five bytes come before a message: whether it is compressed, and its length.
const HEADER: usize = 5;
/// etcd refuses clients that ask more often than each five seconds.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const KEEP_ALIVE_PATIENCE: Duration = Duration::from_secs(5);
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

type Open = StreamBody<mpsc::UnboundedReceiver<Result<Frame<Bytes>, Infallible>>>;
type Body = Either<Full<Bytes>, Open>;

/// Why a call has no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum CallError {
    /// The server cannot have seen it.
    #[error("{0}")]
    NotSent(String),
    /// The server may have done it.
    #[error("{0}")]
    Broken(String),
    /// The server's answer is a failure.
    #[error("{message}")]
    Status { code: u32, message: String },
}

/// A connection to one member. Cheap to clone; closed with the last clone and the last call.
#[derive(Clone)]
pub(super) struct Connection {
    sender: SendRequest<Body>,
    base: String,
}

impl Connection {
    pub(super) async fn open(address: &Address) -> Result<Self, CallError> {
        let failed = |why: &dyn std::fmt::Display| CallError::NotSent(format!("connecting to {address}: {why}"));
        let stream = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(|e| failed(&e))?;
        stream.set_nodelay(true).map_err(|e| failed(&e))?;
        let sender = match &address.tls {
            None => handshake(stream).await,
            Some((config, name)) => {
                let connector = tokio_rustls::TlsConnector::from(config.clone());
                handshake(connector.connect(name.clone(), stream).await.map_err(|e| failed(&e))?).await
            }
        };
        Ok(Self { sender: sender.map_err(|e| failed(&e))?, base: address.to_string() })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Calls a method that answers once.
    pub(super) async fn call(&self, method: &str, message: &[u8]) -> Result<Bytes, CallError> {
        let response = self.send(method, Either::Left(Full::new(framed(message)))).await?;
        let mut answers = Answers::of(response)?;
        let answer = answers.next().await?.ok_or_else(|| broken("the answer is empty"))?;
        // The status comes after the message.
        match answers.next().await? {
            None => Ok(answer),
            Some(_) => Err(broken("there is more than one answer")),
        }
    }

    /// Calls a method with which messages go to and fro until either end is dropped.
    pub(super) async fn open_stream(&self, method: &str, first: &[u8]) -> Result<(Messages, Answers), CallError> {
        let (sender, receiver) = mpsc::unbounded();
        let messages = Messages(sender);
        messages.send(first);
        let response = self.send(method, Either::Right(StreamBody::new(receiver))).await?;
        Ok((messages, Answers::of(response)?))
    }

    async fn send(&self, method: &str, body: Body) -> Result<Response<Incoming>, CallError> {
        let mut sender = self.sender.clone();
        sender.ready().await.map_err(|e| CallError::NotSent(format!("{}: {e}", self.base)))?;
        let request = Request::post(format!("{}{method}", self.base))
            .header("te", "trailers")
            .header("content-type", "application/grpc")
            // A member without a leader ends watches rather than let them wait.
            .header("hasleader", "true")
            .body(body)
            .map_err(|e| CallError::NotSent(e.to_string()))?;
        sender.send_request(request).await.map_err(|e| CallError::Broken(format!("{}: {e}", self.base)))
    }
}

async fn handshake<S>(stream: S) -> Result<SendRequest<Body>, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_PATIENCE)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .handshake(TokioIo::new(stream))
        .await?;
    // Ends when the last sender is dropped or the connection breaks, whichever comes first.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to etcd ended");
        }
    });
    Ok(sender)
}

fn broken(why: &str) -> CallError {
    CallError::Broken(format!("etcd's answer is not understood: {why}"))
}

fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(HEADER + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(message);
    frame.freeze()
}

/// The way to the server of a call that stays open.
pub(super) struct Messages(mpsc::UnboundedSender<Result<Frame<Bytes>, Infallible>>);

impl Messages {
    pub(super) fn send(&self, message: &[u8]) {
        // A call that ended says so where its answers are read.
        let _ = self.0.unbounded_send(Ok(Frame::data(framed(message))));
    }
}

/// The answers of a call, one after the other.
pub(super) struct Answers {
    body: Incoming,
    buffer: BytesMut,
}

impl Answers {
    fn of(response: Response<Incoming>) -> Result<Self, CallError> {
        if response.status() != 200 {
            return Err(broken(&format!("HTTP status {}", response.status())));
        }
        match status(response.headers()) {
            Some(Err(failure)) => Err(failure),
            _ => Ok(Self { body: response.into_body(), buffer: BytesMut::new() }),
        }
    }

    /// The next answer; nothing when the call ended well.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, CallError> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            match self.body.frame().await {
                None => return Err(CallError::Broken("the connection to etcd ended".into())),
                Some(Err(error)) => return Err(CallError::Broken(format!("the connection to etcd broke: {error}"))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.buffer.extend_from_slice(&data),
                    Err(frame) => match frame.trailers_ref().and_then(status) {
                        Some(Ok(())) => return Ok(None),
                        Some(Err(failure)) => return Err(failure),
                        None => return Err(broken("it ends without a status")),
                    },
                },
            }
        }
    }

    fn take(&mut self) -> Result<Option<Bytes>, CallError> {
        let Some((header, rest)) = self.buffer.split_first_chunk::<HEADER>() else { return Ok(None) };
        let [compressed, length @ ..] = *header;
        let length = u32::from_be_bytes(length) as usize;
        if compressed != 0 {
            return Err(broken("it is compressed"));
        }
        if length > MAX_MESSAGE {
            return Err(broken(&format!("a message has {length} bytes, more than {MAX_MESSAGE}")));
        }
        if rest.len() < length {
            return Ok(None);
        }
        self.buffer.advance(HEADER);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

fn status(headers: &HeaderMap) -> Option<Result<(), CallError>> {
    let code = headers.get("grpc-status")?.to_str().ok()?.parse().ok()?;
    if code == 0 {
        return Some(Ok(()));
    }
    let text = headers.get("grpc-message").map(|text| String::from_utf8_lossy(text.as_bytes()).into_owned());
    Some(Err(CallError::Status { code, message: text.unwrap_or_default() }))
}

//! Calls over one HTTP/2 connection: with one answer, with many, and such that stay open in both directions.

use crate::frames::{Frames, framed};
use crate::status::{Code, Status, of_http, told};
use crate::{Message, decode};
use bytes::Bytes;
use futures::channel::mpsc;
use http::{HeaderName, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Either, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::convert::Infallible;
use std::marker::PhantomData;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

type Open = StreamBody<mpsc::UnboundedReceiver<Result<Frame<Bytes>, Infallible>>>;
type Body = Either<Full<Bytes>, Open>;

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
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

impl CallError {
    /// As a Go client sees it: a connection that cannot be made or breaks is `Unavailable`.
    pub fn status(self) -> Status {
        match self {
            Self::NotSent(message) | Self::Broken(message) => Status::new(Code::UNAVAILABLE, message),
            Self::Status { code, message } => Status::new(Code(code), message),
        }
    }
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        Self::Status { code: status.code.0, message: status.message }
    }
}

/// How a connection is used.
#[derive(Clone, Debug)]
pub struct ChannelOptions {
    /// What paths of methods are appended to, such as `http://10.0.0.1:2379`; also shown in errors.
    pub base: String,
    /// Sent with each call, besides gRPC's own.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// How often an idle connection is tried, and how long the answer may take.
    pub keep_alive: Option<(Duration, Duration)>,
    /// The greatest message that is taken, in bytes.
    pub max_message: usize,
}

impl ChannelOptions {
    pub fn new(base: impl Into<String>) -> Self {
        Self { base: base.into(), headers: Vec::new(), keep_alive: None, max_message: crate::MAX_MESSAGE }
    }
}

/// A connection to a server. Cheap to clone; closed with the last clone and the last call.
#[derive(Clone)]
pub struct Channel {
    sender: SendRequest<Body>,
    options: std::sync::Arc<ChannelOptions>,
}

impl Channel {
    /// Over a connected socket, with or without TLS.
    ///
    /// # Errors
    /// `NotSent` when the other side does not speak HTTP/2.
    pub async fn over<S>(stream: S, options: ChannelOptions) -> Result<Self, CallError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new());
        builder.initial_stream_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
        if let Some((interval, patience)) = options.keep_alive {
            builder.keep_alive_interval(interval).keep_alive_timeout(patience);
        }
        let shaken = builder.handshake(TokioIo::new(stream)).await;
        let (sender, connection) = shaken.map_err(|e| CallError::NotSent(format!("{}: {e}", options.base)))?;
        // Ends when the last sender is dropped or the connection breaks, whichever comes first.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a gRPC connection ended");
            }
        });
        Ok(Self { sender, options: options.into() })
    }

    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Calls a method that answers once; with a timeout, the server is told of it.
    ///
    /// # Errors
    /// [`CallError`]; an answer that comes too late is `DeadlineExceeded`.
    pub async fn call<Q: Message, A: Message>(
        &self,
        method: &str,
        request: &Q,
        timeout: Option<Duration>,
    ) -> Result<A, CallError> {
        let request = request.encode();
        let answer = self.call_bytes(method, &request, timeout);
        let answer = match timeout {
            Some(timeout) => match tokio::time::timeout(timeout, answer).await {
                Ok(answer) => answer?,
                Err(_) => return Err(Status::new(Code::DEADLINE_EXCEEDED, "context deadline exceeded").into()),
            },
            None => answer.await?,
        };
        read(&answer)
    }

    /// The same with a message that is written already, and no limit of time on this side.
    ///
    /// # Errors
    /// [`CallError`]
    pub async fn call_bytes(
        &self,
        method: &str,
        message: &[u8],
        timeout: Option<Duration>,
    ) -> Result<Bytes, CallError> {
        let response = self.send(method, Either::Left(Full::new(framed(message))), timeout).await?;
        let mut answers = Answers::of(response, self.options.max_message)?;
        let answer = answers.next().await?.ok_or_else(|| broken("the answer is empty"))?;
        // The status comes after the message.
        match answers.next().await? {
            None => Ok(answer),
            Some(_) => Err(broken("there is more than one answer")),
        }
    }

    /// Calls a method that answers many times. Returns when the server begins to answer.
    ///
    /// # Errors
    /// [`CallError`]
    pub async fn stream<Q: Message, A: Message>(&self, method: &str, request: &Q) -> Result<Stream<A>, CallError> {
        let response = self.send(method, Either::Left(Full::new(framed(&request.encode()))), None).await?;
        Ok(Stream { answers: Answers::of(response, self.options.max_message)?, of: PhantomData })
    }

    /// Calls a method with which messages go to and fro until either end is dropped.
    ///
    /// # Errors
    /// [`CallError`]
    pub async fn open_stream(&self, method: &str, first: &[u8]) -> Result<(Messages, Answers), CallError> {
        let (sender, receiver) = mpsc::unbounded();
        let messages = Messages(sender);
        messages.send(first);
        let response = self.send(method, Either::Right(StreamBody::new(receiver)), None).await?;
        Ok((messages, Answers::of(response, self.options.max_message)?))
    }

    async fn send(&self, method: &str, body: Body, timeout: Option<Duration>) -> Result<Response<Incoming>, CallError> {
        let base = &self.options.base;
        let mut sender = self.sender.clone();
        sender.ready().await.map_err(|e| CallError::NotSent(format!("{base}: {e}")))?;
        let mut request = Request::post(format!("{base}{method}"))
            .header(header::TE, "trailers")
            .header(header::CONTENT_TYPE, "application/grpc");
        for (name, value) in &self.options.headers {
            request = request.header(name, value);
        }
        if let Some(timeout) = timeout {
            request = request.header("grpc-timeout", told_timeout(timeout));
        }
        let request = request.body(body).map_err(|e| CallError::NotSent(e.to_string()))?;
        sender.send_request(request).await.map_err(|e| CallError::Broken(format!("{base}: {e}")))
    }
}

/// At most eight digits and a unit.
fn told_timeout(timeout: Duration) -> String {
    match timeout.as_millis() {
        millis @ 0..=99_999_999 => format!("{millis}m"),
        _ => format!("{}S", timeout.as_secs().min(99_999_999)),
    }
}

fn broken(why: &str) -> CallError {
    CallError::Broken(format!("the answer is not understood: {why}"))
}

fn read<A: Message>(answer: &[u8]) -> Result<A, CallError> {
    decode(answer).map_err(|e| Status::internal(format!("grpc: failed to unmarshal the received message: {e}")).into())
}

/// The way to the server of a call that stays open.
pub struct Messages(mpsc::UnboundedSender<Result<Frame<Bytes>, Infallible>>);

impl Messages {
    pub fn send(&self, message: &[u8]) {
        // A call that ended says so where its answers are read.
        let _ = self.0.unbounded_send(Ok(Frame::data(framed(message))));
    }
}

/// The answers of a call that answers many times.
pub struct Stream<A> {
    answers: Answers,
    of: PhantomData<fn() -> A>,
}

impl<A: Message> Stream<A> {
    /// The next answer; nothing when the call ended well.
    ///
    /// # Errors
    /// [`CallError`]
    pub async fn next(&mut self) -> Result<Option<A>, CallError> {
        self.answers.next().await?.map(|answer| read(&answer)).transpose()
    }
}

/// The answers of a call, one after the other, as they came.
pub struct Answers {
    body: Incoming,
    frames: Frames,
}

impl Answers {
    fn of(response: Response<Incoming>, max_message: usize) -> Result<Self, CallError> {
        if response.status() != http::StatusCode::OK {
            return Err(of_http(response.status()).into());
        }
        match told(response.headers()) {
            Some(Err(failure)) => Err(failure.into()),
            _ => Ok(Self { body: response.into_body(), frames: Frames::new(max_message) }),
        }
    }

    /// The next answer; nothing when the call ended well.
    ///
    /// # Errors
    /// [`CallError`]
    pub async fn next(&mut self) -> Result<Option<Bytes>, CallError> {
        loop {
            if let Some(message) = self.frames.take()? {
                return Ok(Some(message));
            }
            match self.body.frame().await {
                None => return Err(CallError::Broken("the connection ended".into())),
                Some(Err(error)) => return Err(CallError::Broken(format!("the connection broke: {error}"))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.frames.push(&data),
                    Err(frame) => match frame.trailers_ref().and_then(told) {
                        Some(Ok(())) if self.frames.is_empty() => return Ok(None),
                        Some(Ok(())) => return Err(broken("it is cut off")),
                        Some(Err(failure)) => return Err(failure.into()),
                        None => return Err(broken("it ends without a status")),
                    },
                },
            }
        }
    }
}

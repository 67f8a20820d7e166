//! A server on a unix socket: takes one request for each call, and answers once or many times.
//!
//! Bounded are connections, calls on each, the sizes of requests, and the time that `grpc-timeout` gives.

use crate::frames::{Frames, framed};
use crate::status::{Code, Status, tell};
use crate::{Message, decode};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

const MAX_HEADER_BYTES: u32 = 16 << 10;
/// Between attempts to accept after one failed, for want of descriptors for instance.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a server takes at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub connections: usize,
    /// Calls on one connection at a time.
    pub calls: u32,
    /// Bytes of a request.
    pub max_message: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 64, calls: 100, max_message: crate::MAX_MESSAGE }
    }
}

/// What is called.
pub trait Service: Send + Sync + 'static {
    fn call(self: Arc<Self>, call: Call) -> BoxFuture<'static, Result<Answer, Status>>;
}

/// One call: the path of its method, and its request.
#[derive(Debug)]
pub struct Call {
    /// Such as `/runtime.v1.RuntimeService/Version`.
    pub method: String,
    pub message: Bytes,
    /// When the client will have given up.
    pub deadline: Option<Instant>,
}

impl Call {
    /// # Errors
    /// `Internal`, as grpc-go says it, when the request is none.
    pub fn request<Q: Message>(&self) -> Result<Q, Status> {
        decode(&self.message).map_err(|e| Status::internal(format!("grpc: error unmarshalling request: {e}")))
    }
}

pub enum Answer {
    Once(Vec<u8>),
    Many(BoxStream<'static, Result<Vec<u8>, Status>>),
}

impl Answer {
    pub fn once(message: &impl Message) -> Self {
        Self::Once(message.encode())
    }

    pub fn many<A: Message>(messages: impl futures::Stream<Item = Result<A, Status>> + Send + 'static) -> Self {
        Self::Many(messages.map(|message| message.map(|message| message.encode())).boxed())
    }
}

/// Opens a socket in place of one that an earlier process left.
///
/// # Errors
/// The socket cannot be made, or a server that lives has it.
pub fn bind(path: &Path, mode: u32) -> io::Result<UnixListener> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another server listens there"));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(listener)
}

/// Serves until it is told to stop; calls that run then are cut off.
pub async fn serve<S: Service>(listener: UnixListener, service: Arc<S>, limits: Limits, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(limits.connections));
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let Some((place, accepted)) = stop.run_until_cancelled(accepted).await else { return };
        match accepted {
            Ok((stream, _)) => {
                let (service, stop) = (Arc::clone(&service), stop.clone());
                tokio::spawn(async move {
                    let _place = place;
                    // A connection that is cut off has no more to say.
                    let _ended = stop.run_until_cancelled(serve_connection(stream, service, limits)).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a gRPC connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_connection<S: Service>(stream: UnixStream, service: Arc<S>, limits: Limits) {
    let serving = service_fn(move |request| {
        let service = Arc::clone(&service);
        async move { Ok::<_, Infallible>(respond(request, service, limits.max_message).await) }
    });
    let connection = Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.calls)
        .max_header_list_size(MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), serving);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a gRPC connection ended");
    }
}

type Body = StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>;

async fn respond<S: Service>(request: Request<Incoming>, service: Arc<S>, max: usize) -> Response<Body> {
    let deadline = deadline(request.headers());
    let work = async {
        let call = read(request, deadline, max).await?;
        service.call(call).await
    };
    let answer = match deadline {
        Some(deadline) => timeout_at(deadline, work).await.unwrap_or_else(|_| Err(late())),
        None => work.await,
    };
    let (frames, outcome) = match answer {
        Ok(Answer::Once(message)) => (futures::stream::iter([data(&message), end(Ok(()))]).boxed(), Ok(())),
        Ok(Answer::Many(messages)) => (until_the_first_failure(messages, deadline), Ok(())),
        Err(status) => (futures::stream::empty().boxed(), Err(status)),
    };
    let mut response = Response::new(StreamBody::new(frames.map(Ok).boxed()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    // A failure without an answer needs no trailers.
    if let Err(status) = &outcome {
        tell(Err(status), response.headers_mut());
    }
    response
}

async fn read(request: Request<Incoming>, deadline: Option<Instant>, max: usize) -> Result<Call, Status> {
    let kind = request.headers().get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    if request.method() != http::Method::POST || !kind.starts_with(b"application/grpc") {
        return Err(Status::internal("the request is no call: it is no POST of application/grpc"));
    }
    let method = request.uri().path().to_owned();
    let (mut body, mut frames) = (request.into_body(), Frames::new(max));
    let mut message = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Status::new(Code::CANCELED, e.to_string()))?;
        let Ok(data) = frame.into_data() else { continue };
        frames.push(&data);
        if let Some(whole) = frames.take()?
            && message.replace(whole).is_some()
        {
            return Err(Status::internal("the call has more than one request"));
        }
    }
    let message = message.filter(|_| frames.is_empty()).ok_or_else(|| Status::internal("the request is cut off"))?;
    Ok(Call { method, message, deadline })
}

fn data(message: &[u8]) -> Frame<Bytes> {
    Frame::data(framed(message))
}

fn end(outcome: Result<(), &Status>) -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    tell(outcome, &mut trailers);
    Frame::trailers(trailers)
}

fn late() -> Status {
    Status::new(Code::DEADLINE_EXCEEDED, "context deadline exceeded")
}

fn until_the_first_failure(
    messages: BoxStream<'static, Result<Vec<u8>, Status>>,
    deadline: Option<Instant>,
) -> BoxStream<'static, Frame<Bytes>> {
    futures::stream::unfold(Some(messages), move |messages| async move {
        let mut messages = messages?;
        let next = match deadline {
            Some(deadline) => timeout_at(deadline, messages.next()).await.unwrap_or_else(|_| Some(Err(late()))),
            None => messages.next().await,
        };
        Some(match next {
            Some(Ok(message)) => (data(&message), Some(messages)),
            Some(Err(status)) => (end(Err(&status)), None),
            None => (end(Ok(())), None),
        })
    })
    .boxed()
}

/// `grpc-timeout`: at most eight digits and a unit. One that is not understood is none.
fn deadline(headers: &HeaderMap) -> Option<Instant> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = number.parse().ok().filter(|_| number.len() <= 8)?;
    let time = match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    };
    Instant::now().checked_add(time)
}

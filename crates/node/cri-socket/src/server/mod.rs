//! Answers `runtime.v1` on a unix socket from a runtime.
//!
//! Nothing runs while nobody asks: the loopback server of exec, attach and port-forward is opened by the first of them.

mod images;
mod runtime;
mod stats;
mod streaming;
mod watch;

use crate::convert::of_cri;
use futures::FutureExt;
use futures::future::BoxFuture;
use pintle_cri::{CriError, Runtime};
use pintle_grpc::{Answer, Call, Limits, Message, Service, Status};
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

/// Only root and its group: whoever reaches the socket has the machine.
const SOCKET_MODE: u32 = 0o660;
/// Items of one message of a `Stream…` call.
const CHUNK: usize = 64;

/// A socket that is open already.
pub struct CriServer(UnixListener);

impl CriServer {
    /// Opens the socket.
    ///
    /// # Errors
    /// It cannot be made, or another server listens on it.
    pub fn bind(path: &Path) -> io::Result<Self> {
        pintle_grpc::bind(path, SOCKET_MODE).map(Self)
    }

    /// Serves until it is told to stop.
    pub async fn serve(self, runtime: Arc<dyn Runtime>, stop: CancellationToken) {
        let streams = streaming::Streams::new(Arc::clone(&runtime), stop.clone());
        let served = Arc::new(Served { runtime, streams });
        pintle_grpc::serve(self.0, served, Limits::default(), stop).await;
    }
}

struct Served {
    runtime: Arc<dyn Runtime>,
    streams: Arc<streaming::Streams>,
}

impl Service for Served {
    fn call(self: Arc<Self>, call: Call) -> BoxFuture<'static, Result<Answer, Status>> {
        // What was begun is done to its end, also when the client goes: nothing is to stay half made.
        let work = tokio::spawn(async move {
            let method = call.method.clone();
            if let Some(verb) = method.strip_prefix("/runtime.v1.RuntimeService/") {
                return self.runtime_call(verb, &call).await;
            }
            match method.strip_prefix("/runtime.v1.ImageService/") {
                Some(verb) => self.image_call(verb, &call).await,
                None => Err(Status::unknown_method(&method)),
            }
        });
        async move { work.await.map_err(|e| Status::internal(format!("the call failed: {e}")))? }.boxed()
    }
}

fn done<A: Message>(answer: Result<A, CriError>) -> Result<Answer, Status> {
    answer.map(|answer| Answer::once(&answer)).map_err(of_cri)
}

/// Many items in messages of a few.
fn in_chunks<T, A>(items: Vec<T>, message: impl Fn(Vec<T>) -> A + Send + 'static) -> Answer
where
    T: Send + 'static,
    A: Message,
{
    let mut rest = items.into_iter();
    Answer::many(futures::stream::poll_fn(move |_| {
        let chunk: Vec<T> = rest.by_ref().take(CHUNK).collect();
        std::task::Poll::Ready((!chunk.is_empty()).then(|| Ok(message(chunk))))
    }))
}

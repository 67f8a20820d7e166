//! Connections that become streams: a process's stdio, raw for terminals, else in frames that say which output it is.

use crate::answer::{Answer, Result, bytes, stream};
use crate::call::Call;
use bytes::{BufMut, Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::BoxStream;
use http::{HeaderValue, StatusCode};
use hyper_util::rt::TokioIo;
use pintle_cri::{ByteReader, ByteWriter};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

/// Bytes that are read at once.
const CHUNK: usize = 32 << 10;
/// Pieces that may wait for a slow client.
const WAITING: usize = 4;
/// Clients that read the answer's head into a buffer, such as Python's, lose what comes together with it: what is there
/// to be sent at once is sent a moment later.
pub(crate) const HEAD_PAUSE: Duration = Duration::from_millis(10);
const RAW: &str = "application/vnd.docker.raw-stream";
const MULTIPLEXED: &str = "application/vnd.docker.multiplexed-stream";

/// The streams of a process as a client gets them.
#[derive(Default)]
pub(crate) struct Streams {
    /// Sent before anything else.
    pub(crate) before: Bytes,
    /// What the process said until now, sent before what it says next.
    pub(crate) past: Option<BoxStream<'static, Bytes>>,
    pub(crate) stdin: Option<ByteWriter>,
    pub(crate) stdout: Option<ByteReader>,
    pub(crate) stderr: Option<ByteReader>,
    pub(crate) tty: bool,
    /// The keys that end the client's part, where there is a terminal.
    pub(crate) detach: Vec<u8>,
    /// The streams stay open until this resolves.
    pub(crate) ended: Option<oneshot::Receiver<()>>,
}

/// How the client's part ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Output,
    Detached,
}

/// One piece of output with its header.
pub(crate) fn frame(stream: u8, piece: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(piece.len() + 8);
    framed.put_u8(stream);
    framed.put_bytes(0, 3);
    framed.put_u32(u32::try_from(piece.len()).unwrap_or(u32::MAX));
    framed.put_slice(piece);
    framed.freeze()
}

pub(crate) fn content_type(tty: bool, version: u32) -> &'static str {
    if tty || version < 42 { RAW } else { MULTIPLEXED }
}

/// Answers that the connection is the client's stream from now on; `serve` gets it.
pub(crate) fn take_over<F, R>(call: &mut Call, tty: bool, serve: F) -> Result
where
    F: FnOnce(TokioIo<hyper::upgrade::Upgraded>) -> R + Send + 'static,
    R: Future<Output = ()> + Send,
{
    let kind = content_type(tty, call.version);
    let upgrading = call.upgrade()?;
    tokio::spawn(async move {
        match upgrading.await {
            Ok(upgraded) => serve(TokioIo::new(upgraded)).await,
            Err(error) => tracing::debug!(%error, "a client went before its stream began"),
        }
    });
    let mut answer = bytes(StatusCode::SWITCHING_PROTOCOLS, kind, "");
    answer.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.headers_mut().insert(http::header::UPGRADE, HeaderValue::from_static("tcp"));
    Ok(answer)
}

/// For clients that do not upgrade: output only, as the body of the answer.
pub(crate) fn as_body(mut streams: Streams, version: u32) -> Answer {
    let kind = content_type(streams.tty, version);
    let (sender, receiver) = mpsc::channel(WAITING);
    drop(streams.stdin.take());
    tokio::spawn(async move {
        // The client may go at any time.
        let _ = sender.send(Ok(std::mem::take(&mut streams.before))).await;
        if let Some(mut past) = streams.past.take() {
            while let Some(piece) = past.next().await {
                if sender.send(Ok(piece)).await.is_err() {
                    return;
                }
            }
        }
        pass_on(streams.stdout, streams.stderr, streams.tty, sender, streams.ended).await;
    });
    stream(kind, receiver_stream(receiver))
}

/// A channel as a stream.
pub(crate) fn receiver_stream<T: Send + 'static>(
    receiver: mpsc::Receiver<T>,
) -> impl futures::Stream<Item = T> + Send + 'static {
    futures::stream::unfold(receiver, |mut receiver| async move { receiver.recv().await.map(|item| (item, receiver)) })
}

/// Serves a client over its connection until the output ends or it detaches.
pub(crate) async fn serve<C>(connection: TokioIo<C>, streams: Streams) -> Ending
where
    TokioIo<C>: tokio::io::AsyncRead + AsyncWrite + Send + Unpin,
{
    let (mut from, mut to) = tokio::io::split(connection);
    let (sender, mut pieces) = mpsc::channel::<io::Result<Bytes>>(WAITING);
    let Streams { before, past, stdin, stdout, stderr, tty, detach, ended } = streams;
    let output = async {
        if !before.is_empty() && to.write_all(&before).await.is_err() {
            return;
        }
        if past.is_some() {
            tokio::time::sleep(HEAD_PAUSE).await;
        }
        let mut past = past.unwrap_or_else(|| futures::stream::empty().boxed());
        while let Some(piece) = past.next().await {
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
        while let Some(Ok(piece)) = pieces.recv().await {
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
        // The client may have gone.
        let _ = to.shutdown().await;
    };
    let reading = pass_on(stdout, stderr, tty, sender, ended);
    let input = pass_in(&mut from, stdin, if tty { detach } else { Vec::new() });
    let outputs = async { tokio::join!(reading, output) };
    tokio::pin!(outputs, input);
    tokio::select! {
        _ = &mut outputs => Ending::Output,
        ending = &mut input => match ending {
            Input::Detached => Ending::Detached,
            Input::Ended => {
                outputs.await;
                Ending::Output
            }
        },
    }
}

enum Input {
    Ended,
    Detached,
}

/// Passes the client's input on. Its end is the end of the process's stdin, as far as that has one.
async fn pass_in(from: &mut (impl tokio::io::AsyncRead + Unpin), stdin: Option<ByteWriter>, detach: Vec<u8>) -> Input {
    let mut stdin = stdin;
    let mut keys = crate::detach::Keys::new(detach);
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(count) => count,
        };
        let Some(writer) = &mut stdin else { continue };
        let (passed, detached) = keys.filter(&buffer[..count]);
        let written = writer.write_all(&passed).await.and(writer.flush().await);
        if detached {
            return Input::Detached;
        }
        if written.is_err() {
            stdin = None;
        }
    }
    if let Some(mut writer) = stdin {
        // It may have closed its end.
        let _ = writer.shutdown().await;
    }
    Input::Ended
}

/// Reads both outputs, side by side, until both end or the receiver goes.
async fn pass_on(
    stdout: Option<ByteReader>,
    stderr: Option<ByteReader>,
    raw: bool,
    sender: mpsc::Sender<io::Result<Bytes>>,
    ended: Option<oneshot::Receiver<()>>,
) {
    let one = |reader: Option<ByteReader>, number: u8, sender: mpsc::Sender<io::Result<Bytes>>| async move {
        let Some(mut reader) = reader else { return };
        let mut buffer = vec![0; CHUNK];
        while let Ok(count) = reader.read(&mut buffer).await {
            let piece = match raw {
                _ if count == 0 => return,
                true => Bytes::copy_from_slice(&buffer[..count]),
                false => frame(number, &buffer[..count]),
            };
            if sender.send(Ok(piece)).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(one(stdout, 1, sender.clone()), one(stderr, 2, sender.clone()));
    if let Some(ended) = ended {
        // It is told or dropped, and either way there is nothing to wait for any more.
        let _ = ended.await;
    }
}

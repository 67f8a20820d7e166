//! Gathers what a connection writes while it is polled, and sends it in one go.
//!
//! HTTP/2 flushes after every frame: with a hundred watchers on a connection that is a hundred records of TLS and a
//! hundred system calls for one event. Here flushes are put off to the end of the poll.

use parking_lot::Mutex;
use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What waits at most, in bytes; as much as TLS takes at a time.
const LIMIT: usize = 64 << 10;
/// Larger writes are passed on as they are when nothing waits before them.
const LARGE: usize = 16 << 10;

/// How many empty buffers a thread keeps for the next that writes, and the largest of them in bytes.
const SPARE: usize = 4;
const SPARE_BYTES: usize = 16 << 10;

thread_local! {
    static BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer that another connection has done with, or a new one.
fn buffer() -> Vec<u8> {
    BUFFERS.try_with(|buffers| buffers.borrow_mut().pop()).ok().flatten().unwrap_or_default()
}

/// Keeps a buffer that is done with, if there is need for it.
fn give_back(mut buffer: Vec<u8>) {
    if !(1..=SPARE_BYTES).contains(&buffer.capacity()) {
        return;
    }
    buffer.clear();
    // A thread that ends keeps nothing.
    let _ = BUFFERS.try_with(|buffers| {
        let mut buffers = buffers.borrow_mut();
        if buffers.len() < SPARE {
            buffers.push(buffer);
        }
    });
}

struct Inner<S> {
    stream: S,
    waiting: Vec<u8>,
    /// How much of `waiting` is sent already.
    sent: usize,
    /// The connection is being polled: whatever it flushes is flushed when that is over.
    held: bool,
}

impl<S: AsyncWrite + Unpin> Inner<S> {
    fn drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.waiting.len() {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(context, &self.waiting[self.sent..]))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += sent;
        }
        // An idle connection keeps no memory.
        give_back(std::mem::take(&mut self.waiting));
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    fn flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.drain(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }
}

/// A stream whose writes are gathered; made with the [`Gatherer`] that sends them.
pub(crate) struct Gathered<S>(Arc<Mutex<Inner<S>>>);

/// Sends what a connection wrote after each poll of it.
pub(crate) struct Gatherer<S>(Arc<Mutex<Inner<S>>>);

pub(crate) fn gather<S>(stream: S) -> (Gathered<S>, Gatherer<S>) {
    let inner = Arc::new(Mutex::new(Inner { stream, waiting: Vec::new(), sent: 0, held: false }));
    (Gathered(inner.clone()), Gatherer(inner))
}

impl<S: AsyncWrite + Unpin> Gatherer<S> {
    /// Polls the connection, then sends what it wrote.
    pub fn poll<F: Future>(&self, connection: Pin<&mut F>, context: &mut Context<'_>) -> Poll<F::Output> {
        self.0.lock().held = true;
        let polled = connection.poll(context);
        let mut inner = self.0.lock();
        inner.held = false;
        // What can't be sent now is sent when the stream takes more, which wakes this task; the connection itself hears
        // of an error when it writes or reads next.
        let _ = inner.flush(context);
        polled
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.0.lock();
        if !inner.held {
            // A connection that changed its protocol is nobody's to poll: nothing would send what waits.
            ready!(inner.drain(context))?;
            return Pin::new(&mut inner.stream).poll_write_vectored(context, slices);
        }
        if inner.waiting.len() >= LIMIT {
            ready!(inner.drain(context))?;
        }
        if inner.waiting.is_empty()
            && let Some(large) = slices.iter().find(|slice| !slice.is_empty()).filter(|slice| slice.len() >= LARGE)
        {
            return Pin::new(&mut inner.stream).poll_write(context, large);
        }
        if inner.waiting.capacity() == 0 {
            inner.waiting = buffer();
        }
        let mut taken = 0;
        for slice in slices {
            let room = LIMIT.saturating_sub(inner.waiting.len());
            let part = &slice[..slice.len().min(room)];
            inner.waiting.extend_from_slice(part);
            taken += part.len();
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.lock();
        if inner.held { Poll::Ready(Ok(())) } else { inner.flush(context) }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.lock();
        ready!(inner.drain(context))?;
        Pin::new(&mut inner.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn what_is_written_in_one_poll_is_sent_together() {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let (mut stream, gatherer) = gather(ours);
        let connection = async {
            for part in ["a", "b", "c"] {
                stream.write_all(part.as_bytes()).await?;
                stream.flush().await?;
            }
            stream.write_all(&[b'd'; 3 * LIMIT]).await
        };
        tokio::pin!(connection);
        poll_fn(|context| gatherer.poll(connection.as_mut(), context)).await.unwrap();
        let mut start = [0; 4];
        theirs.read_exact(&mut start).await.unwrap();
        assert_eq!(&start, b"abcd");
        let mut rest = vec![0; 3 * LIMIT - 1];
        theirs.read_exact(&mut rest).await.unwrap();
    }

    #[tokio::test]
    async fn out_of_a_poll_flushes_are_real_and_slow_readers_get_all() {
        let (ours, mut theirs) = tokio::io::duplex(10);
        let (mut stream, _gatherer) = gather(ours);
        let write = async {
            stream.write_all(&[b'x'; 100]).await?;
            stream.flush().await?;
            stream.shutdown().await
        };
        let mut all = Vec::new();
        let (written, read) = tokio::join!(write, theirs.read_to_end(&mut all));
        written.unwrap();
        assert_eq!((read.unwrap(), all.len()), (100, 100));
    }
}

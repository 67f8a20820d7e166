//! Byte streams made of the frames of one connection that many streams share.

use bytes::Bytes;
use futures::StreamExt;
use pintle_cri::{ByteReader, ByteWriter};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::io::StreamReader;
use tokio_util::sync::PollSender;

/// Frames that wait for a reader or for the wire, at most: what bounds memory and makes slow ones slow down fast ones.
pub(crate) const QUEUED_FRAMES: usize = 64;
/// Bytes of one frame, at most.
const FRAME_BYTES: usize = 32 << 10;

/// What a stream gives to the connection's writer.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Data(u32, Bytes),
    /// The stream ends in our direction.
    End(u32),
    /// SPDY only: opens a stream.
    Open(u32, Vec<(String, String)>),
    /// SPDY only: accepts a stream.
    Accept(u32),
    /// SPDY only: refuses or ends a stream in both directions.
    Reset(u32),
    /// SPDY only: answers a ping.
    Pong(u32),
}

/// The reading side of a stream; it ends when the sender is dropped.
pub(crate) fn reader() -> (mpsc::Sender<Bytes>, ByteReader) {
    let (sender, mut receiver) = mpsc::channel::<Bytes>(QUEUED_FRAMES);
    let frames = futures::stream::poll_fn(move |cx| receiver.poll_recv(cx)).map(io::Result::Ok);
    (sender, Box::new(StreamReader::new(frames)))
}

/// The writing side of stream `id`.
pub(crate) fn writer(id: u32, out: mpsc::Sender<Outgoing>) -> ByteWriter {
    Box::new(FrameWriter { id, out: PollSender::new(out), ended: false })
}

struct FrameWriter {
    id: u32,
    out: PollSender<Outgoing>,
    ended: bool,
}

fn gone<T>(_: T) -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the client has gone")
}

impl AsyncWrite for FrameWriter {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.out.poll_reserve(cx)).map_err(gone)?;
        let taken = data.len().min(FRAME_BYTES);
        let frame = Outgoing::Data(self.id, Bytes::copy_from_slice(&data[..taken]));
        self.out.send_item(frame).map_err(gone)?;
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.ended {
            ready!(self.out.poll_reserve(cx)).map_err(gone)?;
            let end = Outgoing::End(self.id);
            self.out.send_item(end).map_err(gone)?;
            self.ended = true;
        }
        Poll::Ready(Ok(()))
    }
}

/// A reader and a writer as one stream.
pub(crate) struct Joined {
    pub(crate) reader: ByteReader,
    pub(crate) writer: ByteWriter,
}

impl AsyncRead for Joined {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Joined {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writer).poll_write(cx, data)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_shutdown(cx)
    }
}

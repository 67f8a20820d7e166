//! Turns the body of an answer into what reads like a file, and back.

use crate::error::{Error, Result};
use bytes::{Buf, Bytes};
use http::Response;
use http_body_util::{BodyExt, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use std::io::{self, Read};
use std::path::Path;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

/// Pieces that may wait between the network and the disk.
const WAITING: usize = 16;
/// Bytes of a piece that is sent.
const PIECE: usize = 128 << 10;

/// Reads a whole body of at most `limit` bytes.
pub(crate) async fn collect(response: Response<Incoming>, limit: usize) -> Result<Bytes> {
    let collected = Limited::new(response.into_body(), limit).collect().await;
    collected.map(|body| body.to_bytes()).map_err(|e| Error::Invalid(format!("the registry's answer: {e}")))
}

/// The reading end of a channel of pieces, for a blocking thread.
pub(crate) struct Pieces {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

/// A channel from the network to a blocking thread.
pub(crate) fn pieces() -> (mpsc::Sender<io::Result<Bytes>>, Pieces) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (sender, Pieces { receiver, current: Bytes::new() })
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.current = piece?,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

/// A file as the body of a request; `sent` is told of each piece.
pub(crate) async fn file_body(
    path: &Path,
    sent: impl Fn(u64) + Send + Sync + 'static,
) -> io::Result<crate::connection::SendBody> {
    let file = tokio::fs::File::open(path).await?;
    let pieces = futures::stream::try_unfold((file, 0_u64, sent), |(mut file, mut total, sent)| async move {
        let mut buffer = Vec::with_capacity(PIECE);
        let count = (&mut file).take(PIECE as u64).read_to_end(&mut buffer).await?;
        if count == 0 {
            return Ok::<_, io::Error>(None);
        }
        total += count as u64;
        sent(total);
        Ok(Some((Frame::data(Bytes::from(buffer)), (file, total, sent))))
    });
    Ok(StreamBody::new(Box::pin(pieces)).boxed())
}

//! A client's SPDY session: opens streams, and carries their bytes.

use super::frame::{Decoder, Frame};
use super::session::{Stream, write_frames};
use crate::pipe::{self, Outgoing, QUEUED_FRAMES};
use bytes::{Bytes, BytesMut};
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::mpsc;

/// Where the data of each stream goes; none when the connection has ended.
type Open = Arc<Mutex<Option<HashMap<u32, mpsc::Sender<Bytes>>>>>;

/// A connection to a server. It ends with the last of its streams.
pub struct Client {
    out: mpsc::Sender<Outgoing>,
    open: Open,
    next: u32,
}

/// Carries a session over a connection in the background.
pub fn connect(connection: impl AsyncRead + AsyncWrite + Send + 'static) -> Client {
    let (reader, writer) = tokio::io::split(connection);
    let (out, outgoing) = mpsc::channel(QUEUED_FRAMES);
    let open: Open = Arc::new(Mutex::new(Some(HashMap::new())));
    // Only those who send keep the connection.
    let (pongs, shared) = (out.downgrade(), Arc::clone(&open));
    let reading = tokio::spawn(async move {
        if let Err(error) = read_frames(reader, &pongs, &shared).await {
            tracing::debug!(%error, "a SPDY connection ended");
        }
        shared.lock().unwrap_or_else(PoisonError::into_inner).take();
    });
    tokio::spawn(async move {
        write_frames(writer, outgoing).await;
        reading.abort();
    });
    Client { out, open, next: 1 }
}

impl Client {
    /// Opens a stream.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn open(&mut self, headers: Vec<(String, String)>) -> io::Result<Stream> {
        let gone = || io::Error::new(io::ErrorKind::ConnectionReset, "the server has gone");
        let id = self.next;
        self.next += 2;
        let (sender, reader) = pipe::reader();
        {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.as_mut().ok_or_else(gone)?.insert(id, sender);
        }
        self.out.send(Outgoing::Open(id, headers.clone())).await.map_err(|_| gone())?;
        Ok(Stream { id, headers, reader, writer: pipe::writer(id, self.out.clone()) })
    }
}

async fn read_frames(
    mut reader: impl AsyncRead + Unpin,
    pongs: &mpsc::WeakSender<Outgoing>,
    open: &Open,
) -> io::Result<()> {
    let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::with_capacity(16 << 10));
    let close = |stream: u32| {
        let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
        open.as_mut().and_then(|open| open.remove(&stream))
    };
    loop {
        while let Some(frame) = decoder.decode(&mut buffer).map_err(io::Error::other)? {
            match frame {
                Frame::Data { stream, data, last } => {
                    let to = {
                        let open = open.lock().unwrap_or_else(PoisonError::into_inner);
                        open.as_ref().and_then(|open| open.get(&stream).cloned())
                    };
                    if let Some(to) = to.filter(|_| !data.is_empty()) {
                        // A reader that has gone wants no more data; the stream itself goes on.
                        let _ = to.send(data).await;
                    }
                    if last {
                        close(stream);
                    }
                }
                Frame::Reset { stream } => drop(close(stream)),
                Frame::Ping { id } if id % 2 == 0 => {
                    let Some(out) = pongs.upgrade() else { return Ok(()) };
                    if out.send(Outgoing::Pong(id)).await.is_err() {
                        return Ok(());
                    }
                }
                // Streams that a server opens have no use; those that are open come to their ends.
                Frame::Open { .. } | Frame::Ping { .. } | Frame::GoAway | Frame::Other => {}
            }
        }
        if reader.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn both_ends_of_a_session_understand_each_other() {
        let (here, there) = tokio::io::duplex(64 << 10);
        let (mut client, mut session) = (connect(here), super::super::serve(there));
        let headers = |kind: &str| vec![("streamtype".to_owned(), kind.to_owned())];
        let mut error = client.open(headers("error")).await.unwrap();
        let mut data = client.open(headers("data")).await.unwrap();
        let (mut served_error, mut served) = (session.accept().await.unwrap(), session.accept().await.unwrap());
        assert_eq!((served_error.header("streamtype"), served.header("streamtype")), (Some("error"), Some("data")));
        data.writer.write_all(b"ping").await.unwrap();
        data.writer.shutdown().await.unwrap();
        let mut got = String::new();
        served.reader.read_to_string(&mut got).await.unwrap();
        served.writer.write_all(got.repeat(2).as_bytes()).await.unwrap();
        served.writer.shutdown().await.unwrap();
        served_error.writer.shutdown().await.unwrap();
        let (mut answer, mut failure) = (String::new(), String::new());
        data.reader.read_to_string(&mut answer).await.unwrap();
        error.reader.read_to_string(&mut failure).await.unwrap();
        assert_eq!((answer.as_str(), failure.as_str()), ("pingping", ""));
        drop((client, error, data));
        assert!(session.accept().await.is_none(), "the connection ends with its streams");
    }

    #[tokio::test]
    async fn a_server_that_goes_ends_the_streams() {
        let (here, there) = tokio::io::duplex(64 << 10);
        let mut client = connect(here);
        let mut stream = client.open(Vec::new()).await.unwrap();
        drop(there);
        let mut rest = Vec::new();
        stream.reader.read_to_end(&mut rest).await.unwrap();
        assert!(client.open(Vec::new()).await.is_err());
    }
}

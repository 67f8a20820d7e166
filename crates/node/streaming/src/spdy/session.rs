//! A server's SPDY session: hands out the streams that the client opens, and carries their bytes.

use super::frame::{self, Decoder, Encoder, Frame};
use crate::pipe::{self, Outgoing, QUEUED_FRAMES};
use bytes::{Bytes, BytesMut};
use pintle_cri::{ByteReader, ByteWriter};
use std::collections::HashMap;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

/// Streams that one client may have open at a time.
const MAX_STREAMS: usize = 1024;

/// A stream of a session.
pub struct Stream {
    pub id: u32,
    /// Names in lower case, as the client gave them.
    pub headers: Vec<(String, String)>,
    pub reader: ByteReader,
    pub writer: ByteWriter,
}

impl Stream {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// The streams of a connection, as the client opens them. Nothing more comes when the connection has ended.
pub struct Session {
    streams: mpsc::Receiver<Stream>,
}

impl Session {
    pub async fn accept(&mut self) -> Option<Stream> {
        self.streams.recv().await
    }
}

/// Serves a connection in the background until either side closes it.
pub fn serve(connection: impl AsyncRead + AsyncWrite + Send + 'static) -> Session {
    let (reader, writer) = tokio::io::split(connection);
    let (out, outgoing) = mpsc::channel(QUEUED_FRAMES);
    let (opened, streams) = mpsc::channel(QUEUED_FRAMES);
    tokio::spawn(write_frames(writer, outgoing));
    tokio::spawn(async move {
        let mut incoming = Incoming { out, opened, open: HashMap::new() };
        if let Err(error) = incoming.read_frames(reader).await {
            tracing::debug!(%error, "a SPDY connection ended");
        }
    });
    Session { streams }
}

struct Incoming {
    out: mpsc::Sender<Outgoing>,
    opened: mpsc::Sender<Stream>,
    /// Where the data of each stream goes, while the client may still send some.
    open: HashMap<u32, mpsc::Sender<Bytes>>,
}

impl Incoming {
    async fn read_frames(&mut self, mut reader: impl AsyncRead + Unpin) -> io::Result<()> {
        let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::with_capacity(16 << 10));
        loop {
            while let Some(frame) = decoder.decode(&mut buffer).map_err(io::Error::other)? {
                if !self.handle(frame).await {
                    return Ok(());
                }
            }
            if reader.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
    }

    /// Returns whether to go on.
    async fn handle(&mut self, frame: Frame) -> bool {
        match frame {
            Frame::Open { stream, headers, last } => return self.open(stream, headers, last).await,
            Frame::Data { stream, data, last } => {
                if let Some(sender) = self.open.get(&stream).filter(|_| !data.is_empty()) {
                    // A reader that has gone wants no more data; the stream itself goes on.
                    let _ = sender.send(data).await;
                }
                if last {
                    self.open.remove(&stream);
                }
            }
            Frame::Reset { stream } => {
                self.open.remove(&stream);
            }
            Frame::Ping { id } => return self.out.send(Outgoing::Pong(id)).await.is_ok(),
            Frame::GoAway => return !self.open.is_empty(),
            Frame::Other => {}
        }
        true
    }

    async fn open(&mut self, id: u32, headers: Vec<(String, String)>, last: bool) -> bool {
        self.open.retain(|_, sender| !sender.is_closed());
        if self.open.len() >= MAX_STREAMS || self.open.contains_key(&id) {
            return self.out.send(Outgoing::Reset(id)).await.is_ok();
        }
        if self.out.send(Outgoing::Accept(id)).await.is_err() {
            return false;
        }
        let (sender, reader) = pipe::reader();
        if !last {
            self.open.insert(id, sender);
        }
        let writer = pipe::writer(id, self.out.clone());
        self.opened.send(Stream { id, headers, reader, writer }).await.is_ok()
    }
}

/// Writes what the streams send, many frames at a time; ends when nobody can send any more.
pub(super) async fn write_frames(mut writer: impl AsyncWrite + Unpin, mut outgoing: mpsc::Receiver<Outgoing>) {
    let (mut encoder, mut buffer) = (Encoder::new(), BytesMut::with_capacity(16 << 10));
    let mut batch = Vec::with_capacity(QUEUED_FRAMES);
    while outgoing.recv_many(&mut batch, QUEUED_FRAMES).await > 0 {
        for item in batch.drain(..) {
            match item {
                Outgoing::Data(id, data) => frame::data(id, &data, false, &mut buffer),
                Outgoing::End(id) => frame::data(id, &[], true, &mut buffer),
                Outgoing::Open(id, headers) => encoder.open(id, &headers, &mut buffer),
                Outgoing::Accept(id) => encoder.accept(id, &mut buffer),
                Outgoing::Reset(id) => frame::reset(id, &mut buffer),
                Outgoing::Pong(id) => frame::ping(id, &mut buffer),
            }
        }
        if writer.write_all(&buffer).await.is_err() || writer.flush().await.is_err() {
            return;
        }
        buffer.clear();
    }
    // The client learns of the end from the connection's.
    let _ = writer.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_go_both_ways_on_a_stream_and_ends_are_told() {
        let (server, mut wire) = tokio::io::duplex(64 << 10);
        let mut session = serve(server);
        let (mut client, mut out) = (Encoder::new(), BytesMut::new());
        client.open(1, &[("streamtype", "data"), ("port", "80")], &mut out);
        frame::data(1, b"ping", false, &mut out);
        frame::data(1, b"", true, &mut out);
        wire.write_all(&out).await.unwrap();
        let mut stream = session.accept().await.unwrap();
        assert_eq!(stream.header("port"), Some("80"));
        let mut got = String::new();
        stream.reader.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "ping");
        stream.writer.write_all(b"pong").await.unwrap();
        stream.writer.shutdown().await.unwrap();
        let (mut decoder, mut buffer, mut data) = (Decoder::default(), BytesMut::new(), Vec::new());
        loop {
            match decoder.decode(&mut buffer).unwrap() {
                Some(Frame::Data { data: more, last, .. }) => {
                    data.extend_from_slice(&more);
                    if last {
                        break;
                    }
                }
                Some(_) => {}
                None => assert_ne!(wire.read_buf(&mut buffer).await.unwrap(), 0),
            }
        }
        assert_eq!(data, b"pong");
        drop(wire);
        assert!(session.accept().await.is_none());
    }
}

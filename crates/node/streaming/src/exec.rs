//! Exec and attach: stdin, stdout, stderr, terminal sizes and a final status.

use crate::pipe;
use crate::upgrade::{Carrier, Connection, UpgradeError, carrier, negotiate, switch};
use crate::{StatusWriter, Upgraded, channels, spdy};
use bytes::Bytes;
use http::Request;
use pintle_cri::{ByteReader, ByteWriter, TerminalSize};
use std::collections::HashMap;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;

const WEBSOCKET_PROTOCOLS: [&str; 3] = ["v5.channel.k8s.io", "v4.channel.k8s.io", "channel.k8s.io"];
const SPDY_PROTOCOLS: [&str; 1] = ["v4.channel.k8s.io"];
/// Clients before 1.34 read before they have opened their streams, and throw away what comes for those that are not
/// there yet (kubernetes/kubernetes#131203). On a busy machine 20 ms lost the words of one command in three hundred.
const CLIENT_PATIENCE: Duration = Duration::from_millis(50);
const MAX_SIZE_MESSAGE_BYTES: usize = 1024;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;

/// Which streams a request asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    pub stdin: bool,
    pub stdout: bool,
    /// Never together with a terminal.
    pub stderr: bool,
    pub tty: bool,
}

/// A client's streams. Those that were not asked for are absent.
pub struct ExecStreams {
    pub stdin: Option<ByteReader>,
    pub stdout: Option<ByteWriter>,
    pub stderr: Option<ByteWriter>,
    /// Ends when the client has gone.
    pub resize: mpsc::Receiver<TerminalSize>,
    pub status: StatusWriter,
}

/// Answers an exec or attach request.
pub fn upgrade_exec<B>(request: Request<B>, wants: Wants) -> Result<Upgraded<ExecStreams>, UpgradeError> {
    let wants = Wants { stderr: wants.stderr && !wants.tty, ..wants };
    let carrier = carrier(request.headers())?;
    match carrier {
        Carrier::WebSocket => {
            let protocol = negotiate(request.headers(), carrier, &WEBSOCKET_PROTOCOLS)?;
            let patience = if protocol == WEBSOCKET_PROTOCOLS[0] { CLIENT_PATIENCE } else { Duration::ZERO };
            switch(request, carrier, protocol, move |c| over_websocket(c, wants, patience))
        }
        Carrier::Spdy => {
            let protocol = negotiate(request.headers(), carrier, &SPDY_PROTOCOLS)?;
            switch(request, carrier, protocol, move |c| over_spdy(spdy::serve(c), wants))
        }
    }
}

async fn over_websocket(connection: Connection, wants: Wants, patience: Duration) -> Result<ExecStreams, UpgradeError> {
    let (resize_in, resize_bytes) = mpsc::channel::<Bytes>(8);
    let mut inputs = HashMap::from([(RESIZE, resize_in)]);
    let stdin = wants.stdin.then(|| {
        let (sender, reader) = pipe::reader();
        inputs.insert(STDIN, sender);
        reader
    });
    let out = channels::serve(channels::websocket(connection).await, inputs, patience);
    let writer = |wanted: bool, channel: u8| wanted.then(|| pipe::writer(channel.into(), out.clone()));
    Ok(ExecStreams {
        stdin,
        stdout: writer(wants.stdout, STDOUT),
        stderr: writer(wants.stderr, STDERR),
        resize: sizes_of_messages(resize_bytes),
        status: StatusWriter::new(pipe::writer(ERROR.into(), out)),
    })
}

/// Each message on the resize channel is one size.
fn sizes_of_messages(mut messages: mpsc::Receiver<Bytes>) -> mpsc::Receiver<TerminalSize> {
    let (sender, sizes) = mpsc::channel(8);
    tokio::spawn(async move {
        while let Some(message) = messages.recv().await {
            let Ok(size) = serde_json::from_slice(&message) else { continue };
            if sender.send(size).await.is_err() {
                return;
            }
        }
    });
    sizes
}

async fn over_spdy(mut session: spdy::Session, wants: Wants) -> Result<ExecStreams, UpgradeError> {
    let (mut stdin, mut stdout, mut stderr, mut error, mut resize) = (None, None, None, None, None);
    let expected = [true, wants.stdin, wants.stdout, wants.stderr, wants.tty].into_iter().filter(|w| *w).count();
    for _ in 0..expected {
        let gone = || UpgradeError::Broken("the client left before it opened its streams".into());
        let stream = session.accept().await.ok_or_else(gone)?;
        match stream.header("streamtype") {
            Some("stdin") => stdin = Some(stream.reader),
            Some("stdout") => stdout = Some(stream.writer),
            Some("stderr") => stderr = Some(stream.writer),
            Some("error") => error = Some(stream.writer),
            Some("resize") => resize = Some(stream.reader),
            other => return Err(UpgradeError::BadRequest(format!("invalid stream type: {other:?}"))),
        }
    }
    let error = error.ok_or_else(|| UpgradeError::BadRequest("the client opened no error stream".into()))?;
    // The session lives as long as its streams; further ones that a client opens have no use.
    tokio::spawn(async move { while session.accept().await.is_some() {} });
    let resize = match resize {
        Some(reader) => sizes_of_stream(reader),
        None => mpsc::channel(1).1,
    };
    Ok(ExecStreams { stdin, stdout, stderr, resize, status: StatusWriter::new(error) })
}

/// The resize stream is JSON values one after the other, each on a line.
fn sizes_of_stream(mut reader: impl AsyncRead + Send + Unpin + 'static) -> mpsc::Receiver<TerminalSize> {
    let (sender, sizes) = mpsc::channel(8);
    tokio::spawn(async move {
        let mut buffer = Vec::new();
        while buffer.len() < MAX_SIZE_MESSAGE_BYTES && reader.read_buf(&mut buffer).await.is_ok_and(|n| n > 0) {
            let mut values = serde_json::Deserializer::from_slice(&buffer).into_iter::<TerminalSize>();
            let mut last = None;
            let mut end = 0;
            while let Some(Ok(size)) = values.next() {
                last = Some(size);
                end = values.byte_offset();
            }
            buffer.drain(..end);
            if let Some(size) = last
                && sender.send(size).await.is_err()
            {
                return;
            }
        }
    });
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn sizes_arrive_in_pieces_and_together() {
        let (mut client, server) = tokio::io::duplex(256);
        let mut sizes = sizes_of_stream(server);
        client.write_all(b"{\"Width\":80,\"He").await.unwrap();
        client.write_all(b"ight\":24}\n").await.unwrap();
        assert_eq!(sizes.recv().await, Some(TerminalSize { width: 80, height: 24 }));
        client.write_all(b"{\"Width\":100,\"Height\":50}\n").await.unwrap();
        assert_eq!(sizes.recv().await, Some(TerminalSize { width: 100, height: 50 }));
        drop(client);
        assert_eq!(sizes.recv().await, None);
    }
}

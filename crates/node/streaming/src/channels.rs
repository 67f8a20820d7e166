//! The channel protocol over WebSocket: the first byte of a message says which stream it belongs to.

use crate::pipe::{Outgoing, QUEUED_FRAMES};
use crate::upgrade::Connection;
use bytes::{Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{FutureExt, SinkExt, StreamExt};
use pintle_websocket::normal_end;
use std::collections::HashMap;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

const MAX_MESSAGE_BYTES: usize = 4 << 20;
/// v5: a message on this channel names a channel that ends.
const CLOSE: u8 = 255;

/// The server's end of a WebSocket on an upgraded connection.
pub(crate) async fn websocket(connection: Connection) -> WebSocketStream<Connection> {
    pintle_websocket::server(connection, MAX_MESSAGE_BYTES).await
}

/// Serves a connection in the background: what arrives on a channel goes to its sender; what is sent to the returned
/// queue goes out, the first of it not before the client has said something or had `patience`. Ends when the client
/// goes, or when all senders of the queue are dropped.
pub(crate) fn serve<C: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    socket: WebSocketStream<C>,
    inputs: HashMap<u8, mpsc::Sender<Bytes>>,
    patience: Duration,
) -> mpsc::Sender<Outgoing> {
    let (out, outgoing) = mpsc::channel(QUEUED_FRAMES);
    let (sink, stream) = socket.split();
    let (heard, ended) = (CancellationToken::new(), CancellationToken::new());
    let ready = tokio::time::timeout(patience, heard.clone().cancelled_owned()).map(drop);
    tokio::spawn(write_messages(sink, outgoing, ready, ended.clone()));
    tokio::spawn(async move {
        tokio::select! {
            () = read_messages(stream, inputs, heard) => {}
            () = ended.cancelled() => {}
        }
    });
    out
}

async fn read_messages<C: AsyncRead + AsyncWrite + Unpin>(
    mut stream: SplitStream<WebSocketStream<C>>,
    mut inputs: HashMap<u8, mpsc::Sender<Bytes>>,
    heard: CancellationToken,
) {
    while let Some(Ok(message)) = stream.next().await {
        heard.cancel();
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => Bytes::from(text),
            Message::Close(_) => return,
            _ => continue,
        };
        let Some((&channel, data)) = bytes.split_first() else { continue };
        if channel == CLOSE {
            data.iter().for_each(|ended| drop(inputs.remove(ended)));
        } else if let Some(sender) = inputs.get(&channel).filter(|_| !data.is_empty()) {
            // A reader that has gone wants no more data.
            let _ = sender.send(bytes.slice(1..)).await;
        }
    }
}

async fn write_messages<C: AsyncRead + AsyncWrite + Unpin>(
    mut sink: SplitSink<WebSocketStream<C>, Message>,
    mut outgoing: mpsc::Receiver<Outgoing>,
    ready: impl Future<Output = ()>,
    ended: CancellationToken,
) {
    let (mut next, ()) = tokio::join!(outgoing.recv(), ready);
    while let Some(item) = next {
        // Streams have no end of their own on the way to the client.
        if let Outgoing::Data(channel, data) = item {
            let mut message = BytesMut::with_capacity(1 + data.len());
            message.extend_from_slice(&[channel as u8]);
            message.extend_from_slice(&data);
            if sink.send(Message::Binary(message.freeze())).await.is_err() {
                break;
            }
        }
        next = outgoing.recv().await;
    }
    // The client may be gone already.
    let _ = sink.send(normal_end()).await;
    let _ = sink.close().await;
    ended.cancel();
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;
    use tokio_tungstenite::tungstenite::protocol::Role;

    /// When the first message came to a client that says `words` first, of an hour's patience.
    async fn waited(words: Option<&str>) -> Duration {
        let (ours, theirs) = tokio::io::duplex(1024);
        let begun = Instant::now();
        let socket = WebSocketStream::from_raw_socket(ours, Role::Server, None).await;
        let out = serve(socket, HashMap::new(), Duration::from_secs(3600));
        let mut client = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
        out.send(Outgoing::Data(1, Bytes::from_static(b"said"))).await.unwrap();
        if let Some(words) = words {
            client.send(Message::text(words)).await.unwrap();
        }
        assert_eq!(client.next().await.unwrap().unwrap(), Message::binary(&b"\x01said"[..]));
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_has_time_to_open_its_streams() {
        assert_eq!(waited(None).await.as_secs(), 3600);
        assert_eq!(waited(Some("4{}")).await.as_secs(), 0);
    }
}

//! The channel protocol over WebSocket: the first byte of a message says which stream it belongs to.

use crate::pipe::{Outgoing, QUEUED_FRAMES};
use crate::upgrade::Connection;
use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use std::collections::HashMap;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

const MAX_MESSAGE_BYTES: usize = 4 << 20;
/// v5: a message on this channel names a channel that ends.
const CLOSE: u8 = 255;

/// The server's end of a WebSocket on an upgraded connection.
pub(crate) async fn websocket(connection: Connection) -> WebSocketStream<Connection> {
    let limits =
        WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE_BYTES)).max_frame_size(Some(MAX_MESSAGE_BYTES));
    WebSocketStream::from_raw_socket(connection, Role::Server, Some(limits)).await
}

/// Serves a connection in the background: what arrives on a channel goes to its sender; what is sent to the returned
/// queue goes out. Ends when the client goes, or when all senders of the queue are dropped.
pub(crate) fn serve(
    socket: WebSocketStream<Connection>,
    inputs: HashMap<u8, mpsc::Sender<Bytes>>,
) -> mpsc::Sender<Outgoing> {
    let (out, outgoing) = mpsc::channel(QUEUED_FRAMES);
    let (sink, stream) = socket.split();
    let ended = tokio_util::sync::CancellationToken::new();
    tokio::spawn(write_messages(sink, outgoing, ended.clone()));
    tokio::spawn(async move {
        tokio::select! {
            () = read_messages(stream, inputs) => {}
            () = ended.cancelled() => {}
        }
    });
    out
}

async fn read_messages(
    mut stream: futures::stream::SplitStream<WebSocketStream<Connection>>,
    mut inputs: HashMap<u8, mpsc::Sender<Bytes>>,
) {
    while let Some(Ok(message)) = stream.next().await {
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

/// Clients take an end without this code for a failure.
pub(crate) fn normal_end() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() }))
}

async fn write_messages(
    mut sink: futures::stream::SplitSink<WebSocketStream<Connection>, Message>,
    mut outgoing: mpsc::Receiver<Outgoing>,
    ended: tokio_util::sync::CancellationToken,
) {
    while let Some(item) = outgoing.recv().await {
        // Streams have no end of their own on the way to the client.
        let Outgoing::Data(channel, data) = item else { continue };
        let mut message = BytesMut::with_capacity(1 + data.len());
        message.extend_from_slice(&[channel as u8]);
        message.extend_from_slice(&data);
        if sink.send(Message::Binary(message.freeze())).await.is_err() {
            break;
        }
    }
    // The client may be gone already.
    let _ = sink.send(normal_end()).await;
    let _ = sink.close().await;
    ended.cancel();
}

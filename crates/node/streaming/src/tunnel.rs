//! A WebSocket as a plain stream of bytes: what carries SPDY inside WebSocket (KEP-4006).

use crate::pipe::{self, Joined};
use crate::upgrade::Connection;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use pintle_websocket::normal_end;
use tokio::io::AsyncReadExt;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// The bytes of all binary messages in a row, both ways.
pub(crate) fn bytes_over(socket: WebSocketStream<Connection>) -> Joined {
    let (mut sink, mut stream) = socket.split();
    let (incoming, reader) = pipe::reader();
    let (writer, mut outgoing) = tokio::io::duplex(64 << 10);
    let reading = tokio::spawn(async move {
        while let Some(Ok(message)) = stream.next().await {
            let sent = match message {
                Message::Binary(bytes) => incoming.send(bytes).await,
                Message::Close(_) => return,
                _ => Ok(()),
            };
            if sent.is_err() {
                return;
            }
        }
    });
    tokio::spawn(async move {
        let mut buffer = vec![0; 32 << 10];
        while let Ok(n @ 1..) = outgoing.read(&mut buffer).await {
            let message = Message::Binary(Bytes::copy_from_slice(&buffer[..n]));
            if sink.send(message).await.is_err() {
                break;
            }
        }
        // The client may be gone already.
        let _ = sink.send(normal_end()).await;
        let _ = sink.close().await;
        reading.abort();
    });
    Joined { reader, writer: Box::new(writer) }
}

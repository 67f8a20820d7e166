//! Answers over WebSocket for clients that only listen: what a pod logs, and the events of a watch.
//!
//! Source: `k8s.io/streaming/pkg/httpstream/wsstream` and the apiserver's `endpoints/handlers/watch.go`.

use crate::pipeline::Call;
use crate::response::Answer;
use crate::subresources::upgrade::is_upgrade;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures::{Sink, SinkExt, Stream, StreamExt};
use http::header::{CONNECTION, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use hyper_util::rt::TokioIo;
use pintle_client::{Body, empty_body};
use pintle_types::Status;
use std::pin::pin;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

/// Clients have nothing to say: what they send is read, within this bound, and forgotten.
const MAX_HEARD_BYTES: usize = 64 << 10;
/// A client that was told of the end has so long to tell of its own.
const FAREWELL: Duration = Duration::from_secs(5);
/// More protocols than there are need not be looked at.
const MAX_PROTOCOLS: usize = 32;

/// How bytes become messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Binary,
    Base64,
    /// The bytes are text.
    Text,
}

impl Form {
    pub fn message(self, bytes: Bytes) -> Message {
        match self {
            Self::Binary => Message::Binary(bytes),
            Self::Base64 => Message::text(BASE64_STANDARD.encode(&bytes)),
            Self::Text => match Utf8Bytes::try_from(bytes) {
                Ok(text) => Message::Text(text),
                // Only JSON is sent as text, and that is UTF-8.
                Err(_) => Message::text(""),
            },
        }
    }
}

/// What was settled with a client that asked for a WebSocket.
#[derive(Debug)]
pub(crate) struct Handshake {
    pub form: Form,
    protocol: Option<HeaderValue>,
    accept: HeaderValue,
}

/// Whether the client asks for a WebSocket.
pub(crate) fn is_websocket(headers: &HeaderMap) -> bool {
    is_upgrade(headers) && headers.get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

impl Handshake {
    /// For a stream of bytes: the client's first protocol that is known says how they are sent. Fails with the status
    /// to refuse the request with.
    pub fn for_bytes(headers: &HeaderMap) -> Result<Self, StatusCode> {
        let wanted = protocols(headers);
        let known = wanted.iter().find_map(|&name| match name {
            "binary.k8s.io" => Some((Form::Binary, Some(HeaderValue::from_static("binary.k8s.io")))),
            "base64.binary.k8s.io" => Some((Form::Base64, Some(HeaderValue::from_static("base64.binary.k8s.io")))),
            _ => None,
        });
        let none = || wanted.is_empty().then_some((Form::Binary, None));
        let (form, protocol) = known.or_else(none).ok_or(StatusCode::FORBIDDEN)?;
        Ok(Self { form, protocol, accept: accept(headers)? })
    }

    /// For messages whose form is settled already. Only clients that say where they come from are served, and whatever
    /// protocol they name is theirs.
    pub fn for_messages(headers: &HeaderMap, form: Form) -> Result<Self, StatusCode> {
        let origin = headers.get(ORIGIN).and_then(|value| value.to_str().ok());
        if origin.and_then(|origin| origin.parse::<http::Uri>().ok()).is_none_or(|uri| uri.scheme().is_none()) {
            return Err(StatusCode::FORBIDDEN);
        }
        let protocol = match protocols(headers).as_slice() {
            [] => None,
            [only] => Some(HeaderValue::from_str(only).map_err(|_| StatusCode::BAD_REQUEST)?),
            _ => return Err(StatusCode::BAD_REQUEST),
        };
        Ok(Self { form, protocol, accept: accept(headers)? })
    }

    /// The answer that switches over; `messages` are sent after it, until they end, the client goes or the server
    /// stops.
    pub fn serve(self, call: &Call, messages: impl Stream<Item = Message> + Send + 'static) -> Answer {
        let Some(connection) = call.take_upgrade() else {
            return Err(Box::new(Status::bad_request("this connection cannot change its protocol")));
        };
        let stop = call.server.stopping();
        call.server.tasks.spawn(async move {
            let sent = async {
                send(TokioIo::new(connection.await?), messages).await;
                Ok::<_, hyper::Error>(())
            };
            if let Some(Err(error)) = stop.run_until_cancelled(sent).await {
                tracing::debug!(%error, "a client that asked for a WebSocket went before it began");
            }
        });
        Ok(self.switching())
    }

    fn switching(self) -> Response<Body> {
        let mut response = Response::new(empty_body());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, self.accept);
        if let Some(protocol) = self.protocol {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        response
    }
}

/// The answer to a handshake that can't be settled: it has no words, as there may be a browser at the other end.
pub(crate) fn refused(code: StatusCode) -> Response<Body> {
    let mut response = Response::new(empty_body());
    *response.status_mut() = code;
    response
}

fn protocols(headers: &HeaderMap) -> Vec<&str> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).into_iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .take(MAX_PROTOCOLS)
        .collect()
}

fn accept(headers: &HeaderMap) -> Result<HeaderValue, StatusCode> {
    let key = headers.get(SEC_WEBSOCKET_KEY).ok_or(StatusCode::BAD_REQUEST)?;
    HeaderValue::from_str(&derive_accept_key(key.as_bytes())).map_err(|_| StatusCode::BAD_REQUEST)
}

async fn send(connection: impl AsyncRead + AsyncWrite + Unpin, messages: impl Stream<Item = Message>) {
    let limits =
        WebSocketConfig::default().max_message_size(Some(MAX_HEARD_BYTES)).max_frame_size(Some(MAX_HEARD_BYTES));
    let socket = WebSocketStream::from_raw_socket(connection, Role::Server, Some(limits)).await;
    let (mut sink, mut heard) = socket.split();
    let gone = async {
        while let Some(Ok(message)) = heard.next().await {
            if message.is_close() {
                break;
            }
        }
    };
    let mut gone = pin!(gone);
    tokio::select! {
        () = send_all(&mut sink, messages) => {
            // Whoever closes before the other side has read to the end may take from it what it was sent.
            let _ = tokio::time::timeout(FAREWELL, gone).await;
        }
        () = &mut gone => {}
    }
    // The client may be gone already.
    let _ = sink.close().await;
}

async fn send_all(sink: &mut (impl Sink<Message, Error = Error> + Unpin), messages: impl Stream<Item = Message>) {
    let mut messages = pin!(messages);
    while let Some(message) = messages.next().await {
        if sink.send(message).await.is_err() {
            return;
        }
    }
    let end = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() };
    let _ = sink.send(Message::Close(Some(end))).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(more: &[(&'static str, &'static str)]) -> HeaderMap {
        let usual = [("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")];
        let key = [("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")];
        let all = usual.iter().chain(&key).chain(more);
        all.map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn websockets_are_told_from_other_upgrades() {
        assert!(is_websocket(&headers(&[])));
        let mut other = headers(&[]);
        other.insert(UPGRADE, HeaderValue::from_static("SPDY/3.1"));
        assert!(!is_websocket(&other));
        other.remove(UPGRADE);
        assert!(!is_websocket(&other));
    }

    #[test]
    fn the_first_known_protocol_says_how_bytes_are_sent() {
        for (wanted, form, told) in [
            (&[][..], Form::Binary, None),
            (&[("sec-websocket-protocol", "binary.k8s.io")], Form::Binary, Some("binary.k8s.io")),
            (&[("sec-websocket-protocol", "x, base64.binary.k8s.io")], Form::Base64, Some("base64.binary.k8s.io")),
        ] {
            let answer = Handshake::for_bytes(&headers(wanted)).unwrap();
            assert_eq!(answer.form, form);
            let response = answer.switching();
            assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
            assert_eq!(response.headers()[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
            let protocol = response.headers().get(SEC_WEBSOCKET_PROTOCOL);
            assert_eq!(protocol.map(HeaderValue::as_bytes), told.map(str::as_bytes));
        }
        let unknown = Handshake::for_bytes(&headers(&[("sec-websocket-protocol", "v4.channel.k8s.io")]));
        assert_eq!(unknown.unwrap_err(), StatusCode::FORBIDDEN);
        let mut without_key = headers(&[]);
        without_key.remove(SEC_WEBSOCKET_KEY);
        assert_eq!(Handshake::for_bytes(&without_key).unwrap_err(), StatusCode::BAD_REQUEST);
    }

    #[test]
    fn messages_are_for_clients_that_say_where_they_come_from() {
        let asked = |more: &[_]| Handshake::for_messages(&headers(more), Form::Text);
        assert_eq!(asked(&[]).unwrap_err(), StatusCode::FORBIDDEN);
        assert_eq!(asked(&[("origin", "null")]).unwrap_err(), StatusCode::FORBIDDEN);
        let answer = asked(&[("origin", "http://here"), ("sec-websocket-protocol", "mine")]).unwrap();
        assert_eq!(answer.switching().headers()[SEC_WEBSOCKET_PROTOCOL], "mine");
        let many = asked(&[("origin", "http://here"), ("sec-websocket-protocol", "a, b")]);
        assert_eq!(many.unwrap_err(), StatusCode::BAD_REQUEST);
    }

    #[tokio::test]
    async fn all_is_sent_and_then_the_end_is_told() {
        let (ours, theirs) = tokio::io::duplex(1024);
        let sent = [Form::Binary.message("a".into()), Form::Base64.message("a".into()), Form::Text.message("a".into())];
        let sending = tokio::spawn(send(ours, futures::stream::iter(sent)));
        let client = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
        let got: Vec<_> = client.map(Result::unwrap).collect().await;
        assert_eq!(got[..3], [Message::binary("a"), Message::text("YQ=="), Message::text("a")]);
        assert!(matches!(&got[3], Message::Close(Some(end)) if end.code == CloseCode::Normal), "{got:?}");
        sending.await.unwrap();
    }

    #[tokio::test]
    async fn a_client_that_goes_ends_the_sending() {
        let (ours, theirs) = tokio::io::duplex(1024);
        let sending = tokio::spawn(send(ours, futures::stream::pending()));
        let mut client = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
        client.send(Message::text("nobody listens")).await.unwrap();
        client.close(None).await.unwrap();
        sending.await.unwrap();
    }
}

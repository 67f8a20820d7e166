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
use http::header::{ORIGIN, UPGRADE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use hyper_util::rt::TokioIo;
use pintle_client::{Body, empty_body};
use pintle_types::Status;
use pintle_websocket::{normal_end, protocols, switching};
use std::pin::pin;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

/// Clients have nothing to say: what they send is read, within this bound, and forgotten.
const MAX_HEARD_BYTES: usize = 64 << 10;
/// A client that was told of the end has so long to tell of its own.
const FAREWELL: Duration = Duration::from_secs(5);

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
    response: Response<()>,
}

/// Whether the client asks for a WebSocket.
pub(crate) fn is_websocket(headers: &HeaderMap) -> bool {
    is_upgrade(headers) && headers.get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

impl Handshake {
    /// For a stream of bytes: the client's first protocol that is known says how they are sent. Fails with the status
    /// to refuse the request with.
    pub fn for_bytes(headers: &HeaderMap) -> Result<Self, StatusCode> {
        let known = protocols(headers).find_map(|name| match name {
            "binary.k8s.io" => Some((Form::Binary, Some(HeaderValue::from_static("binary.k8s.io")))),
            "base64.binary.k8s.io" => Some((Form::Base64, Some(HeaderValue::from_static("base64.binary.k8s.io")))),
            _ => None,
        });
        let none = || protocols(headers).next().is_none().then_some((Form::Binary, None));
        let (form, protocol) = known.or_else(none).ok_or(StatusCode::FORBIDDEN)?;
        Self::new(headers, form, protocol)
    }

    /// For messages whose form is settled already. Only clients that say where they come from are served, and whatever
    /// protocol they name is theirs.
    pub fn for_messages(headers: &HeaderMap, form: Form) -> Result<Self, StatusCode> {
        let origin = headers.get(ORIGIN).and_then(|value| value.to_str().ok());
        if origin.and_then(|origin| origin.parse::<http::Uri>().ok()).is_none_or(|uri| uri.scheme().is_none()) {
            return Err(StatusCode::FORBIDDEN);
        }
        let mut wanted = protocols(headers);
        let protocol = match (wanted.next(), wanted.next()) {
            (only, None) => only.map(HeaderValue::from_str).transpose().map_err(|_| StatusCode::BAD_REQUEST)?,
            _ => return Err(StatusCode::BAD_REQUEST),
        };
        Self::new(headers, form, protocol)
    }

    fn new(headers: &HeaderMap, form: Form, protocol: Option<HeaderValue>) -> Result<Self, StatusCode> {
        Ok(Self { form, response: switching(headers, protocol).ok_or(StatusCode::BAD_REQUEST)? })
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
        Ok(self.response.map(|()| empty_body()))
    }
}

/// The answer to a handshake that can't be settled: it has no words, as there may be a browser at the other end.
pub(crate) fn refused(code: StatusCode) -> Response<Body> {
    let mut response = Response::new(empty_body());
    *response.status_mut() = code;
    response
}

async fn send(connection: impl AsyncRead + AsyncWrite + Unpin, messages: impl Stream<Item = Message>) {
    let (mut sink, mut heard) = pintle_websocket::server(connection, MAX_HEARD_BYTES).await.split();
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
    let _ = sink.send(normal_end()).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::{SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL};
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::protocol::Role;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

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
            let response = answer.response;
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
        assert_eq!(answer.response.headers()[SEC_WEBSOCKET_PROTOCOL], "mine");
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

//! The server's side of WebSockets: the answer to a handshake, the connection after it, and its normal end.
//!
//! Whether a client may have one, and what is said over it, is settled elsewhere. Source: RFC 6455.

use http::header::{
    AsHeaderName, CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

/// The values of a header that may be repeated and may hold lists.
pub fn listed(headers: &HeaderMap, name: impl AsHeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|value| !value.is_empty())
}

/// The protocols that a client offers, in its order.
pub fn protocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    listed(headers, SEC_WEBSOCKET_PROTOCOL)
}

/// The `101 Switching Protocols` for a request with these headers. Nothing when they have no `Sec-WebSocket-Key`.
pub fn switching(headers: &HeaderMap, protocol: Option<HeaderValue>) -> Option<Response<()>> {
    let key = headers.get(SEC_WEBSOCKET_KEY)?;
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok()?;
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(protocol) = protocol {
        answer.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    Some(response)
}

/// The server's end on a connection that has switched over. A longer message of the client is an error.
pub async fn server<C: AsyncRead + AsyncWrite + Unpin>(connection: C, max_message_bytes: usize) -> WebSocketStream<C> {
    let limits =
        WebSocketConfig::default().max_message_size(Some(max_message_bytes)).max_frame_size(Some(max_message_bytes));
    WebSocketStream::from_raw_socket(connection, Role::Server, Some(limits)).await
}

/// The last message: clients take an end without this code for a failure.
pub fn normal_end() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 6455, section 1.3.
    #[test]
    fn the_answer_is_that_of_the_standard() {
        let mut headers = HeaderMap::new();
        assert!(switching(&headers, None).is_none(), "without a key");
        headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        let response = switching(&headers, Some(HeaderValue::from_static("chat"))).unwrap();
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(response.headers()[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(response.headers()[SEC_WEBSOCKET_PROTOCOL], "chat");
        assert!(!switching(&headers, None).unwrap().headers().contains_key(SEC_WEBSOCKET_PROTOCOL));
    }

    #[test]
    fn protocols_may_be_in_one_header_or_in_several() {
        let mut headers = HeaderMap::new();
        for offered in ["a, b", "", " ,c"] {
            headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(offered));
        }
        assert_eq!(protocols(&headers).collect::<Vec<_>>(), ["a", "b", "c"]);
    }
}

//! Settles by which dialect a client's upgrade request is served, and answers it.

use crate::Upgraded;
use bytes::Bytes;
use http::header::{CONNECTION, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use pintle_websocket::listed;
use std::time::Duration;

pub(crate) const STREAM_PROTOCOL: &str = "x-stream-protocol-version";
/// A refusal repeats so many of the protocols that a client offered.
const MAX_TOLD: usize = 32;
/// How long a client may take to open the streams that it asked for.
pub(crate) const SETUP_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    #[error("you must use an upgrade request: WebSocket or SPDY/3.1")]
    NotAnUpgrade,
    #[error("unable to negotiate protocol: client supports {client:?}, server accepts {server:?}")]
    NoCommonProtocol { client: Vec<String>, server: Vec<&'static str> },
    #[error("the request has no Sec-WebSocket-Key")]
    NoKey,
    #[error("{0}")]
    BadRequest(String),
    #[error("the client did not open its streams in time")]
    Timeout,
    #[error("the connection broke: {0}")]
    Broken(String),
}

impl UpgradeError {
    /// The HTTP status to refuse the request with.
    pub fn code(&self) -> StatusCode {
        match self {
            Self::NoCommonProtocol { .. } => StatusCode::FORBIDDEN,
            Self::Timeout | Self::Broken(_) => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// What carries the streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    WebSocket,
    Spdy,
}

/// The carrier that a request asks for.
pub(crate) fn carrier(headers: &HeaderMap) -> Result<Carrier, UpgradeError> {
    let asked = |protocol: &str| listed(headers, UPGRADE).any(|value| value.eq_ignore_ascii_case(protocol));
    if asked("websocket") {
        Ok(Carrier::WebSocket)
    } else if asked("spdy/3.1") {
        Ok(Carrier::Spdy)
    } else {
        Err(UpgradeError::NotAnUpgrade)
    }
}

/// The first protocol of the client that the server knows too.
pub(crate) fn negotiate(
    headers: &HeaderMap,
    carrier: Carrier,
    known: &[&'static str],
) -> Result<&'static str, UpgradeError> {
    let header = if carrier == Carrier::WebSocket { SEC_WEBSOCKET_PROTOCOL.as_str() } else { STREAM_PROTOCOL };
    let common = listed(headers, header).find_map(|c| known.iter().copied().find(|k| k.eq_ignore_ascii_case(c)));
    common.ok_or_else(|| {
        let client = listed(headers, header).take(MAX_TOLD).map(str::to_owned).collect();
        UpgradeError::NoCommonProtocol { client, server: known.to_vec() }
    })
}

/// The `101 Switching Protocols` for a request.
pub(crate) fn switching(
    headers: &HeaderMap,
    carrier: Carrier,
    protocol: &'static str,
) -> Result<Response<Full<Bytes>>, UpgradeError> {
    let protocol = HeaderValue::from_static(protocol);
    let response = match carrier {
        Carrier::WebSocket => pintle_websocket::switching(headers, Some(protocol)).ok_or(UpgradeError::NoKey)?,
        Carrier::Spdy => switching_to_spdy(protocol),
    };
    Ok(response.map(|()| Full::default()))
}

fn switching_to_spdy(protocol: HeaderValue) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(UPGRADE, HeaderValue::from_static("SPDY/3.1"));
    answer.insert(STREAM_PROTOCOL, protocol);
    response
}

/// The connection under a request, once the answer to it has been sent.
pub(crate) type Connection = hyper_util::rt::TokioIo<hyper::upgrade::Upgraded>;

/// Answers a request with a switch of protocols, after which `open` makes the streams out of the connection.
pub(crate) fn switch<B, T, F>(
    mut request: Request<B>,
    carrier: Carrier,
    protocol: &'static str,
    open: impl FnOnce(Connection) -> F + Send + 'static,
) -> Result<Upgraded<T>, UpgradeError>
where
    F: Future<Output = Result<T, UpgradeError>> + Send,
{
    let response = switching(request.headers(), carrier, protocol)?;
    let connection = hyper::upgrade::on(&mut request);
    let streams = async move {
        let connection = connection.await.map_err(|e| UpgradeError::Broken(e.to_string()))?;
        let opening = open(hyper_util::rt::TokioIo::new(connection));
        tokio::time::timeout(SETUP_TIMEOUT, opening).await.map_err(|_| UpgradeError::Timeout)?
    };
    Ok(Upgraded { response, streams: Box::pin(streams) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn the_first_known_protocol_wins() {
        let map = headers(&[(STREAM_PROTOCOL, "v9.x"), (STREAM_PROTOCOL, "v4.channel.k8s.io, channel.k8s.io")]);
        let known = ["channel.k8s.io", "v4.channel.k8s.io"];
        assert_eq!(negotiate(&map, Carrier::Spdy, &known).unwrap(), "v4.channel.k8s.io");
        let none = negotiate(&HeaderMap::new(), Carrier::Spdy, &known).unwrap_err();
        assert_eq!(none.code(), StatusCode::FORBIDDEN);
    }

    #[test]
    fn plain_requests_are_told_to_upgrade() {
        assert!(matches!(carrier(&headers(&[("upgrade", "h2c")])), Err(UpgradeError::NotAnUpgrade)));
        assert_eq!(carrier(&headers(&[("upgrade", "WebSocket")])).unwrap(), Carrier::WebSocket);
    }

    #[test]
    fn the_accept_key_is_that_of_rfc_6455() {
        let map = headers(&[("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")]);
        let response = switching(&map, Carrier::WebSocket, "v5.channel.k8s.io").unwrap();
        assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}

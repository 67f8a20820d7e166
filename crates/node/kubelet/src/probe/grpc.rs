//! Asks a server for its health over gRPC (`grpc.health.v1.Health/Check`), in the few lines that one call takes.
//!
//! A message is five bytes of frame (compressed or not, length) and its fields; the outcome is in the trailers.

use super::tcp;
use crate::duration;
use bytes::Bytes;
use http::{HeaderMap, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// Between attempts to connect: a server that is not there yet may come within the timeout.
const CONNECT_RETRY: Duration = Duration::from_millis(100);
/// Codes of gRPC (`google.golang.org/grpc/codes`).
const DEADLINE_EXCEEDED: u32 = 4;
const UNIMPLEMENTED: u32 = 12;
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];
/// `HealthCheckResponse.ServingStatus`
const STATUSES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
const SERVING: u64 = 1;

/// How a call failed.
struct Failure {
    code: u32,
    message: String,
}

impl Failure {
    fn unavailable(error: impl std::fmt::Display) -> Self {
        Self { code: 14, message: error.to_string() }
    }
}

/// Success when the service is serving; else upstream's words for why not.
pub async fn check(host: &str, port: u16, service: &str, timeout: Duration) -> Result<(), String> {
    let deadline = Instant::now() + timeout;
    let address = tcp::authority(host, port);
    let Ok(stream) = timeout_at(deadline, connect(host, port, timeout)).await else {
        let limit = duration::go(timeout);
        let message = "context deadline exceeded";
        return Err(format!("timeout: failed to connect service {address:?} within {limit}: {message}"));
    };
    let late = || format!("timeout: health rpc did not complete within {}", duration::go(timeout));
    let answer = match timeout_at(deadline, call(stream, &address, service)).await {
        Err(_) => return Err(late()),
        Ok(answer) => answer,
    };
    match answer {
        Ok(SERVING) => Ok(()),
        Ok(status) => {
            let name = usize::try_from(status).ok().and_then(|i| STATUSES.get(i)).map(|s| (*s).to_owned());
            Err(format!("service unhealthy (responded with {:?})", name.unwrap_or_else(|| status.to_string())))
        }
        Err(Failure { code: DEADLINE_EXCEEDED, .. }) => Err(late()),
        Err(Failure { code: UNIMPLEMENTED, message }) => Err(format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}"
        )),
        Err(Failure { code, message }) => {
            let name = CODES.get(code as usize).map(|s| (*s).to_owned()).unwrap_or_else(|| format!("Code({code})"));
            Err(format!("error: health rpc probe failed: rpc error: code = {name} desc = {message}"))
        }
    }
}

/// Tries until it is connected; the caller keeps the time.
async fn connect(host: &str, port: u16, timeout: Duration) -> tokio::net::TcpStream {
    loop {
        match tcp::connect(host, port, timeout).await {
            Ok(stream) => return stream,
            Err(_) => sleep(CONNECT_RETRY).await,
        }
    }
}

async fn call(stream: tokio::net::TcpStream, address: &str, service: &str) -> Result<u64, Failure> {
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(Failure::unavailable)?;
    let answer = async {
        let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .header(header::USER_AGENT, "kube-probe/1.36")
            .body(Full::new(message(service)))
            .map_err(Failure::unavailable)?;
        let response = sender.send_request(request).await.map_err(Failure::unavailable)?;
        if response.status() != http::StatusCode::OK {
            let message = format!("unexpected HTTP status code received from server: {}", response.status());
            return Err(Failure { code: if response.status() == 404 { UNIMPLEMENTED } else { 2 }, message });
        }
        outcome(response.headers())?;
        let body =
            Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await.map_err(Failure::unavailable)?;
        if let Some(trailers) = body.trailers() {
            outcome(trailers)?;
        }
        serving_status(&body.to_bytes())
    };
    tokio::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => return answer,
        // The answer may be complete before the connection's end is noticed, and is still to be read then.
        _ = connection => {}
    }
    answer.await
}

/// `HealthCheckRequest { service = 1 }` in its frame.
fn message(service: &str) -> Bytes {
    let mut fields = Vec::new();
    if !service.is_empty() {
        fields.push(0x0a);
        varint(service.len() as u64, &mut fields);
        fields.extend(service.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend((fields.len() as u32).to_be_bytes());
    frame.extend(fields);
    frame.into()
}

fn varint(mut value: u64, into: &mut Vec<u8>) {
    while value >= 0x80 {
        into.push(value as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

/// The outcome that headers or trailers tell, if they tell one.
fn outcome(headers: &HeaderMap) -> Result<(), Failure> {
    let text = |name: &str| headers.get(name).map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
    let Some(code) = text("grpc-status") else { return Ok(()) };
    match code.parse() {
        Ok(0) => Ok(()),
        code => {
            let message = text("grpc-message").unwrap_or_default();
            let message = percent_encoding::percent_decode_str(&message).decode_utf8_lossy().into_owned();
            Err(Failure { code: code.unwrap_or(2), message })
        }
    }
}

/// `HealthCheckResponse { status = 1 }`; one that is not there is 0.
fn serving_status(bytes: &[u8]) -> Result<u64, Failure> {
    let bad = |what: &str| Failure { code: 13, message: what.to_owned() };
    let Some((frame, rest)) = bytes.split_at_checked(5) else { return Err(bad("the answer has no message")) };
    let length = u32::from_be_bytes([frame[1], frame[2], frame[3], frame[4]]) as usize;
    let mut fields = rest.get(..length).ok_or_else(|| bad("the answer's message is cut off"))?;
    if frame[0] != 0 {
        return Err(bad("the answer is compressed, which was not asked for"));
    }
    let mut status = 0;
    while !fields.is_empty() {
        let key = read_varint(&mut fields).ok_or_else(|| bad("the answer's message is cut off"))?;
        match key & 7 {
            0 => {
                let value = read_varint(&mut fields).ok_or_else(|| bad("the answer's message is cut off"))?;
                status = if key >> 3 == 1 { value } else { status };
            }
            2 => {
                let length = read_varint(&mut fields).and_then(|n| usize::try_from(n).ok());
                fields = length.and_then(|n| fields.get(n..)).ok_or_else(|| bad("the answer's message is cut off"))?;
            }
            _ => return Err(bad("the answer's message has a field of an unknown type")),
        }
    }
    Ok(status)
}

fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt;
    use http::Response;
    use http_body::Frame;
    use http_body_util::StreamBody;
    use hyper::service::service_fn;

    /// A server whose every answer is this message, with this outcome; returns its port.
    async fn server(message: &'static [u8], code: &'static str, words: &'static str) -> u16 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let service = service_fn(move |request: Request<hyper::body::Incoming>| async move {
                assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                let asked = request.into_body().collect().await.unwrap().to_bytes();
                assert_eq!(&asked[..], b"\x00\x00\x00\x00\x04\x0a\x02db");
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", code.parse().unwrap());
                trailers.insert("grpc-message", words.parse().unwrap());
                let frames = [Frame::data(Bytes::from_static(message)), Frame::trailers(trailers)];
                let body = StreamBody::new(futures::stream::iter(frames).map(Ok::<_, std::convert::Infallible>));
                Ok::<_, std::convert::Infallible>(Response::new(body))
            });
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            // The client goes away as soon as it has its answer.
            let _ended = builder.serve_connection(TokioIo::new(stream), service).await;
        });
        port
    }

    #[tokio::test]
    async fn answers_are_judged_in_upstreams_words() {
        let cases: [(&[u8], &str, &str, Result<(), &str>); 6] = [
            (b"\0\0\0\0\x02\x08\x01", "0", "", Ok(())),
            (b"\0\0\0\0\x02\x08\x02", "0", "", Err("service unhealthy (responded with \"NOT_SERVING\")")),
            (b"\0\0\0\0\0", "0", "", Err("service unhealthy (responded with \"UNKNOWN\")")),
            (
                b"",
                "12",
                "unknown service",
                Err("error: this server does not implement the grpc health protocol (grpc.health.v1.Health): \
                     unknown service"),
            ),
            (
                b"",
                "5",
                "unknown%20name",
                Err("error: health rpc probe failed: rpc error: code = NotFound desc = unknown name"),
            ),
            (b"", "4", "", Err("timeout: health rpc did not complete within 5s")),
        ];
        for (message, code, words, expected) in cases {
            let port = server(message, code, words).await;
            let got = check("127.0.0.1", port, "db", Duration::from_secs(5)).await;
            assert_eq!(got, expected.map_err(str::to_owned));
        }
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_waited_for() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let got = check("127.0.0.1", port, "", Duration::from_millis(250)).await.unwrap_err();
        let start = format!("timeout: failed to connect service \"127.0.0.1:{port}\" within 250ms: ");
        assert_eq!(got, start + "context deadline exceeded");
    }

    #[test]
    fn broken_answers_are_refused() {
        let noise: [&[u8]; 5] =
            [b"", b"\0\0\0\0\x09\x08", b"\x01\0\0\0\0", b"\0\0\0\0\x01\x80", b"\0\0\0\0\x02\x12\x70"];
        for bytes in noise {
            assert!(serving_status(bytes).is_err(), "{bytes:?}");
        }
        assert!(serving_status(b"\0\0\0\0\x04\x12\0\x08\x01").is_ok_and(|s| s == 1));
    }
}

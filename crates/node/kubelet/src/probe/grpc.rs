//! Asks a server for its health over gRPC (`grpc.health.v1.Health/Check`), in upstream's words.

use super::tcp;
use crate::duration;
use http::HeaderValue;
use http::header::USER_AGENT;
use pintle_grpc::{CallError, Channel, ChannelOptions, Code, Status};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// Between attempts to connect: a server that is not there yet may come within the timeout.
const CONNECT_RETRY: Duration = Duration::from_millis(100);

pintle_grpc::messages! {
    HealthCheckRequest { 1 service: String, }
    HealthCheckResponse { 1 status: i32, }
}

/// `HealthCheckResponse.ServingStatus`
const STATUSES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
const SERVING: i32 = 1;

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
        Err(Status { code: Code::DEADLINE_EXCEEDED, .. }) => Err(late()),
        Err(Status { code: Code::UNIMPLEMENTED, message }) => Err(format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}"
        )),
        Err(failure) => Err(format!("error: health rpc probe failed: {failure}")),
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

async fn call(stream: tokio::net::TcpStream, address: &str, service: &str) -> Result<i32, Status> {
    let options = ChannelOptions {
        headers: vec![(USER_AGENT, HeaderValue::from_static("kube-probe/1.36"))],
        max_message: MAX_ANSWER_BYTES,
        ..ChannelOptions::new(format!("http://{address}"))
    };
    let channel = Channel::over(stream, options).await.map_err(CallError::status)?;
    let request = HealthCheckRequest { service: service.to_owned() };
    let answer = channel.call("/grpc.health.v1.Health/Check", &request, None).await;
    answer.map(|answer: HealthCheckResponse| answer.status).map_err(CallError::status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use futures::StreamExt;
    use http::{HeaderMap, Request, Response};
    use http_body::Frame;
    use http_body_util::{BodyExt, StreamBody};
    use hyper::service::service_fn;
    use hyper_util::rt::{TokioExecutor, TokioIo};

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

    #[tokio::test]
    async fn broken_answers_are_refused() {
        let noise: [&'static [u8]; 5] =
            [b"", b"\0\0\0\0\x09\x08", b"\x01\0\0\0\0", b"\0\0\0\0\x01\x80", b"\0\0\0\0\x02\x12\x70"];
        for bytes in noise {
            let port = server(bytes, "0", "").await;
            let got = check("127.0.0.1", port, "db", Duration::from_secs(5)).await;
            assert!(got.is_err_and(|why| why.starts_with("error: health rpc probe failed: rpc error: ")), "{bytes:?}");
        }
        let port = server(b"\0\0\0\0\x04\x12\0\x08\x01", "0", "").await;
        assert_eq!(check("127.0.0.1", port, "db", Duration::from_secs(5)).await, Ok(()));
    }
}

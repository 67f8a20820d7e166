//! Passing on requests that change the protocol of their connection: byte for byte, once the other side agreed.
//!
//! A backend that does not switch protocols gets its connection closed and never sees another byte of the client's
//! (CVE-2018-1002105).

use super::kubelet::unreachable;
use crate::pipeline::Call;
use crate::response::Answer;
use http::header::{AUTHORIZATION, CONNECTION, HOST, HeaderName, UPGRADE};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use pintle_client::{Body, empty_body};
use pintle_types::{Reason, Status};
use pintle_websocket::listed;
use std::net::SocketAddr;

/// What a backend's refusal may be long.
const MAX_REFUSAL_BYTES: usize = 64 * 1024;

/// Headers that belong to one connection, or say who the client is: they are not passed on.
const OWN: [HeaderName; 6] = [
    AUTHORIZATION,
    HOST,
    http::header::CONTENT_LENGTH,
    http::header::TRANSFER_ENCODING,
    http::header::PROXY_AUTHORIZATION,
    http::header::TE,
];

/// Whether the client asks for another protocol.
pub(crate) fn is_upgrade(headers: &HeaderMap) -> bool {
    listed(headers, CONNECTION).any(|value| value.eq_ignore_ascii_case("upgrade")) && headers.contains_key(UPGRADE)
}

/// The client's headers without those that are not passed on.
pub(crate) fn passed_on(headers: &HeaderMap, keep_connection: bool) -> HeaderMap {
    let mut out = headers.clone();
    for name in &OWN {
        out.remove(name);
    }
    let impersonation: Vec<_> = out.keys().filter(|k| k.as_str().starts_with("impersonate-")).cloned().collect();
    for name in impersonation {
        out.remove(name);
    }
    if !keep_connection {
        out.remove(CONNECTION);
        out.remove(UPGRADE);
        out.remove("keep-alive");
    }
    out
}

/// Sends the upgrade on and joins both connections.
pub(super) async fn pass(call: &Call, mut backend: SendRequest<Body>, address: SocketAddr, uri: &str) -> Answer {
    let mut request = Request::new(empty_body());
    *request.method_mut() = call.method.clone();
    *request.uri_mut() = uri.parse().map_err(|e| Box::new(Status::bad_request(format!("the path: {e}"))))?;
    *request.headers_mut() = passed_on(&call.headers, true);
    if let Ok(host) = address.to_string().parse() {
        request.headers_mut().insert(HOST, host);
    }
    let mut answer = backend.send_request(request).await.map_err(|e| unreachable(address, e))?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return refused(answer).await;
    }
    join(call, &mut answer)
}

/// Joins the client's connection and the one of an answer that switched protocols.
pub(crate) fn join(call: &Call, answer: &mut Response<Incoming>) -> Answer {
    let Some(client) = call.take_upgrade() else {
        return Err(Box::new(Status::bad_request("this connection cannot change its protocol")));
    };
    let backend = hyper::upgrade::on(&mut *answer);
    let stop = call.server.stopping();
    call.server.tasks.spawn(async move {
        let joined = async {
            let (client, backend) = futures::future::try_join(client, backend).await?;
            let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(
                tokio::io::copy_bidirectional(&mut client, &mut backend).await?,
            )
        };
        if let Some(Err(error)) = stop.run_until_cancelled(joined).await {
            tracing::debug!(%error, "a passed-on stream ended with an error");
        }
    });
    let mut response = Response::new(empty_body());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = answer.headers().clone();
    Ok(response)
}

/// The backend's own words, as a failure; its connection is dropped with the answer.
async fn refused(answer: Response<Incoming>) -> Answer {
    let code = answer.status().as_u16();
    let body = Limited::new(answer.into_body(), MAX_REFUSAL_BYTES).collect().await;
    let text = body.map(|b| String::from_utf8_lossy(&b.to_bytes()).into_owned()).unwrap_or_default();
    if let Ok(status) = serde_json::from_str::<Status>(&text)
        && status.kind == "Status"
    {
        return Err(Box::new(status));
    }
    Err(Box::new(failure_of(code, text.trim())))
}

/// A backend's plain answer as a failure.
pub(super) fn failure_of(code: u16, text: &str) -> Status {
    match code {
        400 => Status::bad_request(text),
        404 => Status::failure(
            404,
            Reason::NotFound,
            format!("the server could not find the requested resource ( {text})"),
        ),
        503 => Status::failure(503, Reason::ServiceUnavailable, text),
        500 => Status::internal(text),
        code if code < 400 => Status::failure(
            500,
            Reason::InternalError,
            "unable to upgrade connection: the backend did not switch protocols",
        ),
        code => Status::failure(code, Reason::Other, text),
    }
}

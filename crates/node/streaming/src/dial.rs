//! The client's side: exec, attach and port-forward at the URLs that a container runtime gives for them.
//!
//! By SPDY/3.1, which all runtimes' servers speak and which tells the end of stdin, as the older WebSocket dialects do
//! not.

use crate::pipe::Joined;
use crate::spdy::{self, Stream};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use pintle_cri::{ByteReader, ByteStream, CriError, ExecSession, ExitOutcome, TerminalSize};
use serde_json::Value;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_REFUSAL_BYTES: usize = 64 << 10;
const MAX_STATUS_BYTES: u64 = 64 << 10;

#[derive(Debug, thiserror::Error)]
#[error("streaming at {url}: {why}")]
pub struct DialError {
    url: String,
    why: String,
}

impl From<DialError> for CriError {
    fn from(error: DialError) -> Self {
        Self::Internal(error.to_string())
    }
}

/// Opens the streams of an exec or attach.
///
/// # Errors
/// The server is not there, or refuses.
pub async fn dial_exec(url: &str, wants: crate::Wants) -> Result<ExecSession, DialError> {
    let failed = |why: io::Error| DialError { url: url.to_owned(), why: why.to_string() };
    let mut client = connect(url, "v4.channel.k8s.io").await?;
    let mut open = async |kind: &str, wanted: bool| match wanted {
        true => client.open(vec![("streamtype".to_owned(), kind.to_owned())]).await.map(Some).map_err(failed),
        false => Ok(None),
    };
    let error = open("error", true).await?;
    let stdin = open("stdin", wants.stdin).await?;
    let stdout = open("stdout", wants.stdout).await?;
    let stderr = open("stderr", wants.stderr && !wants.tty).await?;
    let sizes = open("resize", wants.tty).await?;
    Ok(ExecSession {
        stdin: stdin.map(|stream| stream.writer),
        stdout: stdout.map(|stream| stream.reader),
        stderr: stderr.map(|stream| stream.reader),
        resize: resize(sizes),
        exit: outcome(error).boxed(),
    })
}

/// A connection to a port. What the server says went wrong is the error of its last read.
///
/// # Errors
/// The server is not there, or refuses.
pub async fn dial_port(url: &str, port: u16) -> Result<ByteStream, DialError> {
    let failed = |why: io::Error| DialError { url: url.to_owned(), why: why.to_string() };
    let mut client = connect(url, "portforward.k8s.io").await?;
    let headers = |kind: &str| {
        let pairs = [("streamtype", kind), ("port", &port.to_string()), ("requestid", "0")];
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
    };
    let mut error = client.open(headers("error")).await.map_err(failed)?;
    // Nothing is said on it from this side.
    error.writer.shutdown().await.map_err(failed)?;
    let data = client.open(headers("data")).await.map_err(failed)?;
    let told = async move {
        let mut text = String::new();
        // A connection that breaks tells nothing.
        let _ = error.reader.take(MAX_STATUS_BYTES).read_to_string(&mut text).await;
        text
    };
    let reader = UntilTold { data: data.reader, told: Some(told.boxed()) };
    Ok(Box::new(Joined { reader: Box::new(reader), writer: data.writer }))
}

/// Upgrades a connection to SPDY.
async fn connect(url: &str, protocol: &'static str) -> Result<spdy::Client, DialError> {
    let failed = |why: &dyn std::fmt::Display| DialError { url: url.to_owned(), why: why.to_string() };
    let uri: Uri = url.parse().map_err(|e| failed(&e))?;
    let (Some("http"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(failed(&"the runtime's URL does not begin with http://"));
    };
    let address = (authority.host().trim_matches(['[', ']']), authority.port_u16().unwrap_or(80));
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
    let stream = stream.map_err(|_| failed(&"no answer"))?.map_err(|e| failed(&e))?;
    stream.set_nodelay(true).map_err(|e| failed(&e))?;
    let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(|e| failed(&e))?;
    tokio::spawn(connection.with_upgrades());
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::post(path)
        .header(header::HOST, authority.as_str())
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "SPDY/3.1")
        .header(crate::upgrade::STREAM_PROTOCOL, protocol)
        .body(Empty::<Bytes>::new())
        .map_err(|e| failed(&e))?;
    let mut response = sender.send_request(request).await.map_err(|e| failed(&e))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_REFUSAL_BYTES).collect().await;
        let text = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).trim().to_owned()).unwrap_or_default();
        return Err(failed(&format_args!("unable to upgrade connection: {status}: {text}")));
    }
    let upgraded = hyper::upgrade::on(&mut response).await.map_err(|e| failed(&e))?;
    Ok(spdy::connect(TokioIo::new(upgraded)))
}

/// Sends sizes as lines of JSON.
fn resize(stream: Option<Stream>) -> mpsc::Sender<TerminalSize> {
    let (sender, mut sizes) = mpsc::channel::<TerminalSize>(4);
    if let Some(mut stream) = stream {
        tokio::spawn(async move {
            while let Some(size) = sizes.recv().await {
                let line = format!("{}\n", serde_json::json!({ "Width": size.width, "Height": size.height }));
                if stream.writer.write_all(line.as_bytes()).await.is_err() {
                    return;
                }
            }
        });
    }
    sender
}

/// Reads how it ended from the error stream: a `metav1.Status`.
async fn outcome(error: Option<Stream>) -> Result<ExitOutcome, CriError> {
    let lost = || CriError::Internal("the connection to the runtime ended before the command".to_owned());
    let mut told = Vec::new();
    if let Some(stream) = error {
        stream.reader.take(MAX_STATUS_BYTES).read_to_end(&mut told).await.map_err(|_| lost())?;
    }
    if told.is_empty() {
        return Err(lost());
    }
    let status: Value =
        serde_json::from_slice(&told).map_err(|_| CriError::Internal(String::from_utf8_lossy(&told).into_owned()))?;
    let causes = status["details"]["causes"].as_array().into_iter().flatten();
    match (status["status"].as_str(), status["reason"].as_str()) {
        (Some("Success"), _) => Ok(ExitOutcome::Code(0)),
        (_, Some("NonZeroExitCode")) => {
            let mut codes = causes.filter(|cause| cause["reason"] == "ExitCode");
            let code = codes.find_map(|cause| cause["message"].as_str()?.parse().ok());
            code.map(ExitOutcome::Code).ok_or_else(|| CriError::Internal("the exit code is missing".to_owned()))
        }
        _ => Err(CriError::Internal(status["message"].as_str().unwrap_or("the command failed").to_owned())),
    }
}

/// Reads data until its end, or until the other stream tells of a failure.
struct UntilTold {
    data: ByteReader,
    told: Option<BoxFuture<'static, String>>,
}

impl AsyncRead for UntilTold {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // A failure is told at once: the data may never end then.
        if let Some(Poll::Ready(text)) = self.told.as_mut().map(|told| told.poll_unpin(cx)) {
            self.told = None;
            if !text.is_empty() {
                return Poll::Ready(Err(io::Error::other(text)));
            }
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.data).poll_read(cx, buffer))?;
        if buffer.filled().len() > before || buffer.remaining() == 0 || self.told.is_none() {
            return Poll::Ready(Ok(()));
        }
        // The data has ended, and it is not told yet why.
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn of(status: &str) -> Result<ExitOutcome, CriError> {
        let (mut there, here) = tokio::io::duplex(1024);
        there.write_all(status.as_bytes()).await.unwrap();
        drop(there);
        let stream = Stream { id: 1, headers: Vec::new(), reader: Box::new(here), writer: Box::new(tokio::io::sink()) };
        outcome(Some(stream)).await
    }

    #[tokio::test]
    async fn outcomes_are_read() {
        assert_eq!(of(r#"{"status":"Success"}"#).await, Ok(ExitOutcome::Code(0)));
        let code = r#"{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"7"}]}}"#;
        assert_eq!(of(code).await, Ok(ExitOutcome::Code(7)));
        assert_eq!(of(r#"{"status":"Failure","message":"no"}"#).await, Err(CriError::Internal("no".to_owned())));
        assert_eq!(of("words").await, Err(CriError::Internal("words".to_owned())));
        assert!(of("").await.is_err());
    }
}

//! `pintle image`: asks the running server over its socket.

use crate::say;
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures::TryStreamExt;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use pintle_cli::ImageCommand;
use pintle_cli::output::{Format, size, table};
use serde_json::Value;
use std::path::Path;
use tokio::net::UnixStream;
use tokio_util::io::ReaderStream;

type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, std::io::Error>;

const MAX_ANSWER_BYTES: usize = 16 << 20;

pub(crate) async fn run(command: ImageCommand) -> Result<()> {
    match command {
        ImageCommand::Load { archive, socket } => load(&archive, &socket.socket).await,
        ImageCommand::Ls { output, socket } => list(output, &socket.socket).await,
        ImageCommand::Tag { image, name, socket } => {
            let path = format!("/images/{}/tag?repo={}", encode(&image), encode(&name));
            ask(&socket.socket, Method::POST, &path, empty()).await.map(drop)
        }
        ImageCommand::Rm { image, socket } => {
            let path = format!("/images/{}", encode(&image));
            for removed in items(&ask(&socket.socket, Method::DELETE, &path, empty()).await?)? {
                for (what, name) in removed.as_object().into_iter().flatten() {
                    say(format_args!("{what}: {}", name.as_str().unwrap_or_default()));
                }
            }
            Ok(())
        }
    }
}

fn empty() -> Body {
    Full::default().map_err(|never| match never {}).boxed_unsync()
}

fn encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn items(answer: &[u8]) -> Result<Vec<Value>> {
    serde_json::from_slice(answer).context("the server's answer is not what it should be")
}

/// Sends a request to the socket and returns the answer's body; a refusal is an error with the server's message.
async fn ask(socket: &Path, method: Method, path: &str, body: Body) -> Result<Bytes> {
    let failed = || format!("reach the server at {}; is `pintle server` running?", socket.display());
    let stream = UnixStream::connect(socket).await.with_context(failed)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let request = Request::builder().method(method).uri(path).header("host", "pintle").body(body)?;
    let response = sender.send_request(request).await.with_context(failed)?;
    let status = response.status();
    let answer = http_body_util::Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
    let answer = answer.map_err(|e| anyhow::anyhow!("read the server's answer: {e}"))?.to_bytes();
    driver.abort();
    if status >= StatusCode::BAD_REQUEST {
        let told: Value = serde_json::from_slice(&answer).unwrap_or_default();
        bail!("{}", told["message"].as_str().unwrap_or("the server refused without a reason"));
    }
    Ok(answer)
}

async fn load(archive: &Path, socket: &Path) -> Result<()> {
    let body: Body = if archive == Path::new("-") {
        StreamBody::new(ReaderStream::new(tokio::io::stdin()).map_ok(Frame::data)).boxed_unsync()
    } else {
        let file = tokio::fs::File::open(archive).await.with_context(|| format!("open {}", archive.display()))?;
        StreamBody::new(ReaderStream::with_capacity(file, 256 << 10).map_ok(Frame::data)).boxed_unsync()
    };
    let answer = ask(socket, Method::POST, "/images/load", body).await?;
    for line in String::from_utf8_lossy(&answer).lines() {
        let told: Value = serde_json::from_str(line.trim()).unwrap_or_default();
        say(told["stream"].as_str().unwrap_or_default().trim_end());
    }
    Ok(())
}

async fn list(format: Format, socket: &Path) -> Result<()> {
    let images = items(&ask(socket, Method::GET, "/images/json", empty()).await?)?;
    if format == Format::Json {
        say(serde_json::to_string_pretty(&images)?);
        return Ok(());
    }
    let mut rows = Vec::new();
    for image in &images {
        let id = image["Id"].as_str().unwrap_or_default().trim_start_matches("sha256:");
        let short = id.get(..12).unwrap_or(id).to_owned();
        let bytes = size(image["Size"].as_u64().unwrap_or_default());
        let tags: Vec<&str> = image["RepoTags"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for tag in if tags.is_empty() { vec!["<none>"] } else { tags } {
            let (name, tag) = tag.rsplit_once(':').unwrap_or((tag, "<none>"));
            rows.push(vec![name.to_owned(), tag.to_owned(), short.clone(), bytes.clone()]);
        }
    }
    say(table(&["REPOSITORY", "TAG", "IMAGE ID", "SIZE"], &rows).trim_end());
    Ok(())
}

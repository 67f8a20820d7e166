//! The Engine's calls on builds and their cache.

use crate::State;
use crate::answer::{Answer, Result, stream, value};
use crate::auth::registry_credentials;
use crate::call::{Call, Query};
use crate::hijack::receiver_stream;
use crate::images::load::reader;
use crate::images::told;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, LAST_MODIFIED};
use http_body_util::BodyExt;
use pintle_build::{BuildError, Downloaded, Message, Options, Output, Remote};
use pintle_distribution::Credentials;
use pintle_docker::DockerError;
use pintle_docker::model::{HostConfig, Ulimit};
use pintle_image::{ImageStore, Reference};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Pieces that may wait for a slow client.
const WAITING: usize = 16;
/// Bytes that a build without output keeps for the case that it fails.
const MAX_QUIET: usize = 16 << 20;

pub(crate) async fn route(state: &Arc<State>, call: Call, parts: &[&str]) -> Result {
    match (call.method.as_str(), parts) {
        ("POST", []) => build(state, call).await,
        ("POST", ["prune"]) => {
            let pruned = state.builder.prune().await.map_err(|e| failure(&e))?;
            tracing::debug!(entries = pruned.entries, "the build cache is pruned");
            let attributes = [("reclaimed".to_owned(), "0".to_owned())].into();
            state.daemon.events.tell("builder", "prune", "", attributes);
            value(&json!({ "CachesDeleted": null, "SpaceReclaimed": 0 }))
        }
        ("POST", ["cancel"]) if call.query.get("id").is_empty() => Err(DockerError::invalid("build ID not provided")),
        // Only builds of the newer builder have ids.
        ("POST", ["cancel"]) => crate::answer::nothing(),
        _ => Err(crate::route::not_found()),
    }
}

type Running = JoinHandle<std::result::Result<String, BuildError>>;

async fn build(state: &Arc<State>, mut call: Call) -> Result {
    let options = options(&call.query)?;
    let quiet = call.query.flag("q");
    let remote = Arc::new(Registries {
        images: Arc::clone(&state.images),
        options: state.registries.clone(),
        credentials: registry_credentials(&call),
    });
    let body = reader(&mut call)?;
    let (output, messages) = Output::channel();
    let builder = Arc::clone(&state.builder);
    let running = tokio::spawn(async move { builder.build(options, remote, body, output).await });
    if quiet { silently(messages, running).await } else { aloud(messages, running).await }
}

fn line(message: &Message) -> Bytes {
    Bytes::from(format!("{}\r\n", message.to_json()))
}

/// A failure before anything was told is the answer itself.
async fn aloud(mut messages: mpsc::Receiver<Message>, running: Running) -> Result {
    let Some(first) = messages.recv().await else {
        return Err(failure(&ended(running).await.err().unwrap_or_else(|| BuildError::new("the build told nothing"))));
    };
    let (sender, pieces) = mpsc::channel::<io::Result<Bytes>>(WAITING);
    tokio::spawn(async move {
        let mut next = Some(first);
        while let Some(message) = next {
            // When the client goes, the receiver of messages goes with this task, which cancels the build.
            tokio::select! {
                sent = sender.send(Ok(line(&message))) => if sent.is_err() { return },
            }
            next = tokio::select! {
                next = messages.recv() => next,
                () = sender.closed() => return,
            };
        }
        if let Err(error) = ended(running).await {
            // The client may have gone.
            let _ = sender.send(Ok(error_line(&error))).await;
        }
    });
    Ok(stream("application/json", receiver_stream(pieces)))
}

/// Only the id is told; when the build fails, everything.
async fn silently(mut messages: mpsc::Receiver<Message>, running: Running) -> Result {
    let (sender, pieces) = mpsc::channel::<io::Result<Bytes>>(WAITING);
    let (mut kept, mut bytes) = (Vec::new(), 0);
    while let Some(message) = messages.recv().await {
        let line = line(&message);
        bytes += line.len();
        if bytes <= MAX_QUIET {
            kept.push(line);
        }
    }
    match ended(running).await {
        Ok(id) => kept = vec![line(&Message::Text(format!("{id}\n")))],
        Err(error) if kept.is_empty() => return Err(failure(&error)),
        Err(error) => kept.push(error_line(&error)),
    }
    tokio::spawn(async move {
        for line in kept {
            if sender.send(Ok(line)).await.is_err() {
                return;
            }
        }
    });
    Ok::<Answer, DockerError>(stream("application/json", receiver_stream(pieces)))
}

async fn ended(running: Running) -> std::result::Result<String, BuildError> {
    running.await.unwrap_or_else(|e| Err(BuildError::new(format!("the build ended early: {e}"))))
}

fn error_line(error: &BuildError) -> Bytes {
    let mut detail = json!({ "message": error.message });
    if error.code != 0 {
        detail["code"] = error.code.into();
    }
    Bytes::from(format!("{}\r\n", json!({ "errorDetail": detail, "error": error.message })))
}

fn failure(error: &BuildError) -> DockerError {
    DockerError::new(error.status, error.message.clone())
}

fn parsed<T: DeserializeOwned + Default>(query: &Query, key: &str, what: &str) -> Result<T> {
    match query.get(key) {
        "" => Ok(T::default()),
        text => serde_json::from_str(text).map_err(|e| DockerError::invalid(format!("error reading {what}: {e}"))),
    }
}

fn options(query: &Query) -> Result<Options> {
    if !query.all("securityopt").is_empty() {
        return Err(DockerError::invalid("security options are not supported on linux"));
    }
    if query.flag("squash") {
        return Err(DockerError::invalid("squash is only supported with experimental mode"));
    }
    match query.get("version") {
        "" | "1" => {}
        "2" => return Err(DockerError::unsupported("BuildKit")),
        other => return Err(DockerError::invalid(format!("invalid version {other:?}"))),
    }
    if !matches!(query.get("isolation"), "" | "default") {
        return Err(DockerError::invalid(format!("unsupported isolation: {:?}", query.get("isolation"))));
    }
    Ok(Options {
        dockerfile: query.get("dockerfile").to_owned(),
        remote: query.get("remote").to_owned(),
        tags: query.all("t").to_vec(),
        no_cache: query.flag("nocache"),
        cache_from: parsed(query, "cachefrom", "cache-from")?,
        remove: query.get("rm").is_empty() || query.flag("rm"),
        force_remove: query.flag("forcerm"),
        pull: query.flag("pull"),
        build_args: parsed(query, "buildargs", "build args")?,
        labels: parsed(query, "labels", "labels")?,
        target: query.get("target").to_owned(),
        platform: query.get("platform").to_owned(),
        host: host(query)?,
    })
}

fn host(query: &Query) -> Result<HostConfig> {
    // As the Engine reads them: what is no number counts as none.
    let number = |key| query.get(key).parse::<i64>().unwrap_or_default();
    let text = |key| query.get(key).to_owned();
    let ulimits: Vec<Ulimit> = parsed(query, "ulimits", "ulimit settings")?;
    let hosts = query.all("extrahosts").to_vec();
    Ok(HostConfig {
        memory: number("memory"),
        memory_swap: number("memswap"),
        cpu_shares: number("cpushares"),
        cpu_period: number("cpuperiod"),
        cpu_quota: number("cpuquota"),
        cpuset_cpus: text("cpusetcpus"),
        cpuset_mems: text("cpusetmems"),
        cgroup_parent: text("cgroupparent"),
        network_mode: text("networkmode"),
        shm_size: query.number("shmsize")?.unwrap_or_default(),
        ulimits: (!ulimits.is_empty()).then_some(ulimits),
        extra_hosts: (!hosts.is_empty()).then_some(hosts),
        ..HostConfig::default()
    })
}

/// Registries and other servers, as the client of one build may use them.
struct Registries {
    images: Arc<ImageStore>,
    options: pintle_distribution::Options,
    credentials: HashMap<String, Credentials>,
}

#[async_trait]
impl Remote for Registries {
    async fn pull(&self, reference: &Reference, output: &Output) -> pintle_build::Result<()> {
        let key = match reference.registry.as_str() {
            "docker.io" => "https://index.docker.io/v1/",
            other => other,
        };
        let credentials = self.credentials.get(key).cloned().unwrap_or_default();
        let told = output.clone();
        let progress = move |progress| {
            for line in told::lines(progress) {
                told.try_tell(Message::Raw(line));
            }
        };
        match pintle_distribution::pull(&self.images, reference, credentials, &self.options, &progress).await {
            Ok(_) => Ok(()),
            Err(error) => {
                let status = if error.is_unauthorized() { 404 } else { 500 };
                let message = crate::images::create::words(&error, reference);
                Err(BuildError { status, ..BuildError::new(message) })
            }
        }
    }

    async fn download(&self, url: &str, file: &Path, output: &Output) -> pintle_build::Result<Downloaded> {
        let failed = |e: &dyn std::fmt::Display| BuildError::new(format!("download {url}: {e}"));
        let answer = pintle_distribution::download(url).await.map_err(|e| BuildError::new(e.to_string()))?;
        let header = |name| answer.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        let total = header(http::header::CONTENT_LENGTH).parse::<u64>().unwrap_or_default();
        let disposition = header(CONTENT_DISPOSITION);
        let downloaded = Downloaded {
            media_type: header(CONTENT_TYPE),
            file_name: disposition.split("filename=").nth(1).unwrap_or_default().trim_matches('"').to_owned(),
            modified: http_date(&header(LAST_MODIFIED)),
        };
        let mut target = tokio::fs::File::create(file).await.map_err(|e| failed(&e))?;
        let mut body = answer.into_body().into_data_stream();
        let mut current = 0u64;
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|e| failed(&e))?;
            target.write_all(&piece).await.map_err(|e| failed(&e))?;
            current += piece.len() as u64;
            let detail: Value = json!({ "current": current, "total": total });
            output.try_tell(Message::Raw(json!({ "status": "Downloading", "progressDetail": detail })));
        }
        target.flush().await.map_err(|e| failed(&e))?;
        Ok(downloaded)
    }
}

/// Seconds since the epoch of a date of HTTP; 0 of anything else.
fn http_date(text: &str) -> i64 {
    pintle_clock::Timestamp::strptime("%a, %d %b %Y %H:%M:%S %z", text.replace("GMT", "+0000"))
        .map_or(0, |t| t.as_second())
}

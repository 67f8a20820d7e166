//! Serves the Docker Engine API on a unix socket, over the same images and runtime that CRI serves.
//!
//! Routes are grouped by the first part of their path, a file or folder each. Everything that is not there answers with
//! the Engine's own form of error, never with success. Source: Docker Engine API 1.51.

// Answers of many fields are one expression each.
#![recursion_limit = "512"]

mod answer;
mod auth;
mod build;
mod call;
mod containers;
mod detach;
mod distribution;
mod events;
mod exec;
mod hijack;
mod images;
mod networks;
mod route;
mod swarm;
mod system;
mod times;
mod volumes;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use pintle_build::Builder;
use pintle_docker::Daemon;
use pintle_image::ImageStore;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

/// The newest version of the API that is spoken, and the oldest.
pub const API_VERSION: &str = "1.51";
pub const MIN_API_VERSION: &str = "1.24";

/// How long a client may take for the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// What is served, and where.
pub struct Config {
    pub socket: PathBuf,
    pub daemon: Arc<Daemon>,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot listen on the socket {path}: {source}")]
pub struct BindError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// A server with its socket.
pub struct DockerApi {
    listener: UnixListener,
    state: Arc<State>,
}

pub(crate) struct State {
    pub(crate) images: Arc<ImageStore>,
    pub(crate) daemon: Arc<Daemon>,
    pub(crate) builder: Arc<Builder>,
}

/// Opens the socket, mode 0660. A socket that a dead server left behind is replaced; a live one is an error.
pub fn bind(config: Config) -> Result<DockerApi, BindError> {
    let path = config.socket;
    let open = || {
        if std::os::unix::net::UnixStream::connect(&path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another server listens there"));
        }
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o660))?;
        Ok(listener)
    };
    let listener = open().map_err(|source| BindError { path: path.clone(), source })?;
    let daemon = config.daemon;
    let images = Arc::clone(&daemon.images);
    let builder = Builder::open(Arc::clone(&daemon)).map_err(|source| BindError { path, source })?;
    Ok(DockerApi { listener, state: Arc::new(State { images, daemon, builder }) })
}

impl DockerApi {
    /// Answers requests until `stop`.
    pub async fn serve(self, stop: CancellationToken) {
        self.state.builder.recover().await;
        while let Some(accepted) = stop.run_until_cancelled(self.listener.accept()).await {
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "the Docker socket refused a connection");
                    continue;
                }
            };
            let (state, stop) = (Arc::clone(&self.state), stop.clone());
            tokio::spawn(async move {
                let service = service_fn(move |request| route::answer(Arc::clone(&state), request));
                let mut server = hyper::server::conn::http1::Builder::new();
                server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
                let connection = server.serve_connection(TokioIo::new(stream), service).with_upgrades();
                if let Some(Err(error)) = stop.run_until_cancelled(connection).await {
                    tracing::debug!(%error, "a Docker client's connection broke");
                }
            });
        }
    }
}

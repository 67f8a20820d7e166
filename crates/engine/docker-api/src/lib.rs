//! Serves the Docker Engine API on a unix socket and TCP with mutual TLS, over the same images and runtime that CRI serves.
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
mod drain;
mod events;
mod exec;
mod hijack;
mod images;
mod listen;
mod networks;
mod route;
mod swarm;
mod system;
mod times;
mod volumes;

pub use listen::{BindError, Remote};

use pintle_build::Builder;
use pintle_docker::Daemon;
use pintle_image::ImageStore;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// The newest version of the API that is spoken, and the oldest.
pub const API_VERSION: &str = "1.51";
pub const MIN_API_VERSION: &str = "1.24";

/// What is served, and where.
pub struct Config {
    pub socket: PathBuf,
    /// A TCP address besides.
    pub remote: Option<Remote>,
    pub daemon: Arc<Daemon>,
    /// How registries are asked.
    pub registries: pintle_distribution::Options,
}

/// A server with its sockets.
pub struct DockerApi {
    local: UnixListener,
    remote: Option<(TcpListener, TlsAcceptor)>,
    state: Arc<State>,
}

pub(crate) struct State {
    pub(crate) images: Arc<ImageStore>,
    pub(crate) daemon: Arc<Daemon>,
    pub(crate) builder: Arc<Builder>,
    pub(crate) registries: pintle_distribution::Options,
}

/// Opens the sockets.
///
/// # Errors
/// When an address is none or is taken, or the builder's files cannot be read.
pub fn bind(config: Config) -> Result<DockerApi, BindError> {
    let path = config.socket;
    let failed = |source| BindError::Socket { path: path.clone(), source };
    let local = listen::local(&path).map_err(failed)?;
    let remote = config.remote.map(listen::remote).transpose()?;
    let daemon = config.daemon;
    let images = Arc::clone(&daemon.images);
    let builder = Builder::open(Arc::clone(&daemon)).map_err(failed)?;
    Ok(DockerApi { local, remote, state: Arc::new(State { images, daemon, builder, registries: config.registries }) })
}

impl DockerApi {
    /// Answers requests until `stop`.
    pub async fn serve(self, stop: CancellationToken) {
        self.state.builder.recover().await;
        let local = listen::serve_local(self.local, Arc::clone(&self.state), stop.clone());
        match self.remote {
            Some(remote) => drop(tokio::join!(local, listen::serve_remote(remote, self.state, stop))),
            None => local.await,
        }
    }
}

//! Speaks to image registries: pull and push, manifests by platform, credentials, progress.
//!
//! A [`Registry`] is one repository's server with the credentials for it; [`pull`] and [`push`] move an image between
//! it and the image store. Layers stream: several at once, each verified, stored and unpacked while it arrives, and
//! taken up again where a connection broke. Source: OCI distribution specification 1.1, Docker Registry HTTP API V2.

mod about;
mod authorization;
mod connection;
mod download;
mod error;
mod manifest;
mod progress;
mod pull;
mod push;
mod registry;
mod search;
mod stream;

pub use about::{Described, describe, tags};
pub use connection::{Connector, TrustRoots};
pub use download::download;
pub use error::{Error, Result};
pub use progress::{Progress, Step};
pub use pull::{Pulled, pull};
pub use push::{Pushed, push};
pub use registry::Registry;
pub use search::search;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// Who asks, as `docker login` keeps it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    pub username: String,
    pub password: String,
    /// An OAuth refresh token, instead of a password.
    pub identity_token: String,
    /// A bearer token to show as it is.
    pub registry_token: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// What holds for all registries.
#[derive(Clone, Debug)]
pub struct Options {
    /// Hosts (with or without port) or CIDR ranges whose certificates are not verified and that may speak plain HTTP:
    /// the loopback by default.
    pub insecure: Vec<String>,
    /// The authorities that vouch for the others.
    pub trust: TrustRoots,
    /// Asked first for images of docker.io, as `https://host[:port]`.
    pub mirrors: Vec<String>,
    /// Layers that move at the same time.
    pub parallel: usize,
    /// `os`, `architecture`, `variant` of the images to pull; an empty variant is any.
    pub platform: (String, String, String),
    /// Layers that are on their way: pulls whose options were cloned from the same ones fetch each layer once.
    pub in_flight: InFlight,
}

/// Which layers are being fetched just now.
#[derive(Clone, Debug, Default)]
pub struct InFlight(Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>);

impl InFlight {
    /// Waits until nobody else fetches the layer.
    pub(crate) async fn alone(&self, layer: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = {
            let mut all = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            all.retain(|_, lock| Arc::strong_count(lock) > 1);
            Arc::clone(all.entry(layer.to_owned()).or_default())
        };
        lock.lock_owned().await
    }
}

impl Default for Options {
    fn default() -> Self {
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        Self {
            insecure: ["127.0.0.0/8", "::1/128", "localhost"].map(str::to_owned).to_vec(),
            trust: TrustRoots::default(),
            mirrors: Vec::new(),
            parallel: 3,
            platform: ("linux".to_owned(), architecture.to_owned(), String::new()),
            in_flight: InFlight::default(),
        }
    }
}

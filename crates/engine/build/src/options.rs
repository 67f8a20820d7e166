//! What a client asks of a build, and what the builder asks of others.

use crate::error::Result;
use crate::output::Output;
use async_trait::async_trait;
use pintle_docker::model::HostConfig;
use pintle_image::Reference;
use std::collections::BTreeMap;
use std::path::Path;

/// Settings of a build.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Its path in the context; empty is `Dockerfile`.
    pub dockerfile: String,
    /// An address that the context comes from, instead of the request's body.
    pub remote: String,
    /// Names that the image gets.
    pub tags: Vec<String>,
    pub no_cache: bool,
    /// Images whose steps count as done here, by name or id; those that are not here are passed over.
    pub cache_from: Vec<String>,
    /// Containers of steps are removed when their step succeeded.
    pub remove: bool,
    /// Also when it failed.
    pub force_remove: bool,
    /// Base images are pulled even when they are here.
    pub pull: bool,
    /// Without a value, an argument is only named.
    pub build_args: BTreeMap<String, Option<String>>,
    pub labels: BTreeMap<String, String>,
    pub target: String,
    /// `os[/architecture[/variant]]`; empty is this machine's.
    pub platform: String,
    /// Limits, network and further settings of the containers that steps run in.
    pub host: HostConfig,
}

/// Something that was downloaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Downloaded {
    /// Of `Content-Type`.
    pub media_type: String,
    /// Of `Content-Disposition`; empty when the server names none.
    pub file_name: String,
    /// Seconds since the epoch, of `Last-Modified`; 0 when the server says nothing.
    pub modified: i64,
}

/// What lies outside of this machine.
#[async_trait]
pub trait Remote: Send + Sync {
    /// Pulls an image into the store.
    async fn pull(&self, reference: &Reference, output: &Output) -> Result<()>;
    /// Downloads an `http` or `https` address into a new file.
    async fn download(&self, url: &str, file: &Path, output: &Output) -> Result<Downloaded>;
}

//! The builder: what outlives a build, and how a build begins and ends.

use crate::build::Build;
use crate::cache::Cache;
use crate::context::Context;
use crate::copy::SumCache;
use crate::dockerfile::{self, Dockerfile, Instruction, Step};
use crate::error::{BuildError, Result, blocking};
use crate::mounted::PREFIX;
use crate::options::{Options, Remote};
use crate::output::{Message, Output};
use pintle_docker::Daemon;
use pintle_docker::containers::RemoveOptions;
use pintle_image::{Lease, Reference};
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Builds images for a daemon.
pub struct Builder {
    pub(crate) daemon: Arc<Daemon>,
    pub(crate) cache: Cache,
    pub(crate) sums: SumCache,
    directory: PathBuf,
}

/// What pruning freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Entries of the cache whose images are gone.
    pub entries: usize,
}

impl Builder {
    /// Opens the builder's directory and drops what a build left there that was cut off.
    ///
    /// # Errors
    /// When a directory cannot be made or emptied.
    pub fn open(daemon: Arc<Daemon>) -> io::Result<Arc<Self>> {
        let directory = daemon.config.data_dir.join("build");
        let temporary = directory.join("tmp");
        clear(&temporary)?;
        for name in ["tmp", "steps"] {
            std::fs::create_dir_all(directory.join(name))?;
        }
        let cache = Cache::open(directory.join("cache"))?;
        let images = &daemon.images;
        for key in images.snapshots().unwrap_or_default().iter().filter(|key| key.starts_with(PREFIX)) {
            if let Err(error) = images.remove_snapshot(key) {
                tracing::warn!(key, %error, "the layer of a build that was cut off is left");
            }
        }
        Ok(Arc::new(Self { daemon, cache, sums: SumCache::default(), directory }))
    }

    /// Removes the containers of steps of builds that were cut off.
    pub async fn recover(&self) {
        let Ok(entries) = std::fs::read_dir(self.directory.join("steps")) else { return };
        let ids: Vec<String> = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        for id in ids {
            self.remove_container(&id).await;
        }
    }

    pub(crate) fn temporary(&self) -> PathBuf {
        self.directory.join("tmp")
    }

    /// Notes the container of a step, so that it is removed at the next start, or does not any more.
    pub(crate) fn note_container(&self, id: &str, running: bool) {
        let path = self.directory.join("steps").join(id);
        let noted = if running { std::fs::write(&path, "") } else { std::fs::remove_file(&path) };
        match noted {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "the container of a build step is not noted");
            }
            _ => {}
        }
    }

    /// Removes the container of a step, whether it runs or is gone already.
    pub(crate) async fn remove_container(&self, id: &str) {
        let options = RemoveOptions { force: true, volumes: true, ..RemoveOptions::default() };
        match self.daemon.remove_container(id, options).await {
            Err(error) if error.status != 404 => {
                tracing::warn!(container = id, %error, "the container of a build step is left");
            }
            _ => self.note_container(id, false),
        }
    }

    /// Builds an image; returns its id. The build is cancelled when nobody listens to the output any more.
    ///
    /// # Errors
    /// In Docker's words. What was told before stays told.
    pub async fn build(
        self: &Arc<Self>,
        options: Options,
        remote: Arc<dyn Remote>,
        body: impl Read + Send + 'static,
        output: Output,
    ) -> Result<String> {
        let tags = references(&options.tags)?;
        let _lease = Lease::of(&self.daemon.images);
        let (context, mut dockerfile) = self.context(&options, remote.as_ref(), body, &output).await?;
        limit_to_target(&mut dockerfile, &options.target)?;
        add_labels(&mut dockerfile, &options);
        for warning in &dockerfile.warnings {
            output.tell(Message::ErrorText(format!("{warning}\n"))).await;
        }
        let cancel = CancellationToken::new();
        let build = Arc::new(Build::new(Arc::clone(self), options, remote, context, dockerfile, cancel.clone()));
        let running = Arc::clone(&build).run(output.clone());
        tokio::pin!(running);
        let outcome = tokio::select! {
            outcome = &mut running => outcome,
            () = output.closed() => {
                cancel.cancel();
                // Steps clean up after themselves.
                running.await.and(Err(BuildError::cancelled()))
            }
        };
        let id = outcome?;
        output.text(format!("Successfully built {}\n", short(&id))).await;
        for tag in tags {
            let (images, image, name) = (Arc::clone(&self.daemon.images), id.clone(), tag.to_string());
            blocking(move || Ok(images.tag(&image, &name)?)).await?;
            let attributes = [("name".to_owned(), tag.familiar())].into();
            self.daemon.events.tell("image", "tag", &id, attributes);
            output.text(format!("Successfully tagged {}\n", tag.familiar())).await;
        }
        Ok(id)
    }

    async fn context(
        &self,
        options: &Options,
        remote: &dyn Remote,
        body: impl Read + Send + 'static,
        output: &Output,
    ) -> Result<(Option<Arc<Context>>, Dockerfile)> {
        let name = if options.dockerfile.is_empty() { "Dockerfile" } else { &options.dockerfile }.to_owned();
        let temporary = self.temporary();
        if options.remote.is_empty() {
            return blocking(move || received(body, &temporary, &name)).await;
        }
        if options.remote == "client-session" {
            return Err(BuildError::invalid(
                "experimental session with v1 builder is no longer supported, use builder version v2 (BuildKit) instead",
            ));
        }
        if !is_url(&options.remote) || is_git(&options.remote) {
            return Err(BuildError {
                status: 501,
                ..BuildError::new("git repositories as build contexts are not supported")
            });
        }
        let file =
            tempfile::NamedTempFile::new_in(&temporary).map_err(|e| BuildError::io("download the context", e))?;
        let downloaded = remote.download(&options.remote, file.path(), output).await?;
        blocking(move || {
            let open = std::fs::File::open(file.path()).map_err(|e| BuildError::io("download the context", e))?;
            if !downloaded.media_type.starts_with("text/plain") {
                return received(open, &temporary, &name);
            }
            let mut bytes = Vec::new();
            let read = open.take(dockerfile::MAX_BYTES as u64 + 1).read_to_end(&mut bytes);
            read.map_err(|e| BuildError::io("download the context", e))?;
            Ok((None, dockerfile::parse(&bytes, &name).map_err(BuildError::invalid)?))
        })
        .await
    }

    /// Forgets the steps whose images are gone.
    ///
    /// # Errors
    /// When the cache cannot be read.
    pub async fn prune(self: &Arc<Self>) -> Result<Pruned> {
        let own = Arc::clone(self);
        let swept = blocking(move || {
            own.cache.sweep(&own.daemon.images).map_err(|e| BuildError::io("prune the build cache", e))
        });
        Ok(Pruned { entries: swept.await? })
    }
}

fn received(
    stream: impl Read + Send,
    temporary: &std::path::Path,
    name: &str,
) -> Result<(Option<Arc<Context>>, Dockerfile)> {
    let context = Context::receive(stream, temporary)?;
    let dockerfile = context.dockerfile(name)?;
    Ok((Some(Arc::new(context)), dockerfile))
}

/// What names are shown as.
pub(crate) fn short(id: &str) -> &str {
    let hex = id.strip_prefix("sha256:").unwrap_or(id);
    hex.get(..12).unwrap_or(hex)
}

pub(crate) fn is_url(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

pub(crate) fn is_git(text: &str) -> bool {
    let path = text.split('#').next().unwrap_or_default();
    (is_url(text) && path.ends_with(".git"))
        || ["git://", "github.com/", "git@"].iter().any(|prefix| text.starts_with(prefix))
}

/// The names that the image gets, each once.
fn references(tags: &[String]) -> Result<Vec<Reference>> {
    let mut all: Vec<Reference> = Vec::new();
    for tag in tags.iter().filter(|tag| !tag.is_empty()) {
        let reference: Reference = tag.parse().map_err(|_| BuildError::invalid("invalid reference format"))?;
        if reference.digest.is_some() {
            return Err(BuildError::invalid("build tag cannot contain a digest"));
        }
        if !all.contains(&reference) {
            all.push(reference);
        }
    }
    Ok(all)
}

fn limit_to_target(dockerfile: &mut Dockerfile, target: &str) -> Result<()> {
    if target.is_empty() {
        return Ok(());
    }
    let wanted = target.to_lowercase();
    let by_name = dockerfile.stages.iter().position(|stage| !stage.name.is_empty() && stage.name == wanted);
    let by_number = target.parse::<usize>().ok().filter(|number| *number < dockerfile.stages.len());
    let Some(index) = by_name.or(by_number) else {
        let target = pintle_docker::go_format::quote(target);
        return Err(BuildError::invalid(format!("target stage {target} could not be found")));
    };
    dockerfile.stages.truncate(index + 1);
    Ok(())
}

fn add_labels(dockerfile: &mut Dockerfile, options: &Options) {
    let Some(last) = dockerfile.stages.last_mut() else { return };
    for (name, value) in &options.labels {
        let pairs = vec![(name.clone(), value.clone())];
        let instruction = Instruction::Label { pairs, literal: true };
        last.steps.push(Step { code: format!("LABEL {name}={value}"), instruction });
    }
}

/// Empties the directory of what a build that was cut off left there. A root that was still mounted comes off first: what
/// is below it belongs to layers.
fn clear(temporary: &std::path::Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(temporary) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        pintle_linux::mount::unmount(&entry?.path()).map_err(io::Error::other)?;
    }
    std::fs::remove_dir_all(temporary)
}

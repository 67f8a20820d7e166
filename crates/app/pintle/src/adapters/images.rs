//! Gives the runtime its images from the image store.

use async_trait::async_trait;
use pintle_cri::{AuthConfig, FilesystemUsage, Image};
use pintle_distribution::{Credentials, Error, Options};
use pintle_image::{ImageError, ImageRecord, ImageStore, Reference, ReferenceError};
use pintle_runtime::{ImageInfo, Images, PortError, SnapshotMounts, SnapshotUsage};
use std::sync::Arc;

/// The store does its work on the disk, so every call that touches it runs on a blocking thread.
pub(crate) struct StoredImages {
    store: Arc<ImageStore>,
    registries: Options,
}

impl StoredImages {
    pub(crate) fn new(store: Arc<ImageStore>, registries: Options) -> Self {
        Self { store, registries }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&ImageStore) -> Result<T, ImageError> + Send + 'static,
    ) -> Result<T, PortError> {
        let store = Arc::clone(&self.store);
        let done = tokio::task::spawn_blocking(move || work(&store)).await;
        done.map_err(|e| PortError::Failed(e.to_string()))?.map_err(port_error)
    }
}

fn port_error(error: ImageError) -> PortError {
    match error {
        ImageError::NotFound(_) => PortError::NotFound(error.to_string()),
        ImageError::Reference(_) => PortError::InvalidArgument(error.to_string()),
        other => PortError::Failed(other.to_string()),
    }
}

fn credentials(auth: AuthConfig) -> Credentials {
    let AuthConfig { username, password, identity_token, registry_token, .. } = auth;
    Credentials { username, password, identity_token, registry_token }
}

/// Why an image did not come, in the words that users of clusters know.
fn pull_error(reference: &Reference, error: &Error) -> PortError {
    let what = format!("failed to pull and unpack image \"{reference}\"");
    let resolving = format!("{what}: failed to resolve reference \"{reference}\"");
    match error {
        Error::NoManifest(_) => PortError::NotFound(format!("{resolving}: {reference}: not found")),
        error if error.is_not_found() || error.is_unauthorized() => PortError::Failed(format!(
            "{resolving}: pull access denied, repository does not exist or may require authorization: {error}"
        )),
        Error::NoPlatform { .. } => PortError::NotFound(format!("{what}: {error}")),
        Error::Connection { .. } | Error::Broken { .. } => {
            PortError::Failed(format!("{resolving}: failed to do request: {error}"))
        }
        other => PortError::Failed(format!("{what}: {other}")),
    }
}

/// The user of an image's configuration, as CRI tells it: a number, or a name.
fn user_of(record: &ImageRecord) -> (Option<i64>, String) {
    let user = record.configuration.config().as_ref().and_then(|c| c.user().clone()).unwrap_or_default();
    let user = user.split(':').next().unwrap_or_default();
    match user.parse() {
        Ok(uid) => (Some(uid), String::new()),
        Err(_) if user.is_empty() => (Some(0), String::new()),
        Err(_) => (None, user.to_owned()),
    }
}

fn cri_image(record: ImageRecord) -> Image {
    let (uid, username) = user_of(&record);
    Image { id: record.id, repo_tags: record.tags, repo_digests: record.digests, size: record.size, uid, username }
}

#[async_trait]
impl Images for StoredImages {
    async fn resolve(&self, reference: &str) -> Result<Option<ImageInfo>, PortError> {
        Ok(self.store.resolve(reference).map(|record| ImageInfo {
            id: record.id,
            refs: record.tags,
            digests: record.digests,
            config: (*record.configuration).clone(),
            chain_ids: record.chain,
        }))
    }

    async fn list(&self) -> Result<Vec<Image>, PortError> {
        Ok(self.store.list().into_iter().map(cri_image).collect())
    }

    async fn status(&self, reference: &str) -> Result<Option<Image>, PortError> {
        Ok(self.store.resolve(reference).map(cri_image))
    }

    /// An image that was built in, loaded or built here is the newest of its name: no registry is asked for it.
    async fn pull(&self, reference: &str, auth: Option<AuthConfig>) -> Result<String, PortError> {
        if let Some(present) = self.store.resolve(reference).filter(|image| image.origins.is_empty()) {
            return Ok(present.id);
        }
        let parsed: Reference =
            reference.parse().map_err(|e: ReferenceError| PortError::InvalidArgument(e.to_string()))?;
        let credentials = auth.map(credentials).unwrap_or_default();
        let pulled = pintle_distribution::pull(&self.store, &parsed, credentials, &self.registries, &|_| {}).await;
        pulled.map(|pulled| pulled.image.id).map_err(|error| pull_error(&parsed, &error))
    }

    async fn remove(&self, reference: &str) -> Result<(), PortError> {
        let reference = reference.to_owned();
        match self.blocking(move |store| store.remove(&reference)).await {
            Ok(_) | Err(PortError::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn fs_info(&self) -> Result<FilesystemUsage, PortError> {
        let root = self.store.root().to_owned();
        let stat = rustix::fs::statvfs(&root).map_err(|e| PortError::Failed(format!("{}: {e}", root.display())))?;
        Ok(FilesystemUsage {
            timestamp: i64::try_from(pintle_clock::system().unix_nanos()).unwrap_or(i64::MAX),
            mountpoint: root.display().to_string(),
            used_bytes: self.store.list().iter().map(|i| i.size).sum(),
            inodes_used: stat.f_files.saturating_sub(stat.f_ffree),
        })
    }

    async fn prepare_snapshot(&self, container_id: &str, image_id: &str) -> Result<SnapshotMounts, PortError> {
        let (key, image) = (container_id.to_owned(), image_id.to_owned());
        let mounts = self.blocking(move |store| store.prepare_snapshot(&key, &image)).await?;
        Ok(SnapshotMounts { lower_dirs: mounts.lower, upper: mounts.upper, work: mounts.work })
    }

    async fn remove_snapshot(&self, container_id: &str) -> Result<(), PortError> {
        let key = container_id.to_owned();
        self.blocking(move |store| store.remove_snapshot(&key)).await
    }

    async fn snapshot_usage(&self, container_id: &str) -> Result<SnapshotUsage, PortError> {
        let key = container_id.to_owned();
        let (bytes, inodes) = self.blocking(move |store| store.snapshot_usage(&key)).await?;
        Ok(SnapshotUsage { bytes, inodes })
    }

    async fn snapshots(&self) -> Result<Vec<String>, PortError> {
        self.blocking(ImageStore::snapshots).await
    }
}

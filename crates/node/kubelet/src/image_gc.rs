//! Deletes images that nobody uses when their disk fills up, those that were unused for longest first.
//!
//! Only images that the kubelet pulled are deleted: the others were brought by people (`docker load`, `docker build`),
//! who could not get them back. Which ones it pulled is kept in empty files, so that it is known after a restart.

use crate::host::Host;
use crate::options::ImageLimits;
use crate::stats::machine_use::filesystem;
use parking_lot::Mutex;
use pintle_cri::{ContainerFilter, Image};
use pintle_informer::{EventType, Recorder};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Upstream's period of image garbage collection.
const PERIOD: Duration = Duration::from_secs(300);

/// The images that the kubelet pulled.
pub struct PulledImages {
    dir: PathBuf,
}

impl PulledImages {
    pub fn new(root: &Path) -> Self {
        Self { dir: root.join("pulled-images") }
    }

    fn file(&self, id: &str) -> Option<PathBuf> {
        let name = id.trim_start_matches("sha256:");
        crate::host::is_plain_name(name).then(|| self.dir.join(name))
    }

    /// Remembers an image by its id.
    pub fn remember(&self, id: &str) {
        let Some(file) = self.file(id) else { return };
        let written = std::fs::create_dir_all(&self.dir).and_then(|()| std::fs::write(&file, ""));
        if let Err(error) = written {
            tracing::warn!(%error, ?file, "a pulled image can't be remembered; it is never deleted by itself");
        }
    }

    fn forget(&self, id: &str) {
        if let Some(file) = self.file(id) {
            // One that is gone already is what is wanted.
            let _ = std::fs::remove_file(file);
        }
    }

    fn has(&self, id: &str) -> bool {
        self.file(id).is_some_and(|file| file.exists())
    }
}

/// When an image was first and last seen, and last used.
#[derive(Clone, Copy, Debug)]
struct Seen {
    first: Instant,
    used: Instant,
}

/// Collects unused images.
pub struct ImageCollector {
    host: Arc<Host>,
    limits: ImageLimits,
    seen: Mutex<HashMap<String, Seen>>,
}

impl ImageCollector {
    pub fn new(host: Arc<Host>, limits: ImageLimits) -> Self {
        Self { host, limits, seen: Mutex::default() }
    }

    /// Looks at the disk now and then, until `stop`.
    pub async fn run(self: Arc<Self>, recorder: Recorder, stop: CancellationToken) {
        if !self.host.hardware.is_real() || self.limits.high_percent >= 100 {
            return;
        }
        let work = async {
            let mut ticks = interval(PERIOD);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                if let Err(message) = self.collect().await {
                    let node = crate::node::reference(&self.host.settings.node_name);
                    recorder.event_on(node, EventType::Warning, "FreeDiskSpaceFailed", message);
                }
            }
        };
        // Ends with `stop` only.
        let _ended = stop.run_until_cancelled(work).await;
    }

    /// Frees what is above the low threshold once the high one is reached; an error in upstream's words when it can't.
    async fn collect(&self) -> Result<(), String> {
        self.detect().await;
        let Ok(images) = self.host.runtime.image_fs_info().await else { return Ok(()) };
        let Some(disk) = filesystem(Path::new(&images.mountpoint)) else { return Ok(()) };
        let Some(wanted) = to_free(disk.capacity, disk.available, self.limits) else { return Ok(()) };
        tracing::info!(wanted, "the disk of the images is full; deleting images that nobody uses");
        let (freed, failed) = self.delete(wanted, self.limits.min_age).await;
        if freed >= wanted || failed == 0 && self.candidates(Duration::ZERO).await.is_empty() && freed > 0 {
            return Ok(());
        }
        Err(format!(
            "Failed to garbage collect required amount of images. Attempted to free {wanted} bytes, but only found \
             {freed} bytes eligible to free."
        ))
    }

    /// Deletes all images that nobody uses.
    pub async fn delete_unused(&self) {
        self.detect().await;
        self.delete(u64::MAX, Duration::ZERO).await;
    }

    /// Notes which images are there, and which are in use. Returns those that are not.
    async fn detect(&self) -> Vec<Image> {
        let runtime = &self.host.runtime;
        let containers = runtime.list_containers(ContainerFilter::default()).await;
        let (Ok(images), Ok(containers)) = (runtime.list_images().await, containers) else { return vec![] };
        let mut names = HashSet::new();
        for container in containers {
            // Images that it mounts are in use, too.
            let mounts = runtime.container_status(&container.id).await.map(|status| status.mounts).unwrap_or_default();
            names.extend(mounts.into_iter().map(|mount| mount.image));
            names.extend([container.image, container.image_ref]);
        }
        let used = |image: &Image| {
            let all = image.repo_tags.iter().chain(&image.repo_digests).chain([&image.id]);
            all.into_iter().any(|name| names.contains(name))
        };
        let now = Instant::now();
        let mut seen = self.seen.lock();
        seen.retain(|id, _| images.iter().any(|image| image.id == *id));
        let mut unused = Vec::new();
        for image in images {
            let entry = seen.entry(image.id.clone()).or_insert(Seen { first: now, used: now });
            if used(&image) {
                entry.used = now;
            } else {
                unused.push(image);
            }
        }
        unused
    }

    /// What may be deleted, the image that was unused for longest first.
    async fn candidates(&self, min_age: Duration) -> Vec<Image> {
        let mut unused = self.detect().await;
        let (seen, now) = (self.seen.lock(), Instant::now());
        unused.retain(|image| {
            let old = seen.get(&image.id).is_some_and(|s| now.duration_since(s.first) >= min_age);
            old && self.host.pulled.has(&image.id)
        });
        unused.sort_by_key(|image| seen.get(&image.id).map(|s| (s.used, s.first)));
        unused
    }

    /// Returns the bytes that were freed, and how many images could not be deleted.
    async fn delete(&self, wanted: u64, min_age: Duration) -> (u64, usize) {
        let (mut freed, mut failed) = (0u64, 0);
        for image in self.candidates(min_age).await {
            if freed >= wanted {
                break;
            }
            match self.host.runtime.remove_image(&image.id).await {
                Ok(()) => {
                    tracing::info!(id = image.id, names = ?image.repo_tags, "an image that nobody uses is deleted");
                    self.host.pulled.forget(&image.id);
                    freed = freed.saturating_add(image.size);
                }
                Err(error) => {
                    tracing::debug!(%error, id = image.id, "an image can't be deleted");
                    failed += 1;
                }
            }
        }
        (freed, failed)
    }
}

/// Bytes to free: nothing below the high threshold, all above the low one from it on.
fn to_free(capacity: u64, available: u64, limits: ImageLimits) -> Option<u64> {
    if capacity == 0 {
        return None;
    }
    let available = available.min(capacity);
    let percent = 100 - (available as u128 * 100 / capacity as u128) as u64;
    let left = (capacity as u128 * u128::from(100 - limits.low_percent.min(100)) / 100) as u64;
    (percent >= u64::from(limits.high_percent)).then(|| left.saturating_sub(available)).filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_high_threshold_starts_and_the_low_one_ends() {
        let limits = ImageLimits::default();
        for (available, expected) in [(500, None), (160, None), (150, Some(50)), (0, Some(200)), (2000, None)] {
            assert_eq!(to_free(1000, available, limits), expected, "{available}");
        }
        assert_eq!(to_free(0, 0, limits), None);
    }

    #[test]
    fn pulled_images_are_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let pulled = PulledImages::new(dir.path());
        pulled.remember("sha256:aa");
        pulled.remember("../../escape");
        assert!(PulledImages::new(dir.path()).has("sha256:aa") && !pulled.has("sha256:bb"));
        pulled.forget("sha256:aa");
        assert!(!pulled.has("sha256:aa"));
    }
}

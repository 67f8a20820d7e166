//! The root file system of an image with a new writable layer, for steps that change files without running anything.

use crate::error::{BuildError, Result};
use crate::root::Root;
use pintle_image::ImageStore;
use pintle_linux::mount::{self, Overlay};
use pintle_linux::path::open_directory;
use std::path::Path;
use std::sync::Arc;

/// What the keys of the builder's layers begin with; at start those are left from a build that was cut off.
pub(crate) const PREFIX: &str = "build-";

/// A writable layer, which goes when this does, unless it has become an image's.
pub(crate) struct Layer {
    images: Arc<ImageStore>,
    pub key: String,
}

impl Drop for Layer {
    fn drop(&mut self) {
        if let Err(error) = self.images.remove_snapshot(&self.key) {
            tracing::warn!(key = %self.key, %error, "the layer of a build step is left");
        }
    }
}

impl Layer {
    /// Makes a layer on an image; on none it is the whole root.
    pub fn on(images: &Arc<ImageStore>, image: &str, key: String) -> Result<Self> {
        let chain = match image {
            "" => Vec::new(),
            id => images.resolve(id).ok_or_else(|| BuildError::new(format!("No such image: {id}")))?.chain,
        };
        images.prepare_snapshot_on(&key, &chain)?;
        Ok(Self { images: Arc::clone(images), key })
    }

    /// Opens the root with the layer on top. The mount is attached nowhere: it goes with the last descriptor.
    pub fn root(&self, temporary: &Path) -> Result<Root> {
        let failed = |e: &dyn std::fmt::Display| BuildError::io("open the root of a build step", e);
        let mounts = self.images.snapshot_mounts(&self.key)?;
        if mounts.lower.is_empty() {
            return Root::open(&mounts.upper).map_err(|e| failed(&e));
        }
        let place = temporary.join(format!("root-{}", self.key));
        std::fs::create_dir(&place).map_err(|e| failed(&e))?;
        let overlay = Overlay { lower: &mounts.lower, upper: &mounts.upper, work: &mounts.work, volatile: true };
        let mounted = overlay.mount_at(&place);
        let opened = mounted.and_then(|()| open_directory(&place));
        let detached = mount::unmount(&place);
        // It is empty, and the next start would remove it.
        let _ = std::fs::remove_dir(&place);
        let opened = opened.map_err(|e| failed(&e))?;
        detached.map_err(|e| failed(&e))?;
        Root::of(opened).map_err(|e| failed(&e))
    }
}

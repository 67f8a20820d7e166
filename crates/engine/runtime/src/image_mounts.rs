//! Images that a container mounts beside its own root: each gets a layer on top of the image's, which keeps the image's
//! layers in place for as long as the container is there.

use crate::containers::missing_image;
use crate::engine::Engine;
use crate::ids::is_id;
use crate::ports::SnapshotMounts;
use crate::records::ContainerRecord;
use crate::sandboxes::port_result;
use pintle_cri::CriResult;

/// What stands between a container's id and the number of one of its image mounts.
const MARK: &str = "-image-";

impl Engine {
    /// Makes the layers of all images that the container mounts, in the order of its mounts.
    pub(crate) async fn make_image_mounts(&self, record: &ContainerRecord) -> CriResult<Vec<SnapshotMounts>> {
        let mut all = Vec::new();
        for mount in record.config.mounts.iter().filter(|mount| !mount.image.is_empty()) {
            let found = port_result(self.images.resolve(&mount.image).await)?;
            let image = found.ok_or_else(|| missing_image(&mount.image))?;
            let key = format!("{}{MARK}{}", record.id, all.len());
            all.push(port_result(self.images.prepare_snapshot(&key, &image.id).await)?);
        }
        Ok(all)
    }

    /// Removes those layers. Succeeds when they are gone.
    pub(crate) async fn remove_image_mounts(&self, id: &str, count: usize) -> CriResult<()> {
        for number in 0..count {
            port_result(self.images.remove_snapshot(&format!("{id}{MARK}{number}")).await)?;
        }
        Ok(())
    }
}

/// The container that a layer of the engine's belongs to; nothing for those that others keep.
pub(crate) fn owner(key: &str) -> Option<&str> {
    let id = key.split_once(MARK).map_or(key, |(id, _)| id);
    is_id(id).then_some(id)
}

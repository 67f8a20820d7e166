//! What containers ask of volumes: to be there, to be filled from the image, to go with the container.

use super::Container;
use super::record::{KeptMount, Record};
use crate::daemon::Daemon;
use crate::error::{DockerError, Result};
use crate::volumes::{self, CreateRequest, Volume};
use pintle_runtime::SnapshotMounts;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| DockerError::io("work on volumes", e))?
}

impl Daemon {
    /// The directory of a volume, which is made when it is not there.
    pub(crate) async fn use_volume(&self, request: CreateRequest) -> Result<String> {
        let volume = self.create_volume(request).await?;
        let (volumes, name) = (Arc::clone(&self.volumes), volume.name);
        let path = blocking(move || volumes.prepare(&name)).await?;
        Ok(path.display().to_string())
    }

    /// Mounts the volumes of a container that is about to start: after the machine's restart they are not.
    pub(crate) async fn prepare_volumes(&self, record: &Record) -> Result<()> {
        let names: Vec<String> = volumes_of(&record.mounts).map(str::to_owned).collect();
        if names.is_empty() {
            return Ok(());
        }
        let volumes = Arc::clone(&self.volumes);
        blocking(move || names.iter().try_for_each(|name| volumes.prepare(name).map(drop))).await
    }

    /// Copies what the image has at their places into volumes that are empty.
    pub(crate) async fn fill_volumes(&self, mounts: &[KeptMount], layer: &SnapshotMounts) -> Result<()> {
        let fillable = mounts.iter().filter(|m| m.point.kind == "volume" && !m.no_copy);
        let places: Vec<(String, String)> =
            fillable.map(|m| (m.point.source.clone(), m.point.destination.clone())).collect();
        if places.is_empty() {
            return Ok(());
        }
        let layer = layer.clone();
        blocking(move || places.iter().try_for_each(|(volume, place)| volumes::fill(Path::new(volume), &layer, place)))
            .await
    }

    /// Removes the volumes that were made for a container, but for those that others have too.
    pub(crate) async fn remove_volumes_made_for(&self, container: &str) {
        for name in self.volumes.made_for(container) {
            if self.users_of_volume(&name).iter().any(|user| user != container) {
                continue;
            }
            match self.destroy_volume(&name).await {
                Err(error) if error.status != 404 => {
                    tracing::warn!(volume = name, %error, "an anonymous volume is left");
                }
                _ => {}
            }
        }
    }

    /// Ids of the containers that have a volume.
    pub fn users_of_volume(&self, name: &str) -> Vec<String> {
        let all = self.containers.list();
        let uses = |c: &&Arc<Container>| c.look(|r| volumes_of(&r.mounts).any(|v| v == name));
        all.iter().filter(uses).map(|c| c.id.clone()).collect()
    }

    /// `docker volume create`; one that exists already is as good.
    ///
    /// # Errors
    /// As [`crate::volumes::Volumes::create`].
    pub async fn create_volume(&self, request: CreateRequest) -> Result<Volume> {
        let volumes = Arc::clone(&self.volumes);
        let (volume, new) = blocking(move || volumes.create(&request)).await?;
        if new {
            self.tell_of_volume(&volume.name, "create");
        }
        Ok(volume)
    }

    /// `docker volume rm`
    ///
    /// # Errors
    /// 404 when there is none (unless `force`), 409 when a container has it.
    pub async fn remove_volume(&self, name: &str, force: bool) -> Result<()> {
        match self.volumes.get(name) {
            Err(_) if force => return Ok(()),
            other => drop(other?),
        }
        let users = self.users_of_volume(name);
        if !users.is_empty() {
            let message = format!("remove {name}: volume is in use - [{}]", users.join(", "));
            return Err(DockerError::conflict(message));
        }
        self.destroy_volume(name).await
    }

    async fn destroy_volume(&self, name: &str) -> Result<()> {
        let (volumes, own) = (Arc::clone(&self.volumes), name.to_owned());
        blocking(move || volumes.remove(&own)).await?;
        self.tell_of_volume(name, "destroy");
        Ok(())
    }

    fn tell_of_volume(&self, name: &str, action: &str) {
        let attributes = BTreeMap::from([("driver".to_owned(), "local".to_owned())]);
        self.events.tell("volume", action, name, attributes);
    }
}

fn volumes_of(mounts: &[KeptMount]) -> impl Iterator<Item = &str> {
    mounts.iter().filter(|m| m.point.kind == "volume").map(|m| m.point.name.as_str())
}

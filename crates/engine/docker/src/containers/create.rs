//! Makes containers: settings are checked and completed from the image, a name is taken, the writable layer made.

use super::record::{Record, snapshot_key};
use super::{Container, base_layer, defaults, names, validate};
use crate::daemon::Daemon;
use crate::error::{DockerError, Result};
use crate::model::{Config, EndpointSettings, HostConfig, NetworkingConfig};
use pintle_image::{ImageRecord, Reference};
use pintle_runtime::SnapshotMounts;
use rand::RngCore;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How often a random name is tried before a digit does not help any more.
const NAME_TRIES: u32 = 10;
/// The largest configuration of an image, in bytes.
const MAX_IMAGE_CONFIGURATION: u64 = 8 << 20;

/// What a client asks for.
#[derive(Clone, Debug, Default)]
pub struct CreateRequest {
    /// One of [`new_id`] that the caller has written down before; empty takes a new one.
    pub id: String,
    /// Empty takes a random one.
    pub name: String,
    /// `os[/architecture[/variant]]`; empty is any.
    pub platform: String,
    pub config: Config,
    pub host: HostConfig,
    pub networking: NetworkingConfig,
}

/// A container was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    pub id: String,
    pub warnings: Vec<String>,
}

impl Daemon {
    /// Makes a container that does not run yet.
    ///
    /// # Errors
    /// 400 for wrong settings, 404 without the image, 409 for a name that is taken.
    pub async fn create_container(&self, mut request: CreateRequest) -> Result<Created> {
        let mut warnings = validate::check(&request.config, &request.host)?;
        defaults::complete(&mut request.host, self.engine.cgroups_are_v2());
        self.name_others_by_id(&mut request.host);
        let image = self.image_of(&request.config.image, &request.platform)?;
        self.check_links(&request.host)?;
        let image_config = self.config_of(&image)?;
        let config = defaults::merge(request.config, image_config)?;
        let networks = endpoints(&request.host, request.networking);
        self.check_endpoints(&networks)?;
        let id = if request.id.is_empty() { new_id() } else { std::mem::take(&mut request.id) };
        let name = self.take_name(&request.name, &id)?;
        let made = self.make(&id, name.clone(), config, request.host, networks, &image).await;
        if let Err(error) = made {
            self.unmake(&id, &name).await;
            return Err(error);
        }
        warnings.sort();
        Ok(Created { id, warnings })
    }

    /// Whose namespaces are shared stays the same container when that gets another name. One that is not there is told of
    /// where its namespace is needed.
    fn name_others_by_id(&self, host: &mut HostConfig) {
        for mode in [&mut host.network_mode, &mut host.pid_mode, &mut host.ipc_mode] {
            let other = mode.strip_prefix("container:").and_then(|name| self.container(name).ok());
            if let Some(other) = other {
                *mode = format!("container:{}", other.id);
            }
        }
    }

    async fn make(
        &self,
        id: &str,
        name: String,
        mut config: Config,
        host: HostConfig,
        networks: BTreeMap<String, EndpointSettings>,
        image: &ImageRecord,
    ) -> Result<()> {
        defaults::hostname(&mut config, &host, id);
        let mut words = config.entrypoint.iter().flatten().chain(config.cmd.iter().flatten()).cloned();
        let program = words.next().ok_or_else(|| DockerError::invalid("no command specified"))?;
        let args = words.collect();
        let mut record = Record {
            id: id.to_owned(),
            name,
            created: self.now(),
            image_id: image.id.clone(),
            program,
            args,
            host,
            networks,
            ..Record::default()
        };
        // Half made: found and cleaned at the next start, should this be the last of this one.
        self.containers.folder.save(&record)?;
        record.layer = self.make_layer(id, &image.id).await?;
        record.mounts = self.resolve_mounts(&mut config, &mut record.host, id, &record.layer).await?;
        record.config = config;
        record.complete = true;
        self.containers.folder.save(&record)?;
        let container = Container::new(record);
        self.containers.insert(&container);
        self.tell_of(&container, "create", &[]);
        Ok(())
    }

    async fn unmake(&self, id: &str, name: &str) {
        self.containers.free_name(name);
        let (images, key) = (Arc::clone(&self.images), snapshot_key(id));
        let removed = tokio::task::spawn_blocking(move || images.remove_snapshot(&key)).await;
        self.remove_volumes_made_for(id).await;
        let folder = self.containers.folder.remove(id);
        if let (Ok(Err(error)), _) = (&removed, &folder) {
            tracing::warn!(container = %id, %error, "the layer of a half-made container is left");
        } else if let Err(error) = folder {
            tracing::warn!(container = %id, %error, "the folder of a half-made container is left");
        }
    }

    async fn make_layer(&self, id: &str, image_id: &str) -> Result<SnapshotMounts> {
        let (images, key, image) = (Arc::clone(&self.images), snapshot_key(id), image_id.to_owned());
        let made = tokio::task::spawn_blocking(move || images.prepare_snapshot(&key, &image)).await;
        let mounts = made.map_err(|e| DockerError::io("make a layer", e))??;
        let mut lower_dirs = mounts.lower;
        // A copy has no layers.
        if mounts.work.exists() {
            lower_dirs.push(base_layer::path(&self.config.data_dir));
        }
        Ok(SnapshotMounts { lower_dirs, upper: mounts.upper, work: mounts.work })
    }

    fn take_name(&self, wanted: &str, id: &str) -> Result<String> {
        if wanted.is_empty() {
            let free = (0..NAME_TRIES).map(names::random).find(|name| self.containers.take_name(name, id).is_ok());
            let last = || {
                let name = id[..12].to_owned();
                self.containers.take_name(&name, id).ok().map(|()| name)
            };
            return free.or_else(last).ok_or_else(|| DockerError::internal("no name is free"));
        }
        names::check(wanted)?;
        let name = wanted.strip_prefix('/').unwrap_or(wanted).to_owned();
        self.containers.take_name(&name, id).map_err(|owner| name_taken(&name, &owner))?;
        Ok(name)
    }

    /// The image with this name or id.
    ///
    /// # Errors
    /// 404 with the name completed as Docker does.
    pub(crate) fn image_of(&self, name: &str, platform: &str) -> Result<ImageRecord> {
        let image = self.images.resolve(name);
        let image = image.ok_or_else(|| {
            let familiar = name.parse::<Reference>().map(|r| r.familiar());
            match familiar {
                Ok(name) => DockerError::not_found(format!("No such image: {name}")),
                Err(_) => DockerError::invalid("invalid reference format"),
            }
        })?;
        let own = image.configuration.architecture().to_string();
        let mut parts = platform.split('/');
        let (os, architecture) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if (!os.is_empty() && os != "linux") || (!architecture.is_empty() && architecture != own) {
            return Err(DockerError::not_found(format!(
                "image with reference {name} was found but does not provide the specified platform ({platform})"
            )));
        }
        Ok(image)
    }

    /// The settings that an image carries, as they were written into it.
    pub(crate) fn config_of(&self, image: &ImageRecord) -> Result<Config> {
        let bytes = self.images.read_blob(&image.id, MAX_IMAGE_CONFIGURATION)?;
        let value: serde_json::Value = serde_json::from_slice(&bytes)
            .map_err(|e| DockerError::internal(format!("the configuration of {}: {e}", image.id)))?;
        let config = crate::model::without_nulls(value["config"].clone());
        if config.is_null() {
            return Ok(Config::default());
        }
        serde_json::from_value(config)
            .map_err(|e| DockerError::internal(format!("the configuration of {}: {e}", image.id)))
    }
}

pub(super) fn name_taken(name: &str, owner: &str) -> DockerError {
    DockerError::conflict(format!(
        "Conflict. The container name \"/{name}\" is already in use by container \"{owner}\". You have to remove (or \
         rename) that container to be able to reuse that name."
    ))
}

/// What a container is connected to: what its mode says, with the settings that were given for it.
fn endpoints(host: &HostConfig, networking: NetworkingConfig) -> BTreeMap<String, EndpointSettings> {
    let mut all = networking.endpoints_config;
    let mode = host.network_mode.as_str();
    if mode.starts_with("container:") {
        return BTreeMap::new();
    }
    if let Some(settings) = all.remove("default") {
        all.insert("bridge".to_owned(), settings);
    }
    all.entry(mode.to_owned()).or_default();
    all
}

/// 64 hexadecimal digits.
pub fn new_id() -> String {
    let mut bytes = [0; 32];
    rand::rng().fill_bytes(&mut bytes);
    hex::encode(bytes)
}

//! Collects the files of volumes that come from the API: config maps, secrets, fields of the pod, tokens.

use super::{Tokens, Why};
use crate::api::{ApiError, ObjectRef, TokenWish};
use crate::field_ref;
use crate::host::Host;
use crate::reference::{ephemeral_containers, lasting_containers, spec};
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{
    Container, DownwardAPIVolumeFile, KeyToPath, Pod, ServiceAccountTokenProjection, Volume, VolumeProjection,
};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::path::{Component, Path};

const DEFAULT_MODE: i32 = 0o644;
const DEFAULT_TOKEN_SECONDS: i64 = 3600;

/// A file to be written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct File {
    /// Relative to the volume.
    pub path: String,
    pub data: Vec<u8>,
    pub mode: u32,
    pub user: Option<u32>,
}

/// All files of a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Payload {
    pub files: Vec<File>,
}

impl Payload {
    /// Changes when the contents do; compared within one process only.
    pub fn hash(&self) -> u64 {
        let mut hasher = std::hash::DefaultHasher::new();
        Hash::hash(self, &mut hasher);
        hasher.finish()
    }

    /// Refuses paths that would lead out of the volume or collide with its own entries.
    pub fn check_paths(&self) -> Result<(), Why> {
        for file in &self.files {
            let path = Path::new(&file.path);
            let plain = path.components().all(|c| matches!(c, Component::Normal(_)));
            if file.path.is_empty() || file.path.len() > 4096 || !plain || file.path.starts_with("..") {
                return Err(Why::Invalid(format!(
                    "invalid path {:?}: must be relative and must not begin with '..'",
                    file.path
                )));
            }
        }
        Ok(())
    }

    fn add(&mut self, path: &str, data: Vec<u8>, mode: i32, user: Option<u32>) {
        // Of two files with one path the later wins.
        self.files.retain(|f| f.path != path);
        self.files.push(File { path: path.to_owned(), data, mode: u32::try_from(mode).unwrap_or(0o644), user });
    }
}

/// The directory name of a volume's kind, and whether it is kept in memory; nothing for kinds not handled here.
pub fn plugin(volume: &Volume) -> Option<(&'static str, bool)> {
    if volume.config_map.is_some() {
        Some(("kubernetes.io~configmap", false))
    } else if volume.secret.is_some() {
        Some(("kubernetes.io~secret", true))
    } else if volume.projected.is_some() {
        Some(("kubernetes.io~projected", true))
    } else if volume.downward_api.is_some() {
        Some(("kubernetes.io~downward-api", true))
    } else {
        None
    }
}

/// Reads everything that a volume holds.
pub async fn collect(
    host: &Host,
    pod: &Pod,
    volume: &Volume,
    ips: &[String],
    tokens: &mut Tokens,
) -> Result<Payload, Why> {
    let mut reader = Reader { host, pod, ips, tokens, payload: Payload::default() };
    if let Some(source) = &volume.config_map {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        reader.config_map(&source.name, source.items.as_deref(), source.optional, mode).await?;
    } else if let Some(source) = &volume.secret {
        let name = source.secret_name.as_deref().unwrap_or_default();
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        reader.secret(name, source.items.as_deref(), source.optional, mode).await?;
    } else if let Some(source) = &volume.downward_api {
        reader.downward(source.items.as_deref(), source.default_mode.unwrap_or(DEFAULT_MODE))?;
    } else if let Some(source) = &volume.projected {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        for projection in source.sources.iter().flatten() {
            reader.projection(projection, mode).await?;
        }
    }
    Ok(reader.payload)
}

struct Reader<'a> {
    host: &'a Host,
    pod: &'a Pod,
    ips: &'a [String],
    tokens: &'a mut Tokens,
    payload: Payload,
}

impl Reader<'_> {
    async fn config_map(
        &mut self,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
        mode: i32,
    ) -> Result<(), Why> {
        let found = self.host.api.config_map(self.pod.namespace(), name).await;
        let Some(map) = allow_missing(found, optional)? else { return Ok(()) };
        let text = map.data.iter().flatten().map(|(key, value)| (key.clone(), value.clone().into_bytes()));
        let binary = map.binary_data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone()));
        self.select(text.chain(binary).collect(), items, optional, mode, "config")
    }

    async fn secret(
        &mut self,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
        mode: i32,
    ) -> Result<(), Why> {
        let found = self.host.api.secret(self.pod.namespace(), name).await;
        let Some(secret) = allow_missing(found, optional)? else { return Ok(()) };
        let data = secret.data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone())).collect();
        self.select(data, items, optional, mode, "secret")
    }

    /// Adds all keys, or those that the items name.
    fn select(
        &mut self,
        mut data: BTreeMap<String, Vec<u8>>,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
        mode: i32,
        kind: &'static str,
    ) -> Result<(), Why> {
        let Some(items) = items.filter(|i| !i.is_empty()) else {
            for (key, value) in data {
                self.payload.add(&key, value, mode, None);
            }
            return Ok(());
        };
        for item in items {
            match data.remove(&item.key) {
                Some(value) => self.payload.add(&item.path, value, item.mode.unwrap_or(mode), None),
                None if optional == Some(true) => {}
                None => return Err(Why::Key { kind, key: item.key.clone() }),
            }
        }
        Ok(())
    }

    fn downward(&mut self, items: Option<&[DownwardAPIVolumeFile]>, mode: i32) -> Result<(), Why> {
        for item in items.unwrap_or_default() {
            let text = if let Some(reference) = &item.field_ref {
                field_ref::field(self.pod, &reference.field_path, self.ips, &self.host.settings)?
            } else if let Some(reference) = &item.resource_field_ref {
                field_ref::resource(self.pod, reference, None, &self.host.settings)?
            } else {
                continue;
            };
            self.payload.add(&item.path, text.into_bytes(), item.mode.unwrap_or(mode), None);
        }
        Ok(())
    }

    async fn projection(&mut self, projection: &VolumeProjection, mode: i32) -> Result<(), Why> {
        if let Some(source) = &projection.config_map {
            return self.config_map(&source.name, source.items.as_deref(), source.optional, mode).await;
        }
        if let Some(source) = &projection.secret {
            return self.secret(&source.name, source.items.as_deref(), source.optional, mode).await;
        }
        if let Some(source) = &projection.downward_api {
            return self.downward(source.items.as_deref(), mode);
        }
        if let Some(source) = &projection.service_account_token {
            return self.token(source, mode).await;
        }
        if let Some(source) = &projection.cluster_trust_bundle {
            let all = self.host.api.trust_bundles().await?;
            let data = super::trust_bundle::anchors(source, &all)?;
            self.private(&source.path, data, mode);
            return Ok(());
        }
        Err(Why::Unsupported("projected with a pod certificate"))
    }

    async fn token(&mut self, source: &ServiceAccountTokenProjection, mode: i32) -> Result<(), Why> {
        let account = spec(self.pod).service_account_name.as_deref().filter(|n| !n.is_empty()).unwrap_or("default");
        let wish = TokenWish {
            namespace: self.pod.namespace().to_owned(),
            service_account: account.to_owned(),
            audience: source.audience.clone(),
            expiration_seconds: source.expiration_seconds.unwrap_or(DEFAULT_TOKEN_SECONDS),
            pod_name: self.pod.name().to_owned(),
            pod_uid: self.pod.uid().to_owned(),
        };
        let text = self.tokens.get(self.host.api.as_ref(), &wish, self.host.clock.now()).await?;
        self.private(&source.path, text.into_bytes(), mode);
        Ok(())
    }

    /// Adds a file that only the group of the volumes may read, or the one user of all containers.
    fn private(&mut self, path: &str, data: Vec<u8>, mode: i32) {
        let grouped = super::ownership::fs_group(self.pod).is_some();
        let user = if grouped { None } else { common_user(self.pod) };
        let mode = if grouped || user.is_some() { 0o600 } else { mode };
        self.payload.add(path, data, mode, user);
    }
}

fn allow_missing<T>(found: Result<T, ApiError>, optional: Option<bool>) -> Result<Option<T>, Why> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(ApiError::NotFound(_)) if optional == Some(true) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The user that all containers run as, when they agree and say so.
fn common_user(pod: &Pod) -> Option<u32> {
    let of_pod = spec(pod).security_context.as_ref().and_then(|s| s.run_as_user);
    let user = |c: &Container| c.security_context.as_ref().and_then(|s| s.run_as_user).or(of_pod);
    let mut users = lasting_containers(pod).map(|(_, c)| user(c));
    let first = users.next()??;
    users.all(|u| u == Some(first)).then(|| u32::try_from(first).ok()).flatten()
}

/// The objects that a pod's volumes and environments refer to.
pub fn references(pod: &Pod) -> BTreeSet<ObjectRef> {
    let namespace = || pod.namespace().to_owned();
    let mut all = BTreeSet::new();
    let mut maps: Vec<&str> = Vec::new();
    let mut secrets: Vec<&str> = Vec::new();
    for volume in spec(pod).volumes.iter().flatten() {
        maps.extend(volume.config_map.as_ref().map(|s| s.name.as_str()));
        secrets.extend(volume.secret.as_ref().and_then(|s| s.secret_name.as_deref()));
        for source in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
            maps.extend(source.config_map.as_ref().map(|s| s.name.as_str()));
            secrets.extend(source.secret.as_ref().map(|s| s.name.as_str()));
            all.extend(source.cluster_trust_bundle.as_ref().map(|_| ObjectRef::TrustBundles));
        }
    }
    let ephemeral = ephemeral_containers(pod);
    for container in lasting_containers(pod).map(|(_, c)| c).chain(ephemeral.iter().map(|(c, _)| c)) {
        for source in container.env_from.iter().flatten() {
            maps.extend(source.config_map_ref.as_ref().map(|s| s.name.as_str()));
            secrets.extend(source.secret_ref.as_ref().map(|s| s.name.as_str()));
        }
        for source in container.env.iter().flatten().filter_map(|e| e.value_from.as_ref()) {
            maps.extend(source.config_map_key_ref.as_ref().map(|s| s.name.as_str()));
            secrets.extend(source.secret_key_ref.as_ref().map(|s| s.name.as_str()));
        }
    }
    secrets.extend(spec(pod).image_pull_secrets.iter().flatten().map(|s| s.name.as_str()));
    let kept = |name: &&str| !name.is_empty();
    all.extend(maps.into_iter().filter(kept).map(|n| ObjectRef::ConfigMap { namespace: namespace(), name: n.into() }));
    all.extend(secrets.into_iter().filter(kept).map(|n| ObjectRef::Secret { namespace: namespace(), name: n.into() }));
    all
}

//! Makes sure that a container's image is on the node, as its pull policy says.
//!
//! Source: `pkg/kubelet/images`; events and messages are upstream's.

use crate::container_status::StartFailure;
use crate::duration;
use crate::memory::Memory;
use crate::reference::{ContainerKind, spec};
use base64::Engine;
use pintle_cri::{AuthConfig, Image};
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{Container, Pod};
use serde_json::Value;
use std::collections::HashMap;

/// A pull configuration longer than this is not read.
const MAX_AUTH_BYTES: usize = 1 << 20;

struct Puller<'a> {
    memory: &'a Memory,
    pod: &'a Pod,
    /// Whose image it is; that of a volume is the pod's.
    container: Option<(ContainerKind, &'a str)>,
    image: &'a str,
    policy: &'a str,
}

/// The container's image, pulled if need be.
pub async fn ensure(
    memory: &Memory,
    pod: &Pod,
    kind: ContainerKind,
    container: &Container,
) -> Result<Image, StartFailure> {
    let image = container.image.as_deref().unwrap_or_default();
    let policy = policy(container.image_pull_policy.as_deref());
    Puller { memory, pod, container: Some((kind, &container.name)), image, policy }.ensure().await
}

/// The images of those volumes of the pod that the container mounts, pulled if need be: their ids, by volume.
pub async fn ensure_volumes(
    memory: &Memory,
    pod: &Pod,
    container: &Container,
) -> Result<HashMap<String, String>, StartFailure> {
    let mut found = HashMap::new();
    let is_mounted = |name: &str| container.volume_mounts.iter().flatten().any(|mount| mount.name == name);
    for volume in spec(pod).volumes.iter().flatten().filter(|volume| is_mounted(&volume.name)) {
        let Some(source) = &volume.image else { continue };
        let image = source.reference.as_deref().unwrap_or_default();
        let puller = Puller { memory, pod, container: None, image, policy: policy(source.pull_policy.as_deref()) };
        found.insert(volume.name.clone(), puller.ensure().await?.id);
    }
    Ok(found)
}

fn policy(wanted: Option<&str>) -> &str {
    wanted.filter(|policy| !policy.is_empty()).unwrap_or("IfNotPresent")
}

fn failure(reason: &str, message: String) -> StartFailure {
    StartFailure { reason: reason.to_owned(), message }
}

impl Puller<'_> {
    fn event(&self, warning: bool, reason: &str, message: String) {
        let events = &self.memory.host.events;
        match self.container {
            Some((kind, name)) => events.container(self.pod, kind, name, warning, reason, message),
            None => events.pod(self.pod, warning, reason, message),
        }
    }

    async fn ensure(&self) -> Result<Image, StartFailure> {
        let image = self.image;
        let present = match self.memory.host.runtime.image_status(image).await {
            Ok(present) => present,
            Err(error) => {
                let message = format!("Failed to inspect image {image:?}: {error}");
                self.event(true, "InspectFailed", message.clone());
                return Err(failure("ImageInspectError", message));
            }
        };
        match (self.policy, present) {
            ("Never", None) => {
                let message = format!("Container image {image:?} is not present with pull policy of Never");
                self.event(true, "ErrImageNeverPull", message.clone());
                Err(failure("ErrImageNeverPull", message))
            }
            ("Never" | "IfNotPresent", Some(found)) => {
                let text =
                    format!("Container image {image:?} already present on machine and can be accessed by the pod");
                self.event(false, "Pulled", text);
                Ok(found)
            }
            _ => self.pull().await,
        }
    }

    async fn pull(&self) -> Result<Image, StartFailure> {
        let (host, image) = (&self.memory.host, self.image);
        if self.memory.pulls.lock().remaining_since_update(image, host.clock.now()).is_some() {
            let message = format!("Back-off pulling image {image:?}");
            self.event(false, "BackOff", message.clone());
            let last = self.memory.pull_errors.lock().get(image).cloned().unwrap_or_default();
            return Err(failure("ImagePullBackOff", format!("{message}: ErrImagePull: {last}")));
        }
        self.event(false, "Pulling", format!("Pulling image {image:?}"));
        let start = tokio::time::Instant::now();
        match self.try_pull().await {
            Ok(pulled) => {
                let took = duration::go(std::time::Duration::from_millis(start.elapsed().as_millis() as u64));
                let size = pulled.size;
                self.event(
                    false,
                    "Pulled",
                    format!("Successfully pulled image {image:?} in {took} ({took} including waiting). Image size: {size} bytes."),
                );
                self.memory.pulls.lock().reset(image);
                self.memory.pull_errors.lock().remove(image);
                Ok(pulled)
            }
            Err(error) => {
                self.event(true, "Failed", format!("Failed to pull image {image:?}: {error}"));
                let now = host.clock.now();
                self.memory.pulls.lock().next(image, now, now);
                self.memory.pull_errors.lock().insert(image.to_owned(), error.clone());
                Err(failure("ErrImagePull", error))
            }
        }
    }

    async fn try_pull(&self) -> Result<Image, String> {
        let runtime = &self.memory.host.runtime;
        let before = runtime.image_status(self.image).await.ok().flatten();
        self.pull_with_any(self.auths().await).await?;
        let status = runtime.image_status(self.image).await.map_err(|e| e.to_string())?;
        let image = status.ok_or_else(|| format!("image {:?} is not there after it was pulled", self.image))?;
        if before.is_none_or(|before| before.id != image.id) {
            self.memory.host.pulled.remember(&image.id);
        }
        Ok(image)
    }

    /// Pulls with the first credentials that the registry takes; without any when there are none.
    async fn pull_with_any(&self, auths: Vec<AuthConfig>) -> Result<(), String> {
        let runtime = &self.memory.host.runtime;
        let tries: Vec<Option<AuthConfig>> =
            if auths.is_empty() { vec![None] } else { auths.into_iter().map(Some).collect() };
        let mut errors: Vec<String> = Vec::new();
        for auth in tries {
            match runtime.pull_image(self.image, auth).await {
                Ok(_) => return Ok(()),
                Err(error) => errors.push(error.to_string()),
            }
        }
        errors.dedup();
        Err(match errors.as_slice() {
            [one] => one.clone(),
            all => format!("[{}]", all.join(", ")),
        })
    }

    /// Of the pod's pull secrets that know the image's registry, then of the machine's providers. Missing secrets are
    /// passed over.
    async fn auths(&self) -> Vec<AuthConfig> {
        let mut found = Vec::new();
        for reference in spec(self.pod).image_pull_secrets.iter().flatten() {
            let Ok(secret) = self.memory.host.api.secret(self.pod.namespace(), &reference.name).await else { continue };
            let data = secret.data.as_ref();
            let modern = data.and_then(|d| d.get(".dockerconfigjson"));
            let Some(bytes) = modern.or_else(|| data.and_then(|d| d.get(".dockercfg"))) else { continue };
            found.extend(auth_for(&bytes.0, self.image));
        }
        if let Some(providers) = &self.memory.host.credential_providers {
            found.extend(providers.of(&repository(self.image)).await);
        }
        found
    }
}

/// Finds the credentials for an image's registry in a Docker client's configuration.
fn auth_for(config: &[u8], image: &str) -> Option<AuthConfig> {
    if config.len() > MAX_AUTH_BYTES {
        return None;
    }
    let config: Value = serde_json::from_slice(config).ok()?;
    let registries = config.get("auths").unwrap_or(&config).as_object()?;
    let wanted = registry(image);
    let host = |key: &str| {
        let rest = key.trim_start_matches("https://").trim_start_matches("http://");
        rest.split('/').next().unwrap_or_default().to_owned()
    };
    let same = |key: &str| match host(key).as_str() {
        "index.docker.io" | "registry-1.docker.io" => wanted == "docker.io",
        other => other == wanted,
    };
    let (key, entry) = registries.iter().find(|(key, _)| same(key))?;
    let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (mut username, mut password) = (text("username"), text("password"));
    if username.is_empty() {
        let decoded = base64::engine::general_purpose::STANDARD.decode(text("auth")).ok()?;
        let decoded = String::from_utf8(decoded).ok()?;
        let (user, pass) = decoded.split_once(':')?;
        (username, password) = (user.to_owned(), pass.trim_end_matches('\0').to_owned());
    }
    Some(AuthConfig { username, password, server_address: key.clone(), ..Default::default() })
}

/// An image's name with its registry, without tag and digest.
fn repository(image: &str) -> String {
    let name = image.split('@').next().unwrap_or_default();
    let tag = name.rfind(':').filter(|at| !name[*at..].contains('/'));
    let name = &name[..tag.unwrap_or(name.len())];
    let host = registry(name);
    match name.strip_prefix(host) {
        Some(_) if name.contains('/') => name.to_owned(),
        _ if name.contains('/') => format!("{host}/{name}"),
        _ => format!("{host}/library/{name}"),
    }
}

/// The registry's host in an image's reference.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => "docker.io",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_found_by_registry() {
        let config = br#"{"auths": {"https://index.docker.io/v1/": {"auth": "dTpw"}, "r.io:5000": {"username": "a", "password": "b"}}}"#;
        for (image, user) in
            [("nginx", Some("u")), ("library/nginx:1", Some("u")), ("r.io:5000/x/y", Some("a")), ("other.io/x", None)]
        {
            assert_eq!(auth_for(config, image).map(|a| a.username).as_deref(), user, "{image}");
        }
        assert!(auth_for(b"not json", "nginx").is_none());
    }

    #[test]
    fn repositories_have_their_registry_and_no_tag() {
        for (image, name) in [
            ("nginx", "docker.io/library/nginx"),
            ("team/web:1", "docker.io/team/web"),
            ("r.io:5000/x/y:1@sha256:0", "r.io:5000/x/y"),
            ("docker.io/library/nginx:1", "docker.io/library/nginx"),
        ] {
            assert_eq!(repository(image), name, "{image}");
        }
    }
}

//! Describes a container to the runtime: command, environment, mounts, limits.

use crate::container_status::StartFailure;
use crate::env::expand;
use crate::env_sources::Sources;
use crate::host::{Host, RuntimeFacts, is_plain_name};
use crate::labels;
use crate::reference::spec;
use crate::volumes::{Paths, is_read_only, prepare_sub_path};
use crate::{etc_hosts, huge_pages, placement, resources, sandbox_config, security};
use pintle_cri::{ContainerConfig, ContainerMetadata, Device, Image, Mount, MountPropagation};
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{Container, Pod, VolumeDevice, VolumeMount};
use std::collections::HashMap;
use std::path::Path;

/// The machine's own hosts file is read up to this size.
const MAX_HOSTS_BYTES: u64 = 1 << 20;

/// Bytes after which a container's log begins a new file: upstream's `containerLogMaxSize`.
pub const LOG_MAX_BYTES: u64 = 10 << 20;

/// What a container is made from, beside its spec.
pub struct Making<'a> {
    pub host: &'a Host,
    pub pod: &'a Pod,
    pub container: &'a Container,
    pub image: &'a Image,
    pub attempt: u32,
    pub ips: &'a [String],
    pub volumes: &'a Paths,
    /// Ids of the images that are volumes, by volume.
    pub image_volumes: HashMap<String, String>,
    /// The container whose processes an ephemeral one sees, by id.
    pub target: Option<String>,
}

fn config_error(message: impl ToString) -> StartFailure {
    StartFailure { reason: "CreateContainerConfigError".into(), message: message.to_string() }
}

impl Making<'_> {
    /// The configuration. Files that it mounts are written on the way.
    pub async fn config(&self) -> Result<ContainerConfig, StartFailure> {
        let (host, pod, container) = (self.host, self.pod, self.container);
        let security = security::context(pod, container, self.image, self.target.clone()).map_err(config_error)?;
        let settings = &host.settings;
        let sources = Sources { pod, container, api: host.api.as_ref(), ips: self.ips, settings };
        let envs = sources.environment().await.map_err(config_error)?;
        let lookup = |name: &str| envs.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        let expanded = |list: &Option<Vec<String>>| list.iter().flatten().map(|t| expand(t, lookup)).collect();
        let (command, args) = (expanded(&container.command), expanded(&container.args));
        let mounts = self.mounts(&envs)?;
        let mut config = ContainerConfig {
            metadata: ContainerMetadata { name: container.name.clone(), attempt: self.attempt },
            image: named(self.image, container.image.as_deref().unwrap_or_default()),
            command,
            args,
            working_dir: container.working_dir.clone().unwrap_or_default(),
            envs,
            mounts,
            devices: self.devices()?,
            labels: labels::of_container(pod, container),
            annotations: labels::annotations_of_container(pod, container),
            log_path: format!("{}/{}.log", container.name, self.attempt),
            log_max_bytes: LOG_MAX_BYTES,
            stdin: container.stdin == Some(true),
            stdin_once: container.stdin_once == Some(true),
            tty: container.tty == Some(true),
            resources: resources::of_container(pod, container, settings.machine_memory),
            security,
            stop_signal: stop_signal(container),
            cdi_devices: Vec::new(),
        };
        config.resources.hugepage_limits =
            huge_pages::on_machine(&config.resources.hugepage_limits, &settings.huge_pages);
        placement::apply(host, pod, container, &mut config).await?;
        Ok(config)
    }

    fn mounts(&self, envs: &[(String, String)]) -> Result<Vec<Mount>, StartFailure> {
        let mut mounts = Vec::new();
        for mount in self.container.volume_mounts.iter().flatten() {
            mounts.push(self.volume(mount, envs)?);
        }
        let own_hosts = mounts.iter().any(|m| m.container_path == "/etc/hosts");
        if !own_hosts {
            mounts.push(self.hosts_file().map_err(|e| config_error(format!("failed to write the hosts file: {e}")))?);
        }
        let path = labels::termination_path(self.container);
        if !path.is_empty() {
            mounts
                .push(self.termination_file(path).map_err(|e| config_error(format!("termination message file: {e}")))?);
        }
        Ok(mounts)
    }

    fn volume(&self, mount: &VolumeMount, envs: &[(String, String)]) -> Result<Mount, StartFailure> {
        let sub_path = match mount.sub_path_expr.as_deref().filter(|e| !e.is_empty()) {
            Some(expression) => expanded_sub_path(expression, envs)?,
            None => mount.sub_path.clone().unwrap_or_default(),
        };
        if let Some(image) = self.image_volumes.get(&mount.name) {
            let (image, container_path) = (image.clone(), absolute(&mount.mount_path));
            return Ok(Mount { container_path, image, sub_path, readonly: true, ..Mount::default() });
        }
        let Some(path) = self.volumes.get(&mount.name) else {
            return Err(config_error(format!(
                "cannot find volume {:?} to mount into container {:?}",
                mount.name, self.container.name
            )));
        };
        if !sub_path.is_empty() {
            prepare_sub_path(path, &sub_path).map_err(|why| {
                let message = format!(
                    "failed to prepare subPath for volumeMount {:?} of container {:?}",
                    mount.name, self.container.name
                );
                tracing::warn!(%why, "{message}");
                config_error(message)
            })?;
        }
        let readonly = mount.read_only == Some(true) || is_read_only(self.pod, &mount.name);
        let recursive = is_recursively_read_only(mount, &self.host.settings.runtime);
        let recursive_readonly =
            recursive.map_err(|e| config_error(format!("failed to resolve recursive read-only mode: {e}")))?;
        Ok(Mount {
            container_path: absolute(&mount.mount_path),
            host_path: path.to_string_lossy().into_owned(),
            readonly,
            recursive_readonly,
            propagation: match mount.mount_propagation.as_deref() {
                Some("HostToContainer") => MountPropagation::HostToContainer,
                Some("Bidirectional") => MountPropagation::Bidirectional,
                _ => MountPropagation::Private,
            },
            sub_path,
            image: String::new(),
        })
    }

    /// The block devices that the container sees.
    fn devices(&self) -> Result<Vec<Device>, StartFailure> {
        let wanted = self.container.volume_devices.iter().flatten();
        let device = |wanted: &VolumeDevice| {
            let path = self.volumes.get(&wanted.name).ok_or_else(|| {
                let (name, container) = (&wanted.name, &self.container.name);
                config_error(format!("cannot find volume {name:?} to pass into container {container:?}"))
            })?;
            let permissions = if is_read_only(self.pod, &wanted.name) { "r" } else { "mrw" };
            Ok(Device {
                container_path: wanted.device_path.clone(),
                host_path: path.to_string_lossy().into_owned(),
                permissions: permissions.to_owned(),
            })
        };
        wanted.map(device).collect()
    }

    /// The hosts file is one for the pod, written anew for each container since the pod's address may be new.
    fn hosts_file(&self) -> std::io::Result<Mount> {
        let text = if spec(self.pod).host_network == Some(true) {
            etc_hosts::content_on_host(self.pod, &read_bounded(Path::new("/etc/hosts"), MAX_HOSTS_BYTES)?)
        } else {
            let (name, domain) = sandbox_config::names(self.pod, &self.host.settings);
            etc_hosts::content(self.pod, self.ips, &name, &domain)
        };
        let dir = self.host.pod_dir(self.pod.uid());
        std::fs::create_dir_all(&dir)?;
        let path = dir.join("etc-hosts");
        std::fs::write(&path, text)?;
        Ok(bind("/etc/hosts", &path))
    }

    fn termination_file(&self, container_path: &str) -> std::io::Result<Mount> {
        use std::os::unix::fs::PermissionsExt;
        if !is_plain_name(&self.container.name) {
            return Err(std::io::ErrorKind::InvalidInput.into());
        }
        let dir = self.host.container_dir(self.pod.uid(), &self.container.name);
        std::fs::create_dir_all(&dir)?;
        let path = dir.join(format!("{:08x}", rand::random::<u32>()));
        std::fs::write(&path, "")?;
        // Any user of the container may write its last words.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666))?;
        Ok(bind(container_path, &path))
    }
}

fn bind(container_path: &str, host_path: &Path) -> Mount {
    Mount {
        container_path: container_path.to_owned(),
        host_path: host_path.to_string_lossy().into_owned(),
        ..Default::default()
    }
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

/// Whether what is below a mount is to be read-only, too.
///
/// # Errors
/// It must be and can't.
pub fn is_recursively_read_only(mount: &VolumeMount, runtime: &RuntimeFacts) -> Result<bool, String> {
    let refused =
        |why: &str| Err(format!("volume {:?} requested recursive read-only mode, but it is {why}", mount.name));
    match mount.recursive_read_only.as_deref() {
        Some("Enabled" | "IfPossible") if mount.read_only != Some(true) => refused("not read-only"),
        Some("Enabled") if !runtime.recursive_read_only => refused("not supported by the runtime"),
        Some("Enabled" | "IfPossible") => Ok(runtime.recursive_read_only),
        _ => Ok(false),
    }
}

/// Every variable of a subPath must be known, and what comes out may not be absolute.
fn expanded_sub_path(expression: &str, envs: &[(String, String)]) -> Result<String, StartFailure> {
    let missing = std::cell::RefCell::new(Vec::new());
    let lookup = |name: &str| {
        let found = envs.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        if found.is_none() {
            missing.borrow_mut().push(name.to_owned());
        }
        found
    };
    let path = expand(expression, lookup);
    let missing = missing.into_inner();
    if !missing.is_empty() {
        return Err(config_error(format!("missing value for {}", missing.join(", "))));
    }
    Ok(path)
}

/// The image's full name, which the status shows: that tag of it which the spec means, else what the spec says.
fn named(image: &Image, wanted: &str) -> String {
    let short = wanted.rsplit('/').next().unwrap_or_default();
    let tagged = if short.contains([':', '@']) { wanted.to_owned() } else { format!("{wanted}:latest") };
    let means = |tag: &&String| tag.strip_suffix(&tagged).is_some_and(|rest| rest.is_empty() || rest.ends_with('/'));
    image.repo_tags.iter().find(means).cloned().unwrap_or_else(|| wanted.to_owned())
}

fn stop_signal(container: &Container) -> String {
    container.lifecycle.as_ref().and_then(|l| l.stop_signal.clone()).unwrap_or_default()
}

/// Reads the start of a file; an absent one is empty.
pub fn read_bounded(path: &Path, limit: u64) -> std::io::Result<String> {
    use std::io::Read;
    let mut bytes = Vec::new();
    match std::fs::File::open(path) {
        Ok(file) => file.take(limit).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_shown_by_its_full_name() {
        let tags = ["docker.io/library/web:1", "docker.io/library/web:latest", "r.io/web:1"];
        let image = Image { repo_tags: tags.iter().map(|t| (*t).to_owned()).collect(), ..Default::default() };
        for (wanted, shown) in [
            ("web:1", "docker.io/library/web:1"),
            ("web", "docker.io/library/web:latest"),
            ("r.io/web:1", "r.io/web:1"),
            ("eb:1", "eb:1"),
            ("web@sha256:00", "web@sha256:00"),
        ] {
            assert_eq!(named(&image, wanted), shown, "{wanted}");
        }
    }

    #[test]
    fn recursively_read_only_is_what_the_runtime_can_do() {
        let mount = |read_only: bool, mode: &str| VolumeMount {
            name: "v".into(),
            read_only: Some(read_only),
            recursive_read_only: Some(mode.into()),
            ..Default::default()
        };
        let ask = |mount: VolumeMount, able| {
            is_recursively_read_only(&mount, &RuntimeFacts { recursive_read_only: able, ..Default::default() })
        };
        for (read_only, mode, able, answer) in [
            (true, "Enabled", true, Ok(true)),
            (true, "IfPossible", true, Ok(true)),
            (true, "IfPossible", false, Ok(false)),
            (true, "Disabled", true, Ok(false)),
            (true, "Enabled", false, Err("not supported by the runtime")),
            (false, "IfPossible", true, Err("not read-only")),
        ] {
            let why = |why| format!("volume \"v\" requested recursive read-only mode, but it is {why}");
            assert_eq!(ask(mount(read_only, mode), able), answer.map_err(why), "{read_only} {mode} {able}");
        }
    }
}

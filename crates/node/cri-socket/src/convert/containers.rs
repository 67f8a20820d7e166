//! Containers: configuration, resources, state, filters.

use super::{Converted, all, signals, unknown};
use crate::messages as m;
use pintle_cri as cri;
use pintle_cri::{ContainerState, MountPropagation};
use pintle_grpc::Status;

impl From<cri::ContainerMetadata> for m::ContainerMetadata {
    fn from(of: cri::ContainerMetadata) -> Self {
        Self { name: of.name, attempt: of.attempt }
    }
}

impl From<m::ContainerMetadata> for cri::ContainerMetadata {
    fn from(of: m::ContainerMetadata) -> Self {
        Self { name: of.name, attempt: of.attempt }
    }
}

/// Limits of processes are the pod's in CRI, and not among these.
impl From<cri::LinuxContainerResources> for m::LinuxContainerResources {
    fn from(of: cri::LinuxContainerResources) -> Self {
        let hugepages = of.hugepage_limits.into_iter();
        Self {
            cpu_period: of.cpu_period,
            cpu_quota: of.cpu_quota,
            cpu_shares: of.cpu_shares,
            memory_limit_in_bytes: of.memory_limit_in_bytes,
            oom_score_adj: of.oom_score_adj,
            cpuset_cpus: of.cpuset_cpus,
            cpuset_mems: of.cpuset_mems,
            hugepage_limits: hugepages.map(|(page_size, limit)| m::HugepageLimit { page_size, limit }).collect(),
            unified: of.unified,
            memory_swap_limit_in_bytes: of.memory_swap_limit_in_bytes,
        }
    }
}

impl From<m::LinuxContainerResources> for cri::LinuxContainerResources {
    fn from(of: m::LinuxContainerResources) -> Self {
        Self {
            cpu_period: of.cpu_period,
            cpu_quota: of.cpu_quota,
            cpu_shares: of.cpu_shares,
            memory_limit_in_bytes: of.memory_limit_in_bytes,
            memory_swap_limit_in_bytes: of.memory_swap_limit_in_bytes,
            oom_score_adj: of.oom_score_adj,
            cpuset_cpus: of.cpuset_cpus,
            cpuset_mems: of.cpuset_mems,
            pids_limit: 0,
            hugepage_limits: of.hugepage_limits.into_iter().map(|of| (of.page_size, of.limit)).collect(),
            unified: of.unified,
        }
    }
}

impl From<cri::Mount> for m::Mount {
    fn from(of: cri::Mount) -> Self {
        let image = (!of.image.is_empty()).then(|| m::ImageSpec { image: of.image, ..Default::default() });
        Self {
            container_path: of.container_path,
            host_path: of.host_path,
            readonly: of.readonly,
            propagation: match of.propagation {
                MountPropagation::Private => 0,
                MountPropagation::HostToContainer => 1,
                MountPropagation::Bidirectional => 2,
            },
            recursive_read_only: of.recursive_readonly,
            image_sub_path: if image.is_some() { of.sub_path } else { String::new() },
            image,
            ..Self::default()
        }
    }
}

impl TryFrom<m::Mount> for cri::Mount {
    type Error = Status;
    fn try_from(of: m::Mount) -> Converted<Self> {
        Ok(Self {
            container_path: of.container_path,
            host_path: of.host_path,
            readonly: of.readonly,
            recursive_readonly: of.recursive_read_only,
            propagation: match of.propagation {
                0 => MountPropagation::Private,
                1 => MountPropagation::HostToContainer,
                2 => MountPropagation::Bidirectional,
                other => return Err(unknown("mount propagation", other)),
            },
            sub_path: of.image_sub_path,
            image: of.image.map(|image| image.image).unwrap_or_default(),
        })
    }
}

impl From<cri::Device> for m::Device {
    fn from(of: cri::Device) -> Self {
        Self { container_path: of.container_path, host_path: of.host_path, permissions: of.permissions }
    }
}

impl From<m::Device> for cri::Device {
    fn from(of: m::Device) -> Self {
        Self { container_path: of.container_path, host_path: of.host_path, permissions: of.permissions }
    }
}

impl From<cri::ContainerConfig> for m::ContainerConfig {
    fn from(of: cri::ContainerConfig) -> Self {
        let linux = m::LinuxContainerConfig {
            resources: Some(of.resources.into()),
            security_context: Some(of.security.into()),
        };
        Self {
            metadata: Some(of.metadata.into()),
            image: Some(m::ImageSpec { image: of.image, ..Default::default() }),
            command: of.command,
            args: of.args,
            working_dir: of.working_dir,
            envs: of.envs.into_iter().map(|(key, value)| m::KeyValue { key, value }).collect(),
            mounts: of.mounts.into_iter().map(Into::into).collect(),
            devices: of.devices.into_iter().map(Into::into).collect(),
            labels: of.labels,
            annotations: of.annotations,
            log_path: of.log_path,
            stdin: of.stdin,
            stdin_once: of.stdin_once,
            tty: of.tty,
            linux: Some(linux),
            cdi_devices: of.cdi_devices.into_iter().map(|name| m::CDIDevice { name }).collect(),
            stop_signal: signals::number(&of.stop_signal),
        }
    }
}

impl TryFrom<m::ContainerConfig> for cri::ContainerConfig {
    type Error = Status;
    fn try_from(of: m::ContainerConfig) -> Converted<Self> {
        let metadata = of.metadata.ok_or_else(|| Status::invalid("container config must include metadata"))?;
        let linux = of.linux.unwrap_or_default();
        Ok(Self {
            metadata: metadata.into(),
            image: of.image.unwrap_or_default().image,
            command: of.command,
            args: of.args,
            working_dir: of.working_dir,
            envs: of.envs.into_iter().map(|of| (of.key, of.value)).collect(),
            mounts: all(of.mounts)?,
            devices: of.devices.into_iter().map(Into::into).collect(),
            labels: of.labels,
            annotations: of.annotations,
            log_path: of.log_path,
            // Those who ask over the socket rotate logs themselves.
            log_max_bytes: 0,
            stdin: of.stdin,
            stdin_once: of.stdin_once,
            tty: of.tty,
            resources: linux.resources.unwrap_or_default().into(),
            security: linux.security_context.unwrap_or_default().try_into()?,
            stop_signal: signals::name(of.stop_signal)?,
            cdi_devices: of.cdi_devices.into_iter().map(|of| of.name).collect(),
        })
    }
}

pub(crate) fn container_state(state: i32) -> ContainerState {
    match state {
        0 => ContainerState::Created,
        1 => ContainerState::Running,
        2 => ContainerState::Exited,
        _ => ContainerState::Unknown,
    }
}

fn state_number(state: ContainerState) -> i32 {
    match state {
        ContainerState::Created => 0,
        ContainerState::Running => 1,
        ContainerState::Exited => 2,
        ContainerState::Unknown => 3,
    }
}

impl From<cri::ContainerStatus> for m::ContainerStatus {
    fn from(of: cri::ContainerStatus) -> Self {
        let user = of.user.map(|user| m::LinuxContainerUser {
            uid: user.uid,
            gid: user.gid,
            supplemental_groups: user.supplemental_groups,
        });
        Self {
            id: of.id,
            metadata: Some(of.metadata.into()),
            state: state_number(of.state),
            created_at: of.created_at,
            started_at: of.started_at,
            finished_at: of.finished_at,
            exit_code: of.exit_code,
            image: Some(m::ImageSpec { image: of.image, ..Default::default() }),
            image_ref: of.image_ref,
            reason: of.reason,
            message: of.message,
            labels: of.labels,
            annotations: of.annotations,
            mounts: of.mounts.into_iter().map(Into::into).collect(),
            log_path: of.log_path,
            resources: Some(m::ContainerResources { linux: Some(of.resources.into()) }),
            image_id: of.image_id,
            user: user.map(|linux| m::ContainerUser { linux: Some(linux) }),
            stop_signal: 0,
        }
    }
}

impl TryFrom<m::ContainerStatus> for cri::ContainerStatus {
    type Error = Status;
    fn try_from(of: m::ContainerStatus) -> Converted<Self> {
        let user = of.user.and_then(|user| user.linux).map(|user| cri::ContainerUser {
            uid: user.uid,
            gid: user.gid,
            supplemental_groups: user.supplemental_groups,
        });
        // Older runtimes have the image's id as its reference only.
        let image_id = if of.image_id.is_empty() { of.image_ref.clone() } else { of.image_id };
        Ok(Self {
            id: of.id,
            metadata: of.metadata.unwrap_or_default().into(),
            state: container_state(of.state),
            created_at: of.created_at,
            started_at: of.started_at,
            finished_at: of.finished_at,
            exit_code: of.exit_code,
            image: of.image.unwrap_or_default().image,
            image_ref: of.image_ref,
            image_id,
            reason: of.reason,
            message: of.message,
            labels: of.labels,
            annotations: of.annotations,
            mounts: all(of.mounts)?,
            log_path: of.log_path,
            resources: of.resources.and_then(|of| of.linux).unwrap_or_default().into(),
            user,
            pid: 0,
        })
    }
}

impl From<cri::Container> for m::Container {
    fn from(of: cri::Container) -> Self {
        Self {
            id: of.id,
            pod_sandbox_id: of.sandbox_id,
            metadata: Some(of.metadata.into()),
            image: Some(m::ImageSpec { image: of.image, ..Default::default() }),
            image_id: of.image_ref.clone(),
            image_ref: of.image_ref,
            state: state_number(of.state),
            created_at: of.created_at,
            labels: of.labels,
            annotations: of.annotations,
        }
    }
}

impl From<m::Container> for cri::Container {
    fn from(of: m::Container) -> Self {
        Self {
            id: of.id,
            sandbox_id: of.pod_sandbox_id,
            metadata: of.metadata.unwrap_or_default().into(),
            image: of.image.unwrap_or_default().image,
            image_ref: of.image_ref,
            state: container_state(of.state),
            created_at: of.created_at,
            labels: of.labels,
            annotations: of.annotations,
        }
    }
}

impl From<cri::ContainerFilter> for m::ContainerFilter {
    fn from(of: cri::ContainerFilter) -> Self {
        Self {
            id: of.id.unwrap_or_default(),
            state: of.state.map(|state| m::ContainerStateValue { state: state_number(state) }),
            pod_sandbox_id: of.sandbox_id.unwrap_or_default(),
            label_selector: of.labels,
        }
    }
}

impl From<m::ContainerFilter> for cri::ContainerFilter {
    fn from(of: m::ContainerFilter) -> Self {
        let some = |id: String| Some(id).filter(|id| !id.is_empty());
        Self {
            id: some(of.id),
            state: of.state.map(|value| container_state(value.state)),
            sandbox_id: some(of.pod_sandbox_id),
            labels: of.label_selector,
        }
    }
}

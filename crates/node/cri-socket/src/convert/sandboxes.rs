//! Sandboxes: configuration, state, filters.

use super::security::id_mappings;
use super::{Converted, all, port, unknown};
use crate::messages as m;
use pintle_cri as cri;
use pintle_cri::{Protocol, SandboxState};
use pintle_grpc::Status;

impl From<cri::PodSandboxMetadata> for m::PodSandboxMetadata {
    fn from(of: cri::PodSandboxMetadata) -> Self {
        Self { name: of.name, uid: of.uid, namespace: of.namespace, attempt: of.attempt }
    }
}

impl From<m::PodSandboxMetadata> for cri::PodSandboxMetadata {
    fn from(of: m::PodSandboxMetadata) -> Self {
        Self { name: of.name, uid: of.uid, namespace: of.namespace, attempt: of.attempt }
    }
}

impl From<cri::PortMapping> for m::PortMapping {
    fn from(of: cri::PortMapping) -> Self {
        let protocol = match of.protocol {
            Protocol::Tcp => 0,
            Protocol::Udp => 1,
            Protocol::Sctp => 2,
        };
        Self { protocol, container_port: of.container_port.into(), host_port: of.host_port.into(), host_ip: of.host_ip }
    }
}

impl TryFrom<m::PortMapping> for cri::PortMapping {
    type Error = Status;
    fn try_from(of: m::PortMapping) -> Converted<Self> {
        let protocol = match of.protocol {
            0 => Protocol::Tcp,
            1 => Protocol::Udp,
            2 => Protocol::Sctp,
            other => return Err(unknown("protocol", other)),
        };
        let (container_port, host_port) = (port(of.container_port)?, port(of.host_port)?);
        Ok(Self { protocol, container_port, host_port, host_ip: of.host_ip })
    }
}

impl From<cri::PodSandboxConfig> for m::PodSandboxConfig {
    fn from(of: cri::PodSandboxConfig) -> Self {
        let mut namespaces = m::NamespaceOption::from(of.namespaces);
        super::with_user_namespace(&mut namespaces, &of.id_mappings);
        let security = m::LinuxSandboxSecurityContext {
            namespace_options: Some(namespaces),
            privileged: of.privileged,
            seccomp: Some(cri::SeccompProfile::RuntimeDefault.into()),
            ..Default::default()
        };
        let dns = m::DNSConfig { servers: of.dns.servers, searches: of.dns.searches, options: of.dns.options };
        Self {
            metadata: Some(of.metadata.into()),
            hostname: of.hostname,
            log_directory: of.log_directory,
            dns_config: Some(dns),
            port_mappings: of.port_mappings.into_iter().map(Into::into).collect(),
            labels: of.labels,
            annotations: of.annotations,
            linux: Some(m::LinuxPodSandboxConfig {
                cgroup_parent: of.cgroup_parent,
                security_context: Some(security),
                sysctls: of.sysctls,
                overhead: of.overhead.map(Into::into),
                resources: None,
            }),
        }
    }
}

impl TryFrom<m::PodSandboxConfig> for cri::PodSandboxConfig {
    type Error = Status;
    fn try_from(of: m::PodSandboxConfig) -> Converted<Self> {
        let metadata = of.metadata.ok_or_else(|| Status::invalid("sandbox config must include metadata"))?;
        let linux = of.linux.unwrap_or_default();
        let security = linux.security_context.unwrap_or_default();
        let dns = of.dns_config.unwrap_or_default();
        Ok(Self {
            metadata: metadata.into(),
            hostname: of.hostname,
            log_directory: of.log_directory,
            dns: cri::DnsConfig { servers: dns.servers, searches: dns.searches, options: dns.options },
            port_mappings: all(of.port_mappings)?,
            labels: of.labels,
            annotations: of.annotations,
            cgroup_parent: linux.cgroup_parent,
            sysctls: linux.sysctls,
            id_mappings: id_mappings(security.namespace_options.as_ref()),
            namespaces: security.namespace_options.unwrap_or_default().try_into()?,
            privileged: security.privileged,
            overhead: linux.overhead.map(Into::into),
        })
    }
}

pub(crate) fn sandbox_state(state: i32) -> SandboxState {
    if state == 0 { SandboxState::Ready } else { SandboxState::NotReady }
}

fn state_number(state: SandboxState) -> i32 {
    match state {
        SandboxState::Ready => 0,
        SandboxState::NotReady => 1,
    }
}

impl From<cri::PodSandboxStatus> for m::PodSandboxStatus {
    fn from(of: cri::PodSandboxStatus) -> Self {
        let mut ips = of.ips.into_iter();
        let network = m::PodSandboxNetworkStatus {
            ip: ips.next().unwrap_or_default(),
            additional_ips: ips.map(|ip| m::PodIP { ip }).collect(),
        };
        let namespaces = m::Namespace { options: Some(of.namespaces.into()) };
        Self {
            id: of.id,
            metadata: Some(of.metadata.into()),
            state: state_number(of.state),
            created_at: of.created_at,
            network: Some(network),
            linux: Some(m::LinuxPodSandboxStatus { namespaces: Some(namespaces) }),
            labels: of.labels,
            annotations: of.annotations,
            runtime_handler: of.runtime_handler,
        }
    }
}

impl TryFrom<m::PodSandboxStatus> for cri::PodSandboxStatus {
    type Error = Status;
    fn try_from(of: m::PodSandboxStatus) -> Converted<Self> {
        let network = of.network.unwrap_or_default();
        let more = network.additional_ips.into_iter().map(|more| more.ip);
        let namespaces = of.linux.and_then(|linux| linux.namespaces).and_then(|namespaces| namespaces.options);
        Ok(Self {
            id: of.id,
            metadata: of.metadata.unwrap_or_default().into(),
            state: sandbox_state(of.state),
            created_at: of.created_at,
            ips: std::iter::once(network.ip).chain(more).filter(|ip| !ip.is_empty()).collect(),
            namespaces: namespaces.unwrap_or_default().try_into()?,
            labels: of.labels,
            annotations: of.annotations,
            runtime_handler: of.runtime_handler,
        })
    }
}

impl From<cri::PodSandbox> for m::PodSandbox {
    fn from(of: cri::PodSandbox) -> Self {
        Self {
            id: of.id,
            metadata: Some(of.metadata.into()),
            state: state_number(of.state),
            created_at: of.created_at,
            labels: of.labels,
            annotations: of.annotations,
            runtime_handler: of.runtime_handler,
        }
    }
}

impl From<m::PodSandbox> for cri::PodSandbox {
    fn from(of: m::PodSandbox) -> Self {
        Self {
            id: of.id,
            metadata: of.metadata.unwrap_or_default().into(),
            state: sandbox_state(of.state),
            created_at: of.created_at,
            labels: of.labels,
            annotations: of.annotations,
            runtime_handler: of.runtime_handler,
        }
    }
}

impl From<cri::PodSandboxFilter> for m::PodSandboxFilter {
    fn from(of: cri::PodSandboxFilter) -> Self {
        let state = of.state.map(|state| m::PodSandboxStateValue { state: state_number(state) });
        Self { id: of.id.unwrap_or_default(), state, label_selector: of.labels }
    }
}

impl From<m::PodSandboxFilter> for cri::PodSandboxFilter {
    fn from(of: m::PodSandboxFilter) -> Self {
        let id = Some(of.id).filter(|id| !id.is_empty());
        Self { id, state: of.state.map(|value| sandbox_state(value.state)), labels: of.label_selector }
    }
}

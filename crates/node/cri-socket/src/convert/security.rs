//! Who a container runs as, what it may do, and whose namespaces it is in.

use super::{Converted, unknown};
use crate::messages as m;
use pintle_cri as cri;
use pintle_cri::{NamespaceMode, SeccompProfile};
use pintle_grpc::Status;

const POD: i32 = 0;
const CONTAINER: i32 = 1;
const NODE: i32 = 2;
const TARGET: i32 = 3;

const RUNTIME_DEFAULT: i32 = 0;
const UNCONFINED: i32 = 1;
const LOCALHOST: i32 = 2;

const STRICT: i32 = 1;

fn mode(number: i32, target: &str) -> Converted<NamespaceMode> {
    Ok(match number {
        POD => NamespaceMode::Pod,
        CONTAINER => NamespaceMode::Container,
        NODE => NamespaceMode::Node,
        TARGET => NamespaceMode::Target(target.to_owned()),
        _ => return Err(unknown("namespace mode", number)),
    })
}

fn mode_number(mode: &NamespaceMode) -> i32 {
    match mode {
        NamespaceMode::Pod => POD,
        NamespaceMode::Container => CONTAINER,
        NamespaceMode::Node => NODE,
        NamespaceMode::Target(_) => TARGET,
    }
}

impl From<cri::NamespaceOption> for m::NamespaceOption {
    fn from(of: cri::NamespaceOption) -> Self {
        let modes = [&of.network, &of.pid, &of.ipc];
        let target = modes.iter().find_map(|mode| match mode {
            NamespaceMode::Target(id) => Some(id.clone()),
            _ => None,
        });
        Self {
            network: mode_number(&of.network),
            pid: mode_number(&of.pid),
            ipc: mode_number(&of.ipc),
            target_id: target.unwrap_or_default(),
            userns_options: None,
        }
    }
}

impl TryFrom<m::NamespaceOption> for cri::NamespaceOption {
    type Error = Status;
    fn try_from(of: m::NamespaceOption) -> Converted<Self> {
        Ok(Self {
            network: mode(of.network, &of.target_id)?,
            pid: mode(of.pid, &of.target_id)?,
            ipc: mode(of.ipc, &of.target_id)?,
        })
    }
}

fn id_mapping(range: cri::IdRange) -> m::IDMapping {
    m::IDMapping { host_id: range.outside, container_id: range.inside, length: range.size }
}

/// The mappings of the pod's user namespace, on what needs them.
pub(crate) fn with_user_namespace(options: &mut m::NamespaceOption, of: &cri::IdMappings) {
    if of.users.is_empty() && of.groups.is_empty() {
        return;
    }
    options.userns_options = Some(m::UserNamespace {
        mode: POD,
        uids: of.users.iter().copied().map(id_mapping).collect(),
        gids: of.groups.iter().copied().map(id_mapping).collect(),
    });
}

pub(super) fn id_mappings(options: Option<&m::NamespaceOption>) -> cri::IdMappings {
    let range = |of: &m::IDMapping| cri::IdRange { inside: of.container_id, outside: of.host_id, size: of.length };
    match options.and_then(|options| options.userns_options.as_ref()) {
        Some(namespace) if namespace.mode == POD => cri::IdMappings {
            users: namespace.uids.iter().map(range).collect(),
            groups: namespace.gids.iter().map(range).collect(),
        },
        _ => cri::IdMappings::default(),
    }
}

impl From<SeccompProfile> for m::SecurityProfile {
    fn from(of: SeccompProfile) -> Self {
        let (profile_type, localhost_ref) = match of {
            SeccompProfile::RuntimeDefault => (RUNTIME_DEFAULT, String::new()),
            SeccompProfile::Unconfined => (UNCONFINED, String::new()),
            SeccompProfile::Localhost(file) => (LOCALHOST, file),
        };
        Self { profile_type, localhost_ref }
    }
}

/// No profile is no confinement.
fn seccomp(of: Option<m::SecurityProfile>) -> Converted<SeccompProfile> {
    Ok(match of.map(|of| (of.profile_type, of.localhost_ref)) {
        None | Some((UNCONFINED, _)) => SeccompProfile::Unconfined,
        Some((RUNTIME_DEFAULT, _)) => SeccompProfile::RuntimeDefault,
        Some((LOCALHOST, file)) => SeccompProfile::Localhost(file),
        Some((other, _)) => return Err(unknown("seccomp profile type", other)),
    })
}

impl From<cri::ContainerSecurityContext> for m::LinuxContainerSecurityContext {
    fn from(of: cri::ContainerSecurityContext) -> Self {
        let id = |value: i64| m::Int64Value { value };
        Self {
            capabilities: Some(m::Capability {
                add_capabilities: of.add_capabilities,
                drop_capabilities: of.drop_capabilities,
                add_ambient_capabilities: Vec::new(),
            }),
            privileged: of.privileged,
            namespace_options: Some(of.namespaces.into()),
            run_as_user: of.run_as_user.map(id),
            run_as_group: of.run_as_group.map(id),
            // Both would be a contradiction.
            run_as_username: if of.run_as_user.is_some() { String::new() } else { of.run_as_username },
            readonly_rootfs: of.readonly_rootfs,
            supplemental_groups: of.supplemental_groups,
            supplemental_groups_policy: if of.supplemental_groups_strict { STRICT } else { 0 },
            no_new_privs: of.no_new_privs,
            masked_paths: of.masked_paths,
            readonly_paths: of.readonly_paths,
            seccomp: Some(of.seccomp.into()),
            ..Self::default()
        }
    }
}

impl TryFrom<m::LinuxContainerSecurityContext> for cri::ContainerSecurityContext {
    type Error = Status;
    fn try_from(of: m::LinuxContainerSecurityContext) -> Converted<Self> {
        if of.apparmor.is_some_and(|profile| profile.profile_type == LOCALHOST) {
            return Err(Status::invalid("AppArmor profiles of the node are not supported"));
        }
        let capabilities = of.capabilities.unwrap_or_default();
        if !capabilities.add_ambient_capabilities.is_empty() {
            return Err(Status::invalid("ambient capabilities are not supported"));
        }
        Ok(Self {
            add_capabilities: capabilities.add_capabilities,
            drop_capabilities: capabilities.drop_capabilities,
            privileged: of.privileged,
            namespaces: of.namespace_options.unwrap_or_default().try_into()?,
            run_as_user: of.run_as_user.map(|id| id.value),
            run_as_group: of.run_as_group.map(|id| id.value),
            run_as_username: of.run_as_username,
            readonly_rootfs: of.readonly_rootfs,
            supplemental_groups: of.supplemental_groups,
            supplemental_groups_strict: of.supplemental_groups_policy == STRICT,
            no_new_privs: of.no_new_privs,
            seccomp: seccomp(of.seccomp)?,
            masked_paths: of.masked_paths,
            readonly_paths: of.readonly_paths,
        })
    }
}

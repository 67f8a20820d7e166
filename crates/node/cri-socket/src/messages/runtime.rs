//! The runtime itself: version, condition, features, events.

use super::containers::ContainerStatus;
use super::sandboxes::PodSandboxStatus;
use std::collections::BTreeMap;

pintle_grpc::messages! {
    VersionRequest { 1 version: String, }
    VersionResponse {
        1 version: String,
        2 runtime_name: String,
        3 runtime_version: String,
        4 runtime_api_version: String,
    }
    NetworkConfig { 1 pod_cidr: String, }
    RuntimeConfig { 1 network_config: Option<NetworkConfig>, }
    UpdateRuntimeConfigRequest { 1 runtime_config: Option<RuntimeConfig>, }
    UpdateRuntimeConfigResponse {}
    RuntimeCondition { 1 kind: String, 2 status: bool, 3 reason: String, 4 message: String, }
    RuntimeStatus { 1 conditions: Vec<RuntimeCondition>, }
    StatusRequest { 1 verbose: bool, }
    RuntimeHandlerFeatures { 1 recursive_read_only_mounts: bool, 2 user_namespaces: bool, }
    RuntimeHandler { 1 name: String, 2 features: Option<RuntimeHandlerFeatures>, }
    RuntimeFeatures { 1 supplemental_groups_policy: bool, 2 user_namespaces_host_network: bool, }
    StatusResponse {
        1 status: Option<RuntimeStatus>,
        2 info: BTreeMap<String, String>,
        3 runtime_handlers: Vec<RuntimeHandler>,
        4 features: Option<RuntimeFeatures>,
    }
    GetEventsRequest {}
    ContainerEventResponse {
        1 container_id: String,
        2 container_event_type: i32,
        3 created_at: i64,
        4 pod_sandbox_status: Option<PodSandboxStatus>,
        5 containers_statuses: Vec<ContainerStatus>,
    }
    RuntimeConfigRequest {}
    RuntimeConfigResponse { 1 linux: Option<LinuxRuntimeConfiguration>, }
    LinuxRuntimeConfiguration { 1 cgroup_driver: i32, }
}

//! Sandboxes of pods.

use super::containers::{
    ContainerStatus, Int64Value, LinuxContainerResources, NamespaceOption, SELinuxOption, SecurityProfile,
};
use std::collections::BTreeMap;

pintle_grpc::messages! {
    DNSConfig { 1 servers: Vec<String>, 2 searches: Vec<String>, 3 options: Vec<String>, }
    PortMapping { 1 protocol: i32, 2 container_port: i32, 3 host_port: i32, 4 host_ip: String, }
    LinuxSandboxSecurityContext {
        1 namespace_options: Option<NamespaceOption>,
        2 selinux_options: Option<SELinuxOption>,
        3 run_as_user: Option<Int64Value>,
        8 run_as_group: Option<Int64Value>,
        4 readonly_rootfs: bool,
        5 supplemental_groups: Vec<i64>,
        11 supplemental_groups_policy: i32,
        6 privileged: bool,
        9 seccomp: Option<SecurityProfile>,
        10 apparmor: Option<SecurityProfile>,
        7 seccomp_profile_path: String,
    }
    LinuxPodSandboxConfig {
        1 cgroup_parent: String,
        2 security_context: Option<LinuxSandboxSecurityContext>,
        3 sysctls: BTreeMap<String, String>,
        4 overhead: Option<LinuxContainerResources>,
        5 resources: Option<LinuxContainerResources>,
    }
    PodSandboxMetadata { 1 name: String, 2 uid: String, 3 namespace: String, 4 attempt: u32, }
    PodSandboxConfig {
        1 metadata: Option<PodSandboxMetadata>,
        2 hostname: String,
        3 log_directory: String,
        4 dns_config: Option<DNSConfig>,
        5 port_mappings: Vec<PortMapping>,
        6 labels: BTreeMap<String, String>,
        7 annotations: BTreeMap<String, String>,
        8 linux: Option<LinuxPodSandboxConfig>,
    }
    RunPodSandboxRequest { 1 config: Option<PodSandboxConfig>, 2 runtime_handler: String, }
    RunPodSandboxResponse { 1 pod_sandbox_id: String, }
    StopPodSandboxRequest { 1 pod_sandbox_id: String, }
    StopPodSandboxResponse {}
    RemovePodSandboxRequest { 1 pod_sandbox_id: String, }
    RemovePodSandboxResponse {}
    PodSandboxStatusRequest { 1 pod_sandbox_id: String, 2 verbose: bool, }
    PodIP { 1 ip: String, }
    PodSandboxNetworkStatus { 1 ip: String, 2 additional_ips: Vec<PodIP>, }
    Namespace { 2 options: Option<NamespaceOption>, }
    LinuxPodSandboxStatus { 1 namespaces: Option<Namespace>, }
    PodSandboxStatus {
        1 id: String,
        2 metadata: Option<PodSandboxMetadata>,
        3 state: i32,
        4 created_at: i64,
        5 network: Option<PodSandboxNetworkStatus>,
        6 linux: Option<LinuxPodSandboxStatus>,
        7 labels: BTreeMap<String, String>,
        8 annotations: BTreeMap<String, String>,
        9 runtime_handler: String,
    }
    PodSandboxStatusResponse {
        1 status: Option<PodSandboxStatus>,
        2 info: BTreeMap<String, String>,
        3 containers_statuses: Vec<ContainerStatus>,
        4 timestamp: i64,
    }
    PodSandboxStateValue { 1 state: i32, }
    PodSandboxFilter {
        1 id: String,
        2 state: Option<PodSandboxStateValue>,
        3 label_selector: BTreeMap<String, String>,
    }
    ListPodSandboxRequest { 1 filter: Option<PodSandboxFilter>, }
    PodSandbox {
        1 id: String,
        2 metadata: Option<PodSandboxMetadata>,
        3 state: i32,
        4 created_at: i64,
        5 labels: BTreeMap<String, String>,
        6 annotations: BTreeMap<String, String>,
        7 runtime_handler: String,
    }
    ListPodSandboxResponse { 1 items: Vec<PodSandbox>, }
    StreamPodSandboxesRequest { 1 filter: Option<PodSandboxFilter>, }
    StreamPodSandboxesResponse { 1 pod_sandboxes: Vec<PodSandbox>, }
    PodSandboxAttributes {
        1 id: String,
        2 metadata: Option<PodSandboxMetadata>,
        3 labels: BTreeMap<String, String>,
        4 annotations: BTreeMap<String, String>,
    }
    UpdatePodSandboxResourcesRequest {
        1 pod_sandbox_id: String,
        2 overhead: Option<LinuxContainerResources>,
        3 resources: Option<LinuxContainerResources>,
    }
    UpdatePodSandboxResourcesResponse {}
}

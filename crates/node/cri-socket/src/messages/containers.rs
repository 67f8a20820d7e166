//! Containers, and what runs in them.

use super::images::ImageSpec;
use super::sandboxes::PodSandboxConfig;
use bytes::Bytes;
use std::collections::BTreeMap;

pintle_grpc::messages! {
    Mount {
        1 container_path: String,
        2 host_path: String,
        3 readonly: bool,
        4 selinux_relabel: bool,
        5 propagation: i32,
        6 uid_mappings: Vec<IDMapping>,
        7 gid_mappings: Vec<IDMapping>,
        8 recursive_read_only: bool,
        9 image: Option<ImageSpec>,
        10 image_sub_path: String,
    }
    IDMapping { 1 host_id: u32, 2 container_id: u32, 3 length: u32, }
    UserNamespace { 1 mode: i32, 2 uids: Vec<IDMapping>, 3 gids: Vec<IDMapping>, }
    NamespaceOption {
        1 network: i32,
        2 pid: i32,
        3 ipc: i32,
        4 target_id: String,
        5 userns_options: Option<UserNamespace>,
    }
    Int64Value { 1 value: i64, }
    SecurityProfile { 1 profile_type: i32, 2 localhost_ref: String, }
    KeyValue { 1 key: String, 2 value: String, }
    LinuxContainerResources {
        1 cpu_period: i64,
        2 cpu_quota: i64,
        3 cpu_shares: i64,
        4 memory_limit_in_bytes: i64,
        5 oom_score_adj: i64,
        6 cpuset_cpus: String,
        7 cpuset_mems: String,
        8 hugepage_limits: Vec<HugepageLimit>,
        9 unified: BTreeMap<String, String>,
        10 memory_swap_limit_in_bytes: i64,
    }
    HugepageLimit { 1 page_size: String, 2 limit: u64, }
    SELinuxOption { 1 user: String, 2 role: String, 3 kind: String, 4 level: String, }
    Capability {
        1 add_capabilities: Vec<String>,
        2 drop_capabilities: Vec<String>,
        3 add_ambient_capabilities: Vec<String>,
    }
    LinuxContainerSecurityContext {
        1 capabilities: Option<Capability>,
        2 privileged: bool,
        3 namespace_options: Option<NamespaceOption>,
        4 selinux_options: Option<SELinuxOption>,
        5 run_as_user: Option<Int64Value>,
        12 run_as_group: Option<Int64Value>,
        6 run_as_username: String,
        7 readonly_rootfs: bool,
        8 supplemental_groups: Vec<i64>,
        17 supplemental_groups_policy: i32,
        11 no_new_privs: bool,
        13 masked_paths: Vec<String>,
        14 readonly_paths: Vec<String>,
        15 seccomp: Option<SecurityProfile>,
        16 apparmor: Option<SecurityProfile>,
        9 apparmor_profile: String,
        10 seccomp_profile_path: String,
    }
    LinuxContainerConfig {
        1 resources: Option<LinuxContainerResources>,
        2 security_context: Option<LinuxContainerSecurityContext>,
    }
    LinuxContainerUser { 1 uid: i64, 2 gid: i64, 3 supplemental_groups: Vec<i64>, }
    ContainerMetadata { 1 name: String, 2 attempt: u32, }
    Device { 1 container_path: String, 2 host_path: String, 3 permissions: String, }
    CDIDevice { 1 name: String, }
    ContainerConfig {
        1 metadata: Option<ContainerMetadata>,
        2 image: Option<ImageSpec>,
        3 command: Vec<String>,
        4 args: Vec<String>,
        5 working_dir: String,
        6 envs: Vec<KeyValue>,
        7 mounts: Vec<Mount>,
        8 devices: Vec<Device>,
        9 labels: BTreeMap<String, String>,
        10 annotations: BTreeMap<String, String>,
        11 log_path: String,
        12 stdin: bool,
        13 stdin_once: bool,
        14 tty: bool,
        15 linux: Option<LinuxContainerConfig>,
        17 cdi_devices: Vec<CDIDevice>,
        18 stop_signal: i32,
    }
    CreateContainerRequest {
        1 pod_sandbox_id: String,
        2 config: Option<ContainerConfig>,
        3 sandbox_config: Option<PodSandboxConfig>,
    }
    CreateContainerResponse { 1 container_id: String, }
    StartContainerRequest { 1 container_id: String, }
    StartContainerResponse {}
    StopContainerRequest { 1 container_id: String, 2 timeout: i64, }
    StopContainerResponse {}
    RemoveContainerRequest { 1 container_id: String, }
    RemoveContainerResponse {}
    ContainerStateValue { 1 state: i32, }
    ContainerFilter {
        1 id: String,
        2 state: Option<ContainerStateValue>,
        3 pod_sandbox_id: String,
        4 label_selector: BTreeMap<String, String>,
    }
    ListContainersRequest { 1 filter: Option<ContainerFilter>, }
    Container {
        1 id: String,
        2 pod_sandbox_id: String,
        3 metadata: Option<ContainerMetadata>,
        4 image: Option<ImageSpec>,
        5 image_ref: String,
        6 state: i32,
        7 created_at: i64,
        8 labels: BTreeMap<String, String>,
        9 annotations: BTreeMap<String, String>,
        10 image_id: String,
    }
    ListContainersResponse { 1 containers: Vec<Container>, }
    StreamContainersRequest { 1 filter: Option<ContainerFilter>, }
    StreamContainersResponse { 1 containers: Vec<Container>, }
    ContainerStatusRequest { 1 container_id: String, 2 verbose: bool, }
    ContainerStatus {
        1 id: String,
        2 metadata: Option<ContainerMetadata>,
        3 state: i32,
        4 created_at: i64,
        5 started_at: i64,
        6 finished_at: i64,
        7 exit_code: i32,
        8 image: Option<ImageSpec>,
        9 image_ref: String,
        10 reason: String,
        11 message: String,
        12 labels: BTreeMap<String, String>,
        13 annotations: BTreeMap<String, String>,
        14 mounts: Vec<Mount>,
        15 log_path: String,
        16 resources: Option<ContainerResources>,
        17 image_id: String,
        18 user: Option<ContainerUser>,
        19 stop_signal: i32,
    }
    ContainerStatusResponse {
        1 status: Option<ContainerStatus>,
        2 info: BTreeMap<String, String>,
    }
    ContainerResources { 1 linux: Option<LinuxContainerResources>, }
    ContainerUser { 1 linux: Option<LinuxContainerUser>, }
    UpdateContainerResourcesRequest {
        1 container_id: String,
        2 linux: Option<LinuxContainerResources>,
        4 annotations: BTreeMap<String, String>,
    }
    UpdateContainerResourcesResponse {}
    ExecSyncRequest { 1 container_id: String, 2 cmd: Vec<String>, 3 timeout: i64, }
    ExecSyncResponse { 1 stdout: Bytes, 2 stderr: Bytes, 3 exit_code: i32, }
    ExecRequest {
        1 container_id: String,
        2 cmd: Vec<String>,
        3 tty: bool,
        4 stdin: bool,
        5 stdout: bool,
        6 stderr: bool,
    }
    ExecResponse { 1 url: String, }
    AttachRequest {
        1 container_id: String,
        2 stdin: bool,
        3 tty: bool,
        4 stdout: bool,
        5 stderr: bool,
    }
    AttachResponse { 1 url: String, }
    PortForwardRequest { 1 pod_sandbox_id: String, 2 port: Vec<i32>, }
    PortForwardResponse { 1 url: String, }
    ContainerAttributes {
        1 id: String,
        2 metadata: Option<ContainerMetadata>,
        3 labels: BTreeMap<String, String>,
        4 annotations: BTreeMap<String, String>,
    }
    ReopenContainerLogRequest { 1 container_id: String, }
    ReopenContainerLogResponse {}
    CheckpointContainerRequest { 1 container_id: String, 2 location: String, 3 timeout: i64, }
    CheckpointContainerResponse {}
}

//! Messages of upstream's device plugin API, v1beta1.
//!
//! Source: `k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1/api.proto`.

use std::collections::BTreeMap;

pub const VERSION: &str = "v1beta1";
pub const REGISTER: &str = "/v1beta1.Registration/Register";
pub const OPTIONS: &str = "/v1beta1.DevicePlugin/GetDevicePluginOptions";
pub const LIST_AND_WATCH: &str = "/v1beta1.DevicePlugin/ListAndWatch";
pub const ALLOCATE: &str = "/v1beta1.DevicePlugin/Allocate";
pub const PREFERRED: &str = "/v1beta1.DevicePlugin/GetPreferredAllocation";
pub const PRE_START: &str = "/v1beta1.DevicePlugin/PreStartContainer";
/// What a device says of itself when it can be used.
pub const HEALTHY: &str = "Healthy";

pintle_grpc::messages! {
    Empty {}
    DevicePluginOptions {
        1 pre_start_required: bool,
        2 get_preferred_allocation_available: bool,
    }
    RegisterRequest {
        1 version: String,
        2 endpoint: String,
        3 resource_name: String,
        4 options: Option<DevicePluginOptions>,
    }
    NUMANode { 1 id: i64, }
    TopologyInfo { 1 nodes: Vec<NUMANode>, }
    PluginDevice {
        1 id: String,
        2 health: String,
        3 topology: Option<TopologyInfo>,
    }
    ListAndWatchResponse { 1 devices: Vec<PluginDevice>, }
    ContainerPreferredAllocationRequest {
        1 available: Vec<String>,
        2 must_include: Vec<String>,
        3 size: i32,
    }
    PreferredAllocationRequest { 1 containers: Vec<ContainerPreferredAllocationRequest>, }
    ContainerPreferredAllocationResponse { 1 ids: Vec<String>, }
    PreferredAllocationResponse { 1 containers: Vec<ContainerPreferredAllocationResponse>, }
    ContainerAllocateRequest { 1 ids: Vec<String>, }
    AllocateRequest { 1 containers: Vec<ContainerAllocateRequest>, }
    DeviceMount {
        1 container_path: String,
        2 host_path: String,
        3 read_only: bool,
    }
    DeviceSpec {
        1 container_path: String,
        2 host_path: String,
        3 permissions: String,
    }
    CDIDevice { 1 name: String, }
    ContainerAllocateResponse {
        1 envs: BTreeMap<String, String>,
        2 mounts: Vec<DeviceMount>,
        3 devices: Vec<DeviceSpec>,
        4 annotations: BTreeMap<String, String>,
        5 cdi_devices: Vec<CDIDevice>,
    }
    AllocateResponse { 1 containers: Vec<ContainerAllocateResponse>, }
    PreStartContainerRequest { 1 ids: Vec<String>, }
}

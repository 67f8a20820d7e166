//! Messages of upstream's plugin registration API, v1.
//!
//! Source: `k8s.io/kubelet/pkg/apis/pluginregistration/v1/api.proto`.

pub const GET_INFO: &str = "/pluginregistration.Registration/GetInfo";
pub const NOTIFY: &str = "/pluginregistration.Registration/NotifyRegistrationStatus";

pintle_grpc::messages! {
    InfoRequest {}
    PluginInfo {
        1 kind: String,
        2 name: String,
        3 endpoint: String,
        4 supported_versions: Vec<String>,
    }
    RegistrationStatus {
        1 plugin_registered: bool,
        2 error: String,
    }
    RegistrationStatusResponse {}
}

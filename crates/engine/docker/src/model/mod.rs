//! The shapes of the Engine API that are kept as well as shown, with the names, the order and the absences of Docker.

mod config;
mod health;
mod host;
mod network;

pub use config::{Config, Empty};
pub use health::{Health, HealthConfig, HealthResult, HealthStatus};
pub use host::{
    BindOptions, DeviceMapping, DeviceRequest, HostConfig, ImageOptions, LogConfig, Mount, PortBinding, RestartPolicy,
    ThrottleDevice, TmpfsOptions, Ulimit, VolumeDriver, VolumeOptions, WeightDevice,
};
pub use network::{EndpointIpam, EndpointSettings, NetworkingConfig};

use serde_json::Value;

/// Drops what is null from objects, at every depth: to the Engine null is the same as absence.
pub fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.into_iter().filter(|(_, v)| !v.is_null());
            Value::Object(kept.map(|(k, v)| (k, without_nulls(v))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

/// Whether a list or map is absent or empty, for fields that are left out then.
pub(crate) fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

//! Turns typed objects into JSON and back, once per kind in the whole binary.
//!
//! `serde` code is generic: every crate that decodes a Pod would carry its own copy of the decoder. The functions
//! of [`Kind`] are instantiated here and nowhere else.

use crate::ObjectMeta;
use k8s_openapi::{Metadata, Resource};

/// Bytes that are not the object they should be.
#[derive(Debug, thiserror::Error)]
#[error("{kind}: {source}")]
pub struct DecodeError {
    pub kind: &'static str,
    #[source]
    pub source: serde_json::Error,
}

/// A built-in kind that has a typed struct.
pub trait Kind: Resource + Metadata<Ty = ObjectMeta> + Clone + std::fmt::Debug + Send + Sync + Unpin + 'static {
    /// Whether its objects live in namespaces.
    const NAMESPACED: bool;

    /// Decodes one object; unknown fields are ignored.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError>;
    /// Decodes one object from a JSON tree.
    fn from_value(value: serde_json::Value) -> Result<Self, DecodeError>;
    /// The object as JSON, with `apiVersion` and `kind`.
    fn encode(&self) -> Vec<u8>;
    /// The object as a JSON tree, with `apiVersion` and `kind`.
    fn to_value(&self) -> serde_json::Value;

    /// The plural name in paths, such as `pods`.
    fn plural() -> &'static str {
        Self::URL_PATH_SEGMENT
    }
    /// The object's name; empty when it has none yet.
    fn name(&self) -> &str {
        self.metadata().name.as_deref().unwrap_or_default()
    }
    /// The object's namespace; empty when it is cluster-scoped.
    fn namespace(&self) -> &str {
        self.metadata().namespace.as_deref().unwrap_or_default()
    }
    /// The object's uid; empty before the API server gave one.
    fn uid(&self) -> &str {
        self.metadata().uid.as_deref().unwrap_or_default()
    }
    /// The object's version, to compare with others of its kind; 0 when it has none yet.
    fn version(&self) -> u64 {
        self.metadata().resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or_default()
    }
    /// The key of the object among its kind.
    fn key(&self) -> crate::ObjectKey {
        crate::ObjectKey::new(self.namespace(), self.name())
    }
    /// The value of a label.
    fn label(&self, key: &str) -> Option<&str> {
        self.metadata().labels.as_ref()?.get(key).map(String::as_str)
    }
    /// The value of an annotation.
    fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata().annotations.as_ref()?.get(key).map(String::as_str)
    }
    /// Whether deletion was asked for.
    fn is_deleting(&self) -> bool {
        self.metadata().deletion_timestamp.is_some()
    }
}

macro_rules! kinds {
    ($($scope:ident $module:path { $($name:ident),* $(,)? })*) => {$($(
        const _: () = {
            use $module as m;
            impl Kind for m::$name {
                const NAMESPACED: bool = kinds!(@ $scope);
                fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
                    serde_json::from_slice(bytes).map_err(|source| DecodeError { kind: stringify!($name), source })
                }
                fn from_value(value: serde_json::Value) -> Result<Self, DecodeError> {
                    serde_json::from_value(value).map_err(|source| DecodeError { kind: stringify!($name), source })
                }
                fn encode(&self) -> Vec<u8> {
                    serde_json::to_vec(self).expect("an API object always serializes")
                }
                fn to_value(&self) -> serde_json::Value {
                    serde_json::to_value(self).expect("an API object always serializes")
                }
            }
        };
    )*)*};
    (@ namespaced) => { true };
    (@ cluster) => { false };
}

kinds! {
    namespaced k8s_openapi::api::core::v1 {
        ConfigMap, Endpoints, Event, LimitRange, PersistentVolumeClaim, Pod, ReplicationController, ResourceQuota,
        Secret, Service, ServiceAccount,
    }
    cluster k8s_openapi::api::core::v1 { Namespace, Node, PersistentVolume }
    namespaced k8s_openapi::api::apps::v1 { ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet }
    namespaced k8s_openapi::api::autoscaling::v2 { HorizontalPodAutoscaler }
    namespaced k8s_openapi::api::batch::v1 { CronJob, Job }
    cluster k8s_openapi::api::certificates::v1 { CertificateSigningRequest }
    namespaced k8s_openapi::api::coordination::v1 { Lease }
    namespaced k8s_openapi::api::discovery::v1 { EndpointSlice }
    namespaced k8s_openapi::api::policy::v1 { PodDisruptionBudget }
    namespaced k8s_openapi::api::networking::v1 { NetworkPolicy }
    cluster k8s_openapi::api::networking::v1 { IPAddress, ServiceCIDR }
    namespaced k8s_openapi::api::resource::v1 { ResourceClaim, ResourceClaimTemplate }
    cluster k8s_openapi::api::resource::v1 { DeviceClass, ResourceSlice }
    cluster k8s_openapi::api::scheduling::v1 { PriorityClass }
    cluster k8s_openapi::api::resource::v1beta2 { DeviceTaintRule }
    cluster k8s_openapi::api::storage::v1 { CSIDriver, StorageClass, VolumeAttachment, VolumeAttributesClass }
    namespaced k8s_openapi::api::storage::v1 { CSIStorageCapacity }
    cluster k8s_openapi::api::storagemigration::v1beta1 { StorageVersionMigration }
    cluster k8s_openapi::api::node::v1 { RuntimeClass }
    namespaced k8s_openapi::api::rbac::v1 { Role, RoleBinding }
    cluster k8s_openapi::api::rbac::v1 { ClusterRole, ClusterRoleBinding }
}

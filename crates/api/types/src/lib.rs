//! The vocabulary of the Kubernetes API: kinds, metadata, selectors, quantities, errors.
//!
//! Knows nothing of HTTP connections, storage or containers, and does no IO. The typed structs are those of
//! `k8s-openapi`, re-exported as [`k8s`]; what is added here is what clients and servers share beside them.

pub mod codec;
pub mod field;
pub mod names;
pub mod quantity;
pub mod query;
pub mod selector;
pub mod signals;
pub mod status;

pub use codec::{DecodeError, Kind};
pub use k8s_openapi as k8s;
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
pub use names::{GroupKind, GroupVersion, GroupVersionKind, GroupVersionResource, ObjectKey};
pub use status::{Reason, Status};

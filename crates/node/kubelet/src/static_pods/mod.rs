//! Pods that this node runs from files, whether the API server is there or not, and their mirrors in the API.

mod manifest;
mod mirror;
mod source;

pub use mirror::Mirrors;
pub use source::Source;

use pintle_types::k8s::api::core::v1::Pod;

/// Says what a pod was made from; changes with it.
pub const HASH: &str = "kubernetes.io/config.hash";
pub const SOURCE: &str = "kubernetes.io/config.source";
pub const SEEN: &str = "kubernetes.io/config.seen";
/// On mirrors: the hash of the pod that they mirror.
pub const MIRROR: &str = "kubernetes.io/config.mirror";

fn annotation<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// Whether an object of the API only mirrors a static pod.
pub fn is_mirror(pod: &Pod) -> bool {
    annotation(pod, MIRROR).is_some()
}

/// Whether a pod comes from a file; a mirror of one does not.
pub fn is_static(pod: &Pod) -> bool {
    !is_mirror(pod) && annotation(pod, SOURCE).is_some_and(|source| source != "api")
}

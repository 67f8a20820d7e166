//! The labels and annotations by which the kubelet knows its sandboxes and containers again.

use pintle_cri::Labels;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{Container, Pod};

pub const POD_NAME: &str = "io.kubernetes.pod.name";
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const POD_UID: &str = "io.kubernetes.pod.uid";
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
pub const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
pub const TERMINATION_PATH: &str = "io.kubernetes.container.terminationMessagePath";
pub const TERMINATION_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
pub const GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";

/// Labels of a pod's sandbox: the pod's own, and who it is.
pub fn of_sandbox(pod: &Pod) -> Labels {
    let mut labels: Labels = pod.metadata.labels.clone().unwrap_or_default();
    labels.extend(identity(pod));
    labels
}

/// Labels of a container.
pub fn of_container(pod: &Pod, container: &Container) -> Labels {
    let mut labels = identity(pod);
    labels.insert(CONTAINER_NAME.into(), container.name.clone());
    labels
}

fn identity(pod: &Pod) -> Labels {
    [(POD_NAME, pod.name()), (POD_NAMESPACE, pod.namespace()), (POD_UID, pod.uid())]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// A filter that selects what belongs to one pod.
pub fn selector(uid: &str) -> Labels {
    Labels::from([(POD_UID.to_owned(), uid.to_owned())])
}

/// Annotations of a container, from which its end can be understood without the pod.
pub fn annotations_of_container(pod: &Pod, container: &Container) -> Labels {
    Labels::from([
        (CONTAINER_HASH.to_owned(), container_hash(container)),
        (TERMINATION_PATH.to_owned(), termination_path(container).to_owned()),
        (TERMINATION_POLICY.to_owned(), container.termination_message_policy.clone().unwrap_or_else(|| "File".into())),
        (GRACE_PERIOD.to_owned(), crate::reference::own_grace(pod).to_string()),
    ])
}

/// Where in the container its last words are read from.
pub fn termination_path(container: &Container) -> &str {
    container.termination_message_path.as_deref().unwrap_or("/dev/termination-log")
}

/// Changes when a running container no longer is what its pod wants; only an image can change there.
pub fn container_hash(container: &Container) -> String {
    let text = format!("{}\0{}", container.name, container.image.as_deref().unwrap_or_default());
    format!("{:08x}", fnv(text.as_bytes()))
}

/// FNV-1a, 32 bits: stable across versions of the compiler, as what is written into annotations must be.
fn fnv(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

//! Decides, for one volume, what is to be done on each node. Source of the rules: upstream's attach/detach reconciler
//! and the attacher of its CSI plugin.

use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{Node, PersistentVolume, Pod};
use pintle_types::k8s::api::storage::v1::VolumeAttachment;
use ring::digest::{SHA256, digest};
use std::sync::Arc;
use std::time::Duration;

/// What kubelets call volumes of CSI drivers.
const PLUGIN: &str = "kubernetes.io/csi/";
/// On nodes whose kubelet leaves attaching to this controller.
const MANAGED: &str = "volumes.kubernetes.io/controller-managed-attach-detach";
/// How long a node that is not well may keep a volume that nobody wants there.
pub const MAX_WAIT_FOR_UNMOUNT: Duration = Duration::from_secs(360);
/// How long a driver may take before pods are told that it takes long.
pub const ATTACH_TIMEOUT: Duration = Duration::from_secs(120);

/// A volume as its driver knows it. Two `PersistentVolume`s may be one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Handle {
    pub driver: String,
    pub volume: String,
}

impl Handle {
    /// Nothing for a volume that no CSI driver has.
    pub fn of(volume: &PersistentVolume) -> Option<Self> {
        let source = volume.spec.as_ref()?.csi.as_ref()?;
        Some(Self { driver: source.driver.clone(), volume: source.volume_handle.clone() })
    }

    /// From what a node's status calls it.
    pub fn parse(unique: &str) -> Option<Self> {
        let (driver, volume) = unique.strip_prefix(PLUGIN)?.split_once('^')?;
        Some(Self { driver: driver.to_owned(), volume: volume.to_owned() })
    }

    /// As the status of nodes calls it.
    pub fn unique(&self) -> String {
        format!("{PLUGIN}{}^{}", self.driver, self.volume)
    }

    /// The name of its attachment to a node.
    pub fn attachment(&self, node: &str) -> String {
        let digest = digest(&SHA256, format!("{}{}{node}", self.volume, self.driver).as_bytes());
        let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("csi-{hex}")
    }
}

/// Whether attaching to the node is this controller's business.
pub fn is_managed(node: &Node) -> bool {
    node.annotation(MANAGED) == Some("true")
}

/// Whether the node's kubelet may still use what is mounted there.
pub fn care(node: &Node) -> Care {
    if crate::node::is_out_of_service(node) {
        Care::None
    } else if crate::node::is_ready(node) {
        Care::Full
    } else {
        Care::ForAWhile
    }
}

/// Whether a volume may be attached to several nodes. Nobody knows of one that says nothing: its driver is left to
/// refuse.
pub fn is_shared(volume: &PersistentVolume) -> bool {
    let modes = volume.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
    modes.is_empty() || modes.iter().any(|mode| matches!(mode.as_str(), "ReadWriteMany" | "ReadOnlyMany"))
}

/// How careful one has to be with a volume that a node uses and no pod there wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Care {
    /// It stays until the kubelet has let it go.
    Full,
    /// The kubelet is not heard of: it has [`MAX_WAIT_FOR_UNMOUNT`].
    ForAWhile,
    /// It goes at once.
    None,
}

/// What is known of a volume on one node.
#[derive(Clone, Debug)]
pub struct OnNode {
    pub node: String,
    /// The pods there that want it.
    pub pods: Vec<Arc<Pod>>,
    pub attachment: Option<Arc<VolumeAttachment>>,
    /// Since when there is the attachment.
    pub age: Duration,
    /// Whether the node's status says that it is attached, and that it is in use.
    pub reported: bool,
    pub in_use: bool,
    pub care: Care,
    /// Since when no pod there wants it; nothing while one does.
    pub unwanted: Duration,
}

/// What to do about a volume on a node.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Nothing, or nothing before something changes.
    Nothing,
    /// Nothing before that time.
    Wait(Duration),
    /// The driver is asked to attach it.
    Attach,
    /// It is attached: the node's status says so from now on, and pods are told.
    Report,
    /// The driver did not attach it, for this reason; looked at again after the time, if there is one.
    Failed(String, Option<Duration>),
    /// Other nodes have it, and it can't be shared. What each of the pods is told.
    Refuse(Vec<String>),
    /// Its attachment is gone or going: the node's status says so.
    Unreport,
    /// The driver is asked to detach it.
    Detach,
}

fn is_leaving(attachment: &VolumeAttachment) -> bool {
    attachment.metadata.deletion_timestamp.is_some()
}

fn is_attached(place: &OnNode) -> bool {
    let attachment = place.attachment.as_ref().filter(|attachment| !is_leaving(attachment));
    attachment.is_some_and(|attachment| attachment.status.as_ref().is_some_and(|status| status.attached))
}

/// What to do on each node, in the order of the nodes. Detaching is decided first: what leaves one node may go to
/// another, though not at once.
pub fn plan(volume: &str, handle: &Handle, shared: bool, places: &[OnNode]) -> Vec<Step> {
    let mut steps: Vec<Step> = places.iter().map(|place| detach(place).unwrap_or(Step::Nothing)).collect();
    let leaving: Vec<bool> = steps.iter().map(|step| *step == Step::Detach).collect();
    for (at, place) in places.iter().enumerate().filter(|(_, place)| !place.pods.is_empty()) {
        let others = || places.iter().enumerate().filter(|(other, _)| *other != at);
        let held: Vec<&OnNode> =
            others().filter(|(at, place)| !leaving[*at] && is_attached(place)).map(|(_, place)| place).collect();
        let moving = others().any(|(at, place)| place.attachment.is_some() || steps[at] == Step::Attach);
        steps[at] = match &place.attachment {
            None if place.reported => Step::Unreport,
            None if !shared && !held.is_empty() => Step::Refuse(refusals(volume, place, &held)),
            // The driver works on it elsewhere.
            None if !shared && moving => Step::Nothing,
            None => Step::Attach,
            Some(attachment) => attached(handle, place, attachment),
        };
    }
    steps
}

/// What to do about a node where no pod wants the volume; nothing where one does.
fn detach(place: &OnNode) -> Option<Step> {
    if !place.pods.is_empty() {
        return None;
    }
    let Some(attachment) = &place.attachment else {
        return Some(if place.reported { Step::Unreport } else { Step::Nothing });
    };
    if is_leaving(attachment) {
        return Some(if place.reported { Step::Unreport } else { Step::Nothing });
    }
    let left = MAX_WAIT_FOR_UNMOUNT.saturating_sub(place.unwanted);
    Some(match place.care {
        _ if !place.in_use => Step::Detach,
        Care::None => Step::Detach,
        Care::ForAWhile if left.is_zero() => Step::Detach,
        // When the time is over, it is looked whether the node is well.
        _ if !left.is_zero() => Step::Wait(left),
        _ => Step::Nothing,
    })
}

/// What to do about a node where a pod wants the volume, and the driver was asked.
fn attached(handle: &Handle, place: &OnNode, attachment: &VolumeAttachment) -> Step {
    if is_leaving(attachment) {
        return if place.reported {
            Step::Unreport
        } else {
            Step::Failed("volume attachment is being deleted".to_owned(), None)
        };
    }
    match &attachment.status {
        Some(status) if status.attached => {
            if place.reported {
                Step::Nothing
            } else {
                Step::Report
            }
        }
        _ if place.reported => Step::Unreport,
        Some(status) if status.attach_error.is_some() => {
            let error = status.attach_error.as_ref().and_then(|error| error.message.clone());
            Step::Failed(error.unwrap_or_default(), None)
        }
        _ => late(handle, place.age),
    }
}

/// Nothing is heard of the driver's attacher: pods are told every time that it could have been done in.
fn late(handle: &Handle, age: Duration) -> Step {
    let over = Duration::from_secs(age.as_secs() % ATTACH_TIMEOUT.as_secs());
    let next = ATTACH_TIMEOUT - over;
    if age < ATTACH_TIMEOUT {
        return Step::Wait(next);
    }
    let Handle { driver, volume } = handle;
    let words = format!("timed out waiting for external-attacher of {driver} CSI driver to attach volume {volume}");
    Step::Failed(words, Some(next))
}

/// What each pod is told: the names of the pods that have the volume, as far as they are of its own namespace.
fn refusals(volume: &str, place: &OnNode, held: &[&OnNode]) -> Vec<String> {
    let users: Vec<&Arc<Pod>> = held.iter().flat_map(|place| &place.pods).collect();
    let told = |pod: &Arc<Pod>| {
        let near = users.iter().filter(|user| user.namespace() == pod.namespace());
        let near: Vec<&str> = near.map(|user| user.name()).collect();
        let far = users.len() - near.len();
        let who = match (near.as_slice(), far) {
            ([], 0) => "Volume is already exclusively attached to one node and can't be attached to another".to_owned(),
            ([], far) => format!("Volume is already used by {far} pod(s) in different namespaces"),
            (near, 0) => format!("Volume is already used by pod(s) {}", near.join(", ")),
            (near, far) => {
                format!("Volume is already used by pod(s) {} and {far} pod(s) in different namespaces", near.join(", "))
            }
        };
        format!("Multi-Attach error for volume \"{volume}\" {who}")
    };
    place.pods.iter().map(told).collect()
}

//! Which change of the cluster could help which pod: upstream's queueing hints.
//!
//! A pod that fits nowhere is tried again only when one of the plugins that refused it says that it might pass now.

use crate::affinity::node_matches;
use crate::dra::{is_extended, may_want, names};
use crate::filter::{Plugin, Plugins, insufficient, named, tolerated, unschedulable};
use crate::pod::PodInfo;
use crate::profile::default_profile;
use crate::room::Room;
use crate::snapshot::NodeInfo;
use crate::volumes::disks_conflict;
use pintle_types::ObjectKey;
use std::sync::Arc;

/// A change that could help a pod.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// With the node alone, as if nothing ran there.
    NodeAdded(Box<NodeInfo>),
    /// With the node before and after, each alone.
    NodeChanged(Box<[NodeInfo; 2]>),
    NodeGone,
    /// A pod that runs, or will, came, went, or has other labels or requests now.
    PodAdded,
    /// With the room on its node after, when that is known.
    PodGone(Arc<PodInfo>, Option<Arc<Room>>),
    PodChanged,
    /// Labels of a namespace changed.
    NamespaceChanged,
    /// A claim came or changed.
    ClaimChanged(ObjectKey),
    /// A volume or a class came or changed.
    StorageChanged,
    /// A claim to devices came or changed, or let devices go.
    DeviceClaimChanged {
        claim: ObjectKey,
        freed: bool,
    },
    /// A class or a slice of devices came or changed.
    DevicesChanged,
}

impl Event {
    /// Pods to which the event is another thing than to others.
    pub(crate) fn promised_to(&self) -> impl Iterator<Item = &ObjectKey> {
        let room = match self {
            Self::PodGone(_, room) => room.as_deref(),
            _ => None,
        };
        room.into_iter().flat_map(Room::promised_to)
    }

    /// As metrics call it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::NodeAdded(_) => "NodeAdd",
            Self::NodeChanged(_) => "NodeUpdate",
            Self::NodeGone => "NodeDelete",
            Self::PodAdded => "AssignedPodAdd",
            Self::PodGone(..) => "AssignedPodDelete",
            Self::PodChanged => "AssignedPodUpdate",
            Self::NamespaceChanged => "NamespaceUpdate",
            Self::ClaimChanged(_) => "PersistentVolumeClaimUpdate",
            Self::StorageChanged => "PersistentVolumeUpdate",
            Self::DeviceClaimChanged { .. } => "ResourceClaimUpdate",
            Self::DevicesChanged => "ResourceSliceUpdate",
        }
    }
}

/// Whether the plugin asks about changes of that sort at all, whatever the pod.
pub(crate) fn asks(plugin: Plugin, event: &Event) -> bool {
    match event {
        Event::NodeAdded(_) | Event::NodeChanged(_) | Event::PodGone(..) | Event::ClaimChanged(_) => true,
        _ if plugin == Plugin::Extender => true,
        Event::NodeGone => plugin == Plugin::PodTopologySpread,
        Event::NamespaceChanged => plugin == Plugin::InterPodAffinity,
        Event::PodAdded => matches!(plugin, Plugin::PodTopologySpread | Plugin::InterPodAffinity),
        Event::PodChanged => {
            matches!(plugin, Plugin::NodeResourcesFit | Plugin::PodTopologySpread | Plugin::InterPodAffinity)
        }
        Event::DeviceClaimChanged { .. } => plugin == Plugin::DynamicResources,
        Event::DevicesChanged => matches!(plugin, Plugin::DynamicResources | Plugin::NodeResourcesFit),
        Event::StorageChanged => {
            matches!(plugin, Plugin::VolumeBinding | Plugin::VolumeZone | Plugin::NodeVolumeLimits)
        }
    }
}

/// Whether any of those who refused the pod could think otherwise after the event. Refused by nobody: no node was
/// there, and any node helps.
pub(crate) fn helps(event: &Event, refused_by: Plugins, pod: &PodInfo) -> bool {
    if refused_by == Plugins::default() {
        return matches!(event, Event::NodeAdded(_));
    }
    Plugin::ALL.into_iter().filter(|plugin| refused_by.contains(*plugin)).any(|plugin| may_pass(plugin, event, pod))
}

fn may_pass(plugin: Plugin, event: &Event, pod: &PodInfo) -> bool {
    // Nobody knows what a server looks at.
    if plugin == Plugin::Extender || !asks(plugin, event) {
        return plugin == Plugin::Extender;
    }
    match event {
        Event::NodeAdded(node) => passes(plugin, pod, node),
        Event::NodeChanged(both) => changed(plugin, &both[0], &both[1]) && passes(plugin, pod, &both[1]),
        Event::PodGone(gone, room) => match plugin {
            Plugin::NodeResourcesFit => room.as_ref().is_none_or(|room| room.may_take(pod)),
            // Constraints count pods of the same namespace.
            Plugin::PodTopologySpread => gone.key.namespace == pod.key.namespace,
            Plugin::InterPodAffinity => gone.terms.is_some() || pod.terms.is_some(),
            Plugin::NodeVolumeLimits => !gone.claims.is_empty(),
            Plugin::VolumeRestrictions => {
                pod.claim_keys().any(|claim| gone.claim_keys().any(|other| other == claim)) || disks_conflict(pod, gone)
            }
            Plugin::NodePorts => pod.ports.iter().any(|port| gone.ports.iter().any(|other| other.conflicts(port))),
            _ => false,
        },
        Event::ClaimChanged(claim) => {
            matches!(
                plugin,
                Plugin::VolumeRestrictions | Plugin::VolumeBinding | Plugin::VolumeZone | Plugin::NodeVolumeLimits
            ) && pod.claim_keys().any(|key| key == *claim)
        }
        Event::DeviceClaimChanged { claim, freed } => {
            let own = |(name, _): &(&str, bool)| *name == claim.name && pod.key.namespace == claim.namespace;
            *freed || names(pod).is_ok_and(|names| names.iter().any(own))
        }
        // A class may say by now that a resource is devices.
        Event::DevicesChanged => plugin == Plugin::DynamicResources || may_want(pod),
        Event::NodeGone | Event::NamespaceChanged | Event::PodAdded | Event::PodChanged | Event::StorageChanged => true,
    }
}

/// Whether a plugin looks at what changed of the node.
fn changed(plugin: Plugin, old: &NodeInfo, new: &NodeInfo) -> bool {
    let spec = |n: &NodeInfo| n.node.as_ref().and_then(|n| n.spec.clone()).map(|s| (s.unschedulable, s.taints));
    let labels = |n: &NodeInfo| n.node.as_ref().and_then(|n| n.metadata.labels.clone());
    match plugin {
        Plugin::Extender => true,
        Plugin::NodeUnschedulable | Plugin::TaintToleration => spec(old) != spec(new),
        Plugin::NodeName | Plugin::NodePorts | Plugin::VolumeRestrictions | Plugin::NodeVolumeLimits => false,
        Plugin::NodeAffinity
        | Plugin::InterPodAffinity
        | Plugin::VolumeBinding
        | Plugin::VolumeZone
        | Plugin::DynamicResources => labels(old) != labels(new),
        Plugin::NodeResourcesFit => old.allocatable != new.allocatable,
        Plugin::PodTopologySpread => labels(old) != labels(new) || spec(old) != spec(new),
    }
}

/// Whether the plugin has nothing against the node while it is empty.
fn passes(plugin: Plugin, pod: &PodInfo, node: &NodeInfo) -> bool {
    match plugin {
        Plugin::NodeUnschedulable => !unschedulable(pod, node),
        Plugin::NodeName => named(pod, node),
        Plugin::TaintToleration => tolerated(pod, node),
        Plugin::NodeAffinity => node_matches(pod, node),
        Plugin::NodeResourcesFit => insufficient(pod, node, &default_profile(), &is_extended).is_none(),
        Plugin::NodePorts
        | Plugin::PodTopologySpread
        | Plugin::InterPodAffinity
        | Plugin::VolumeRestrictions
        | Plugin::VolumeBinding
        | Plugin::VolumeZone
        | Plugin::NodeVolumeLimits
        | Plugin::DynamicResources
        | Plugin::Extender => true,
    }
}

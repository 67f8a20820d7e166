//! Whether a node will do for a pod: upstream's filter plugins, in upstream's order and words.

use crate::affinity::node_matches;
use crate::counts::Counts;
use crate::dra::Claims;
use crate::limits;
use crate::pod::PodInfo;
use crate::profile::Profile;
use crate::snapshot::{Namespaces, NodeInfo, Snapshot};
use crate::volumes::{self, Rejection, Volumes};
use pintle_types::k8s::api::core::v1::{Taint, Toleration};
use std::sync::Arc;

/// What is worked out once for a pod before any node is looked at.
#[derive(Clone)]
pub(crate) struct Prepared {
    pub(crate) profile: Arc<Profile>,
    /// Shared with what is kept for the pod's kind, until it is changed to try something.
    pub(crate) counts: Option<Arc<Counts>>,
    /// Most pods have no claims.
    volumes: Option<Box<Volumes>>,
    /// Of devices.
    pub(crate) claims: Option<Box<Claims>>,
}

impl Prepared {
    /// Fails when no node at all will do.
    pub(crate) fn new(pod: &PodInfo, profile: &Arc<Profile>, snapshot: &Snapshot) -> Result<Self, Rejection> {
        let volumes =
            if profile.filters_by(Plugin::VolumeBinding) { Volumes::new(pod, snapshot.storage())? } else { None };
        let volumes = volumes.map(Box::new);
        let reject = |message| Rejection { plugin: Plugin::DynamicResources, message };
        let claims = match profile.filters_by(Plugin::DynamicResources) {
            true => Claims::new(pod, snapshot.devices()).map_err(reject)?.map(Box::new),
            false => None,
        };
        Ok(Self { profile: Arc::clone(profile), counts: snapshot.counts(pod, profile), volumes, claims })
    }

    /// As if a pod came to the node (`by` is 1) or left it (-1).
    pub(crate) fn count(&mut self, pod: &PodInfo, node: &NodeInfo, running: &PodInfo, by: i64, names: &Namespaces) {
        if let Some(counts) = &mut self.counts {
            Arc::make_mut(counts).count(pod, &self.profile, node, running, by, names);
        }
        self.volumes.iter_mut().for_each(|volumes| volumes.count(running, by));
    }
}

/// Those who refuse nodes, as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
pub(crate) enum Plugin {
    NodeUnschedulable = 1,
    NodeName = 1 << 1,
    TaintToleration = 1 << 2,
    NodeAffinity = 1 << 3,
    NodePorts = 1 << 4,
    NodeResourcesFit = 1 << 5,
    PodTopologySpread = 1 << 6,
    InterPodAffinity = 1 << 7,
    VolumeRestrictions = 1 << 8,
    VolumeBinding = 1 << 9,
    VolumeZone = 1 << 10,
    NodeVolumeLimits = 1 << 11,
    /// A server that was asked.
    Extender = 1 << 12,
    DynamicResources = 1 << 13,
}

impl Plugin {
    /// All of them, in upstream's order.
    pub(crate) const ALL: [Self; 14] = [
        Self::NodeUnschedulable,
        Self::NodeName,
        Self::TaintToleration,
        Self::NodeAffinity,
        Self::NodePorts,
        Self::NodeResourcesFit,
        Self::VolumeRestrictions,
        Self::NodeVolumeLimits,
        Self::VolumeBinding,
        Self::VolumeZone,
        Self::PodTopologySpread,
        Self::InterPodAffinity,
        Self::DynamicResources,
        Self::Extender,
    ];

    /// The name that configurations and metrics use.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::NodeUnschedulable => "NodeUnschedulable",
            Self::NodeName => "NodeName",
            Self::TaintToleration => "TaintToleration",
            Self::NodeAffinity => "NodeAffinity",
            Self::NodePorts => "NodePorts",
            Self::NodeResourcesFit => "NodeResourcesFit",
            Self::VolumeRestrictions => "VolumeRestrictions",
            Self::NodeVolumeLimits => "NodeVolumeLimits",
            Self::VolumeBinding => "VolumeBinding",
            Self::VolumeZone => "VolumeZone",
            Self::PodTopologySpread => "PodTopologySpread",
            Self::InterPodAffinity => "InterPodAffinity",
            Self::Extender => "Extender",
            Self::DynamicResources => "DynamicResources",
        }
    }
}

/// A set of plugins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plugins(u16);

impl Plugins {
    pub(crate) const fn all() -> Self {
        Self((1 << 14) - 1)
    }

    pub(crate) fn insert(&mut self, plugin: Plugin) {
        self.0 |= plugin as u16;
    }

    pub(crate) fn contains(self, plugin: Plugin) -> bool {
        self.0 & plugin as u16 != 0
    }
}

/// What a node lacks, without a word written yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lack {
    Rule(&'static str),
    /// Bits: pods, CPU, memory, disk, then the pod's other resources in their order.
    Resources(u64),
    /// Bits of what VolumeBinding found.
    Volumes(u8),
}

/// Why a node will not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) plugin: Plugin,
    pub(crate) lack: Lack,
    /// Whether it could help that pods leave the node.
    pub(crate) resolvable: bool,
}

impl Refusal {
    const fn rule(plugin: Plugin, text: &'static str) -> Option<Self> {
        Some(Self { plugin, lack: Lack::Rule(text), resolvable: false })
    }

    /// Upstream's words, each reason for itself.
    pub(crate) fn reasons(&self, pod: &PodInfo) -> Vec<String> {
        let bits = match self.lack {
            Lack::Rule(text) => return vec![text.to_owned()],
            Lack::Volumes(bits) => return volumes::words(bits).map(str::to_owned).collect(),
            Lack::Resources(bits) => bits,
        };
        let fixed = ["Too many pods", "Insufficient cpu", "Insufficient memory", "Insufficient ephemeral-storage"];
        let others = pod.requests.others.iter().map(|(name, _)| format!("Insufficient {name}"));
        let all = fixed.into_iter().map(str::to_owned).chain(others);
        all.enumerate().filter(|(i, _)| *i < 64 && bits & (1 << i) != 0).map(|(_, text)| text).collect()
    }
}

/// Why the node will not do: what the first plugin that refuses it says. Nothing when it will do.
pub(crate) fn misfit(pod: &PodInfo, node: &NodeInfo, prepared: &Prepared, snapshot: &Snapshot) -> Option<Refusal> {
    let profile = &*prepared.profile;
    if let Some(refusal) = unfit_node(pod, node, profile) {
        return Some(refusal);
    }
    let asks = |plugin| profile.filters_by(plugin);
    if !pod.ports.is_empty() && asks(Plugin::NodePorts) {
        let taken = |port| node.pods.values().any(|p| p.ports.iter().any(|other| other.conflicts(port)));
        if pod.ports.iter().any(taken) {
            let lack = Lack::Rule("node(s) didn't have free ports for the requested pod ports");
            return Some(Refusal { plugin: Plugin::NodePorts, lack, resolvable: true });
        }
    }
    if asks(Plugin::NodeResourcesFit)
        && let Some(refusal) = insufficient(pod, node, profile)
    {
        return Some(refusal);
    }
    if let Some(refusal) = unfit_volumes(pod, node, prepared, snapshot) {
        return Some(refusal);
    }
    let company = prepared.counts.as_ref().and_then(|counts| unfit_company(pod, node, profile, counts));
    company.or_else(|| {
        let words = prepared.claims.as_ref()?.misfit(node, snapshot.devices())?;
        Refusal::rule(Plugin::DynamicResources, words)
    })
}

/// What pods on the node and around it have against the pod, and it against them.
fn unfit_company(pod: &PodInfo, node: &NodeInfo, profile: &Profile, counts: &Counts) -> Option<Refusal> {
    let asks = |plugin| profile.filters_by(plugin);
    let rule = |plugin, (text, resolvable)| Refusal { plugin, lack: Lack::Rule(text), resolvable };
    let crowded = || counts.spread.misfit(pod, node).map(|reason| rule(Plugin::PodTopologySpread, reason));
    let unwanted = || counts.affinity.misfit(node).map(|reason| rule(Plugin::InterPodAffinity, reason));
    let crowded = asks(Plugin::PodTopologySpread).then(crowded).flatten();
    crowded.or_else(|| asks(Plugin::InterPodAffinity).then(unwanted).flatten())
}

/// What the node itself is and says, whatever runs there.
fn unfit_node(pod: &PodInfo, node: &NodeInfo, profile: &Profile) -> Option<Refusal> {
    let asks = |plugin| profile.filters_by(plugin);
    if asks(Plugin::NodeUnschedulable) && unschedulable(pod, node) {
        return Refusal::rule(Plugin::NodeUnschedulable, "node(s) were unschedulable");
    }
    if asks(Plugin::NodeName) && !named(pod, node) {
        return Refusal::rule(Plugin::NodeName, "node(s) didn't match the requested node name");
    }
    if asks(Plugin::TaintToleration) && !tolerated(pod, node) {
        return Refusal::rule(Plugin::TaintToleration, "node(s) had untolerated taint(s)");
    }
    if asks(Plugin::NodeAffinity) {
        if profile.added_affinity.as_ref().is_some_and(|added| !added.admit(node)) {
            let text = "node(s) didn't match scheduler-enforced node affinity";
            return Refusal::rule(Plugin::NodeAffinity, text);
        }
        if !node_matches(pod, node) {
            return Refusal::rule(Plugin::NodeAffinity, "node(s) didn't match Pod's node affinity/selector");
        }
    }
    None
}

fn unfit_volumes(pod: &PodInfo, node: &NodeInfo, prepared: &Prepared, snapshot: &Snapshot) -> Option<Refusal> {
    let asks = |plugin| prepared.profile.filters_by(plugin);
    let refuse = |plugin, text, resolvable| Some(Refusal { plugin, lack: Lack::Rule(text), resolvable });
    if asks(Plugin::VolumeRestrictions) && volumes::disk_is_taken(pod, node) {
        return refuse(Plugin::VolumeRestrictions, "node(s) had no available disk", true);
    }
    let volumes = prepared.volumes.as_ref()?;
    if asks(Plugin::VolumeRestrictions) && volumes.is_taken() {
        let text = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";
        return refuse(Plugin::VolumeRestrictions, text, true);
    }
    if asks(Plugin::NodeVolumeLimits) && limits::exceeded(pod, node, snapshot.storage()) {
        return refuse(Plugin::NodeVolumeLimits, "node(s) exceed max volume count", true);
    }
    if asks(Plugin::VolumeBinding)
        && let Err(bits) = volumes.place(node)
    {
        return Some(Refusal { plugin: Plugin::VolumeBinding, lack: Lack::Volumes(bits), resolvable: false });
    }
    if asks(Plugin::VolumeZone) && !volumes.is_in_zone(node) {
        return Refusal::rule(Plugin::VolumeZone, "node(s) had no available volume zone");
    }
    None
}

/// As [`misfit`], with the pods of no lower priority that were promised room on the node. It must do without them
/// too: a promise may be broken, and what the pod wants the company of may not come.
pub(crate) fn misfit_with_nominated(
    pod: &PodInfo,
    node: &NodeInfo,
    prepared: &Prepared,
    snapshot: &Snapshot,
) -> Option<Refusal> {
    let counts = |other: &&Arc<PodInfo>| other.priority >= pod.priority && other.key != pod.key;
    let promised = if snapshot.has_nominated() { snapshot.nominated_on(&node.name) } else { &[] };
    if promised.iter().any(|other| counts(&other)) {
        let (mut fuller, mut with) = (node.clone(), prepared.clone());
        for other in promised.iter().filter(counts) {
            with.count(pod, node, other, 1, snapshot.namespaces());
            fuller.add(other.clone());
        }
        if let Some(refusal) = misfit(pod, &fuller, &with, snapshot) {
            return Some(refusal);
        }
    }
    misfit(pod, node, prepared, snapshot)
}

pub(crate) fn named(pod: &PodInfo, node: &NodeInfo) -> bool {
    let wanted = pod.spec().node_name.as_deref().unwrap_or_default();
    wanted.is_empty() || wanted == node.name
}

pub(crate) fn unschedulable(pod: &PodInfo, node: &NodeInfo) -> bool {
    let marked = node.node.as_ref().and_then(|n| n.spec.as_ref()).and_then(|s| s.unschedulable) == Some(true);
    if !marked {
        return false;
    }
    let taint =
        Taint { key: "node.kubernetes.io/unschedulable".into(), effect: "NoSchedule".into(), ..Taint::default() };
    !tolerates_any(pod, &taint)
}

/// Whether the pod tolerates the node's taints that keep pods away.
pub(crate) fn tolerated(pod: &PodInfo, node: &NodeInfo) -> bool {
    taints(node).iter().filter(|t| t.effect != "PreferNoSchedule").all(|taint| tolerates_any(pod, taint))
}

/// How many of the node's taints would rather keep the pod away.
pub(crate) fn unwelcome(pod: &PodInfo, node: &NodeInfo) -> i64 {
    taints(node).iter().filter(|t| t.effect == "PreferNoSchedule" && !tolerates_any(pod, t)).count() as i64
}

fn taints(node: &NodeInfo) -> &[Taint] {
    let spec = node.node.as_ref().and_then(|n| n.spec.as_ref());
    spec.and_then(|s| s.taints.as_deref()).unwrap_or_default()
}

fn tolerates_any(pod: &PodInfo, taint: &Taint) -> bool {
    pod.spec().tolerations.iter().flatten().any(|toleration| tolerates(toleration, taint))
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let number = |text: Option<&str>| text.unwrap_or_default().parse::<i64>().ok();
    let (effect, key) = (toleration.effect.as_deref().unwrap_or(""), toleration.key.as_deref().unwrap_or(""));
    if !(effect.is_empty() || effect == taint.effect) || !(key.is_empty() || key == taint.key) {
        return false;
    }
    let (own, other) = (toleration.value.as_deref(), taint.value.as_deref());
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => true,
        "" | "Equal" => own.unwrap_or_default() == other.unwrap_or_default() && !key.is_empty(),
        "Lt" => number(other).zip(number(own)).is_some_and(|(taint, bound)| taint < bound),
        "Gt" => number(other).zip(number(own)).is_some_and(|(taint, bound)| taint > bound),
        _ => false,
    }
}

/// What the node has too little of. What is beyond the whole node, no leaving pod can give.
pub(crate) fn insufficient(pod: &PodInfo, node: &NodeInfo, profile: &Profile) -> Option<Refusal> {
    let (need, used, have) = (&pod.requests, &node.requested, &node.allocatable);
    let (mut bits, mut resolvable) = (u64::from(used.pods + 1 > have.pods), true);
    let mut check = |bit: usize, need: i64, used: i64, have: i64| {
        if need > 0 && need > have - used {
            bits |= 1 << bit.min(63);
            resolvable &= need <= have;
        }
    };
    check(1, need.milli_cpu, used.milli_cpu, have.milli_cpu);
    check(2, need.memory, used.memory, have.memory);
    check(3, need.ephemeral_storage, used.ephemeral_storage, have.ephemeral_storage);
    for (i, (name, amount)) in need.others.iter().enumerate().filter(|(_, (name, _))| !profile.ignores(name)) {
        check(4 + i, *amount, used.other(name), have.other(name));
    }
    (bits != 0).then_some(Refusal { plugin: Plugin::NodeResourcesFit, lack: Lack::Resources(bits), resolvable })
}

//! Whether a node will do for a pod: upstream's filter plugins, in upstream's order and words.

use crate::affinity::node_matches;
use crate::counts::Counts;
use crate::dra::Claims;
use crate::limits;
use crate::pod::PodInfo;
use crate::profile::Profile;
use crate::snapshot::{Namespaces, NodeInfo, Snapshot};
use crate::timings::Timings;
use crate::volumes::{self, Rejection, Volumes};
use pintle_types::k8s::api::core::v1::{Taint, Toleration};
use std::sync::Arc;
use std::time::Instant;

/// What is worked out once for a pod before any node is looked at.
#[derive(Clone)]
pub(crate) struct Prepared {
    pub(crate) profile: Arc<Profile>,
    /// Those who filter, and could have anything against a node.
    asked: Plugins,
    /// Shared with what is kept for the pod's kind, until it is changed to try something.
    pub(crate) counts: Option<Arc<Counts>>,
    /// Most pods have no claims.
    volumes: Option<Box<Volumes>>,
    /// Of devices.
    pub(crate) claims: Option<Box<Claims>>,
    /// Where it is told how long plugins take, if this attempt is measured.
    pub(crate) timings: Option<Arc<Timings>>,
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
        let (profile, counts) = (Arc::clone(profile), snapshot.counts(pod, profile));
        let mut prepared = Self { profile, asked: Plugins::default(), counts, volumes, claims, timings: None };
        let has_a_say = |plugin: &Plugin| prepared.profile.filters_by(*plugin) && prepared.concerns(*plugin, pod);
        let asked: Vec<Plugin> = Plugin::ALL.into_iter().filter(has_a_say).collect();
        asked.into_iter().for_each(|plugin| prepared.asked.insert(plugin));
        Ok(prepared)
    }

    /// Whether the plugin could have anything against any node; upstream's PreFilter skips the others.
    fn concerns(&self, plugin: Plugin, pod: &PodInfo) -> bool {
        let spec = pod.spec();
        match plugin {
            Plugin::NodeUnschedulable | Plugin::NodeName | Plugin::TaintToleration | Plugin::NodeResourcesFit => true,
            Plugin::NodeAffinity => {
                let selects = spec.node_selector.as_ref().is_some_and(|selector| !selector.is_empty());
                selects || pod.rules.is_some() || self.profile.added_affinity.is_some()
            }
            Plugin::NodePorts => !pod.ports.is_empty(),
            Plugin::VolumeRestrictions => self.volumes.is_some() || volumes::has_disks(pod),
            Plugin::NodeVolumeLimits | Plugin::VolumeBinding | Plugin::VolumeZone => self.volumes.is_some(),
            Plugin::PodTopologySpread => self.counts.as_ref().is_some_and(|counts| counts.spread.counts_nodes()),
            Plugin::InterPodAffinity => self.counts.as_ref().is_some_and(|counts| counts.affinity.may_refuse()),
            Plugin::DynamicResources => self.claims.is_some(),
            Plugin::Extender => false,
        }
    }

    /// Whether all who are asked look at nothing but the pod, the node and the pods that run there, or are to.
    pub(crate) fn is_local(&self, snapshot: &Snapshot) -> bool {
        const LOCAL: [Plugin; 6] = [
            Plugin::NodeUnschedulable,
            Plugin::NodeName,
            Plugin::TaintToleration,
            Plugin::NodeAffinity,
            Plugin::NodePorts,
            Plugin::NodeResourcesFit,
        ];
        let mut others = Plugin::ALL.into_iter().filter(|plugin| !LOCAL.contains(plugin));
        !others.any(|plugin| self.asked.contains(plugin)) && !snapshot.promised_ask_for_varying()
    }

    /// As if a pod that runs left the node (`by` is -1), or came back (1). Whoever has nothing against any node with it
    /// there has nothing without.
    pub(crate) fn count_running(
        &mut self,
        pod: &PodInfo,
        node: &NodeInfo,
        running: &PodInfo,
        by: i64,
        names: &Namespaces,
    ) {
        if [Plugin::PodTopologySpread, Plugin::InterPodAffinity].iter().any(|plugin| self.asked.contains(*plugin)) {
            self.count(pod, node, running, by, names);
        } else {
            self.volumes.iter_mut().for_each(|volumes| volumes.count(running, by));
        }
    }

    /// As if a pod came to the node (`by` is 1) or left it (-1).
    pub(crate) fn count(&mut self, pod: &PodInfo, node: &NodeInfo, running: &PodInfo, by: i64, names: &Namespaces) {
        if let Some(counts) = &mut self.counts {
            Arc::make_mut(counts).count(pod, &self.profile, node, running, by, names);
            // Whom the pod must not meet may be among those who come.
            if self.profile.filters_by(Plugin::InterPodAffinity) {
                self.asked.insert(Plugin::InterPodAffinity);
            }
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
    for plugin in Plugin::ALL.into_iter().filter(|plugin| prepared.asked.contains(*plugin)) {
        let began = prepared.timings.as_ref().map(|timings| (timings, Instant::now()));
        let refusal = refuse(plugin, pod, node, prepared, snapshot);
        if let Some((timings, since)) = began {
            timings.filtered(plugin, refusal.as_ref(), since);
        }
        if refusal.is_some() {
            return refusal;
        }
    }
    None
}

/// What one plugin has against the node.
fn refuse(plugin: Plugin, pod: &PodInfo, node: &NodeInfo, prepared: &Prepared, snapshot: &Snapshot) -> Option<Refusal> {
    let rule = |no: bool, text| if no { Refusal::rule(plugin, text) } else { None };
    let told = |(text, resolvable)| Refusal { plugin, lack: Lack::Rule(text), resolvable };
    match plugin {
        Plugin::NodeUnschedulable => rule(unschedulable(pod, node), "node(s) were unschedulable"),
        Plugin::NodeName => rule(!named(pod, node), "node(s) didn't match the requested node name"),
        Plugin::TaintToleration => rule(!tolerated(pod, node), "node(s) had untolerated taint(s)"),
        Plugin::NodeAffinity => unfit_by_affinity(pod, node, &prepared.profile),
        Plugin::NodePorts => {
            let taken = |port| node.pods.values().any(|p| p.ports.iter().any(|other| other.conflicts(port)));
            let text = "node(s) didn't have free ports for the requested pod ports";
            pod.ports.iter().any(taken).then(|| told((text, true)))
        }
        Plugin::NodeResourcesFit => {
            // What the node does not count, it may have as devices.
            let asks = prepared.profile.filters_by(Plugin::DynamicResources);
            insufficient(pod, node, &prepared.profile, &|name| asks && snapshot.devices().class_of(name).is_some())
        }
        Plugin::VolumeRestrictions if volumes::disk_is_taken(pod, node) => {
            Some(told(("node(s) had no available disk", true)))
        }
        Plugin::VolumeRestrictions => {
            let text = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";
            prepared.volumes.as_ref()?.is_taken().then(|| told((text, true)))
        }
        Plugin::NodeVolumeLimits => {
            let exceeded = limits::exceeded(pod, node, snapshot.storage());
            exceeded.then(|| told(("node(s) exceed max volume count", true)))
        }
        Plugin::VolumeBinding => {
            let bits = prepared.volumes.as_ref()?.place(node).err()?;
            Some(Refusal { plugin, lack: Lack::Volumes(bits), resolvable: false })
        }
        Plugin::VolumeZone => {
            rule(!prepared.volumes.as_ref()?.is_in_zone(node), "node(s) had no available volume zone")
        }
        Plugin::PodTopologySpread => prepared.counts.as_ref()?.spread.misfit(pod, node).map(told),
        Plugin::InterPodAffinity => prepared.counts.as_ref()?.affinity.misfit(node).map(told),
        Plugin::DynamicResources => Refusal::rule(plugin, prepared.claims.as_ref()?.misfit(node, snapshot.devices())?),
        // Servers are asked about all nodes at once.
        Plugin::Extender => None,
    }
}

fn unfit_by_affinity(pod: &PodInfo, node: &NodeInfo, profile: &Profile) -> Option<Refusal> {
    if profile.added_affinity.as_ref().is_some_and(|added| !added.admit(node)) {
        let text = "node(s) didn't match scheduler-enforced node affinity";
        return Refusal::rule(Plugin::NodeAffinity, text);
    }
    if !node_matches(pod, node) {
        return Refusal::rule(Plugin::NodeAffinity, "node(s) didn't match Pod's node affinity/selector");
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
    if !node.marks.unschedulable {
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
    if !node.marks.tainted {
        return &[];
    }
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

/// What the node has too little of. What is beyond the whole node, no leaving pod can give. Resources of which the node
/// has none are left to others when they `may_be_devices`.
pub(crate) fn insufficient(
    pod: &PodInfo,
    node: &NodeInfo,
    profile: &Profile,
    may_be_devices: &dyn Fn(&str) -> bool,
) -> Option<Refusal> {
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
        if have.other(name) != 0 || !may_be_devices(name) {
            check(4 + i, *amount, used.other(name), have.other(name));
        }
    }
    (bits != 0).then_some(Refusal { plugin: Plugin::NodeResourcesFit, lack: Lack::Resources(bits), resolvable })
}

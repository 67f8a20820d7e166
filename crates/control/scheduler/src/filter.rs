//! Whether a node will do for a pod: upstream's filter plugins, in upstream's order and words.

use crate::affinity::{PodAffinity, node_matches};
use crate::pod::PodInfo;
use crate::snapshot::NodeInfo;
use crate::spread::Spread;
use pintle_types::k8s::api::core::v1::{Taint, Toleration};
use std::borrow::Cow;

/// What is worked out once for a pod before any node is looked at.
pub(crate) struct Prepared {
    pub(crate) affinity: PodAffinity,
    pub(crate) spread: Spread,
}

pub(crate) type Reason = Cow<'static, str>;

/// Why the node will not do: all reasons of the first plugin that refuses it. Empty when it will do.
pub(crate) fn misfit(pod: &PodInfo, node: &NodeInfo, prepared: &Prepared) -> Vec<Reason> {
    let one = |reason: &'static str| vec![Cow::Borrowed(reason)];
    let wanted = pod.spec().node_name.as_deref().unwrap_or_default();
    if !wanted.is_empty() && wanted != node.name {
        return one("node(s) didn't match the requested node name");
    }
    if unschedulable(pod, node) {
        return one("node(s) were unschedulable");
    }
    if !tolerated(pod, node) {
        return one("node(s) had untolerated taint(s)");
    }
    if !node_matches(pod, node) {
        return one("node(s) didn't match Pod's node affinity/selector");
    }
    let taken = |port| node.pods.values().any(|p| p.ports.iter().any(|other| other.conflicts(port)));
    if pod.ports.iter().any(taken) {
        return one("node(s) didn't have free ports for the requested pod ports");
    }
    let short = insufficient(pod, node);
    if !short.is_empty() {
        return short;
    }
    if let Some(reason) = prepared.spread.misfit(node) {
        return one(reason);
    }
    prepared.affinity.misfit(node).map(one).unwrap_or_default()
}

fn unschedulable(pod: &PodInfo, node: &NodeInfo) -> bool {
    let marked = node.node.as_ref().and_then(|n| n.spec.as_ref()).and_then(|s| s.unschedulable) == Some(true);
    let taint =
        Taint { key: "node.kubernetes.io/unschedulable".into(), effect: "NoSchedule".into(), ..Taint::default() };
    marked && !tolerates_any(pod, &taint)
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
    let set = |text: &Option<String>| text.as_deref().filter(|t| !t.is_empty()).map(str::to_owned);
    let number = |text: Option<&str>| text.unwrap_or_default().parse::<i64>().ok();
    if set(&toleration.effect).is_some_and(|effect| effect != taint.effect)
        || set(&toleration.key).is_some_and(|key| key != taint.key)
    {
        return false;
    }
    let (own, other) = (toleration.value.as_deref(), taint.value.as_deref());
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => true,
        "" | "Equal" => own.unwrap_or_default() == other.unwrap_or_default() && set(&toleration.key).is_some(),
        "Lt" => number(other).zip(number(own)).is_some_and(|(taint, bound)| taint < bound),
        "Gt" => number(other).zip(number(own)).is_some_and(|(taint, bound)| taint > bound),
        _ => false,
    }
}

/// The resources that the node has too little of.
fn insufficient(pod: &PodInfo, node: &NodeInfo) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let (need, used, have) = (&pod.requests, &node.requested, &node.allocatable);
    if used.pods + 1 > have.pods {
        reasons.push(Cow::Borrowed("Too many pods"));
    }
    let mut check = |need: i64, used: i64, have: i64, reason: Reason| {
        if need > 0 && need > have - used {
            reasons.push(reason);
        }
    };
    check(need.milli_cpu, used.milli_cpu, have.milli_cpu, "Insufficient cpu".into());
    check(need.memory, used.memory, have.memory, "Insufficient memory".into());
    check(
        need.ephemeral_storage,
        used.ephemeral_storage,
        have.ephemeral_storage,
        "Insufficient ephemeral-storage".into(),
    );
    for (name, amount) in &need.others {
        check(*amount, used.other(name), have.other(name), format!("Insufficient {name}").into());
    }
    reasons
}

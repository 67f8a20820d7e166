//! Decides which nodes should have a pod, which pods to replace, and what the status is.

use crate::deployment::resolve;
use crate::ownership::{controller_ref, labels_of, pod_of};
use crate::pods;
use crate::revisions::REVISION;
use pintle_clock::Timestamp;
use pintle_types::Kind;
use pintle_types::k8s::api::apps::v1::{DaemonSet, DaemonSetStatus};
use pintle_types::k8s::api::core::v1::{
    Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Taint, Toleration,
};
use pintle_types::k8s::apimachinery::pkg::util::intstr::IntOrString;
use pintle_types::selector::node_term_matches;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Taints that the pods of every DaemonSet bear.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];

/// The pod for a node. The scheduler binds it: nothing but the node's name will fit.
pub fn pod(set: &DaemonSet, node: &str, revision: &str) -> Pod {
    let template = set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let mut pod = pod_of(&template, set.namespace(), set.name(), controller_ref(set));
    pod.metadata.labels.get_or_insert_default().insert(REVISION.into(), revision.to_owned());
    let spec = pod.spec.get_or_insert_default();
    bind_to(spec, node);
    let mut tolerated = TOLERATED.to_vec();
    if spec.host_network.unwrap_or_default() {
        tolerated.push(("node.kubernetes.io/network-unavailable", "NoSchedule"));
    }
    let tolerations = spec.tolerations.get_or_insert_default();
    for (key, effect) in tolerated {
        let toleration = Toleration {
            key: Some(key.into()),
            operator: Some("Exists".into()),
            effect: Some(effect.into()),
            ..Toleration::default()
        };
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
    pod
}

/// Replaces the fields of the required affinity by the node's name.
fn bind_to(spec: &mut PodSpec, node: &str) {
    let field = NodeSelectorRequirement {
        key: "metadata.name".into(),
        operator: "In".into(),
        values: Some(vec![node.to_owned()]),
    };
    let affinity: &mut NodeAffinity = spec.affinity.get_or_insert_default().node_affinity.get_or_insert_default();
    let required: &mut NodeSelector =
        affinity.required_during_scheduling_ignored_during_execution.get_or_insert_default();
    if required.node_selector_terms.is_empty() {
        required.node_selector_terms.push(NodeSelectorTerm::default());
    }
    for term in &mut required.node_selector_terms {
        term.match_fields = Some(vec![field.clone()]);
    }
}

/// The node that a pod is bound to, or meant for.
pub fn node_of(pod: &Pod) -> Option<&str> {
    let node = pods::node_name(pod);
    if !node.is_empty() {
        return Some(node);
    }
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = &affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
    let field = terms.iter().flat_map(|term| term.match_fields.iter().flatten()).find(|f| f.key == "metadata.name")?;
    field.values.as_ref()?.first().map(String::as_str)
}

/// Whether a node should get a pod, and whether one that is there may go on running.
pub fn fits(set: &DaemonSet, node: &Node) -> (bool, bool) {
    let sample = pod(set, node.name(), "");
    let spec = sample.spec.unwrap_or_default();
    let labels = labels_of(&node.metadata);
    let selected = spec.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    let near = required.is_none_or(|required| required.node_selector_terms.iter().any(|term| matches(term, node)));
    if !selected || !near {
        return (false, false);
    }
    let tolerations = spec.tolerations.unwrap_or_default();
    let bears = |effects: &[&str]| {
        let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
        let taints: Vec<Taint> = taints.filter(|taint| effects.contains(&taint.effect.as_str())).cloned().collect();
        crate::node::bears(&tolerations, &taints) != crate::node::Bears::Not
    };
    (bears(&["NoSchedule", "NoExecute"]), bears(&["NoExecute"]))
}

fn matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let labels = labels_of(&node.metadata);
    node_term_matches(term, node.name(), |key| labels.get(key).map(String::as_str))
}

/// Pods by the node that they are on or meant for.
pub type ByNode = BTreeMap<String, Vec<Arc<Pod>>>;

/// What to do.
#[derive(Debug, Default, PartialEq)]
pub struct Step {
    /// Nodes that lack a pod.
    pub create: Vec<String>,
    pub delete: Vec<Arc<Pod>>,
    /// Of those to delete, the ones that had failed.
    pub failed: Vec<Arc<Pod>>,
}

/// Gives each fitting node one pod, and takes the others away.
pub fn place(set: &DaemonSet, nodes: &[Arc<Node>], pods: &ByNode) -> Step {
    let mut step = Step::default();
    for node in nodes {
        let here = pods.get(node.name()).map(Vec::as_slice).unwrap_or_default();
        let (should_run, may_stay) = fits(set, node);
        let (failed, mut living): (Vec<_>, Vec<_>) =
            here.iter().filter(|pod| !pod.is_deleting()).cloned().partition(|pod| pods::phase(pod) == "Failed");
        if should_run && here.is_empty() {
            step.create.push(node.name().to_owned());
        }
        step.failed.extend(failed.iter().cloned());
        step.delete.extend(failed);
        if !may_stay {
            step.delete.extend(living);
        } else if living.len() > 1 {
            // The one that is bound and has been ready stays; of equals the oldest.
            living.sort_by_key(|pod| {
                (pods::node_name(pod).is_empty(), !pods::is_ready(pod), pod.metadata.creation_timestamp.clone())
            });
            step.delete.extend(living.into_iter().skip(1));
        }
    }
    // Pods of nodes that are gone are the pod collector's, once they were bound; others are for nobody.
    let gone = pods.iter().filter(|(node, _)| !nodes.iter().any(|known| known.name() == node.as_str()));
    let unbound = gone.flat_map(|(_, pods)| pods).filter(|pod| pods::node_name(pod).is_empty() && !pod.is_deleting());
    step.delete.extend(unbound.cloned());
    step
}

/// Pods of older templates to delete now, so that never too many are away.
pub fn replace(set: &DaemonSet, nodes: &[Arc<Node>], pods: &ByNode, revision: &str, now: Timestamp) -> Vec<Arc<Pod>> {
    let spec = set.spec.clone().unwrap_or_default();
    let strategy = spec.update_strategy.unwrap_or_default();
    if strategy.type_.as_deref() == Some("OnDelete") {
        return Vec::new();
    }
    let min_ready = spec.min_ready_seconds.unwrap_or_default();
    let wanted: Vec<&Arc<Node>> = nodes.iter().filter(|node| fits(set, node).0).collect();
    let limit = strategy.rolling_update.and_then(|update| update.max_unavailable).unwrap_or(IntOrString::Int(1));
    let total = i32::try_from(wanted.len()).unwrap_or(i32::MAX);
    let mut room = resolve(Some(&limit), total, true).max(1);
    let (mut broken, mut well) = (Vec::new(), Vec::new());
    for node in wanted {
        let here = pods.get(node.name()).map(Vec::as_slice).unwrap_or_default();
        let Some(pod) = here.iter().find(|pod| !pod.is_deleting()) else {
            room -= 1;
            continue;
        };
        let available = pods::is_available(pod, min_ready, now);
        match (pod.label(REVISION) == Some(revision), available) {
            (true, true) => (),
            (true, false) => room -= 1,
            (false, true) => well.push(pod.clone()),
            (false, false) => {
                // It is away already: replacing it costs nothing.
                room -= 1;
                broken.push(pod.clone());
            }
        }
    }
    broken.extend(well.into_iter().take(usize::try_from(room).unwrap_or_default()));
    broken
}

/// The status after a look at nodes and pods.
pub fn status(set: &DaemonSet, nodes: &[Arc<Node>], pods: &ByNode, revision: &str, now: Timestamp) -> DaemonSetStatus {
    let min_ready = set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or_default();
    let mut status = DaemonSetStatus::default();
    let (mut available, mut updated) = (0, 0);
    for node in nodes {
        let here = pods.get(node.name()).map(Vec::as_slice).unwrap_or_default();
        if !fits(set, node).0 {
            status.number_misscheduled += i32::from(!here.is_empty());
            continue;
        }
        status.desired_number_scheduled += 1;
        let oldest = here.iter().min_by_key(|pod| pod.metadata.creation_timestamp.clone());
        let Some(pod) = oldest else { continue };
        status.current_number_scheduled += 1;
        status.number_ready += i32::from(pods::is_ready(pod));
        available += i32::from(pods::is_available(pod, min_ready, now));
        updated += i32::from(pod.label(REVISION) == Some(revision));
    }
    let some = |number: i32| (number > 0).then_some(number);
    status.number_available = some(available);
    status.number_unavailable = some(status.desired_number_scheduled - available);
    status.updated_number_scheduled = some(updated);
    status.observed_generation = set.metadata.generation;
    let old = set.status.clone().unwrap_or_default();
    (status.collision_count, status.conditions) = (old.collision_count, old.conditions);
    status
}

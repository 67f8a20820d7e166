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
    // What the template names is not what `bind_to` wrote.
    if spec.node_name.as_deref().is_some_and(|named| !named.is_empty() && named != node.name()) {
        return (false, false);
    }
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
    /// Of those to delete, the ones that had failed, and those that ended well.
    pub failed: Vec<Arc<Pod>>,
    pub succeeded: Vec<Arc<Pod>>,
    /// Nodes whose pods fail so often that the next one waits.
    pub held: Vec<String>,
}

impl Step {
    pub fn is_empty(&self) -> bool {
        self.create.is_empty() && self.delete.is_empty()
    }
}

/// How far an update may go, in pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limits {
    surge: i32,
    unavailable: i32,
}

impl Limits {
    /// Percentages are of the nodes that should have a pod, rounded up. If both are none, one pod may be away.
    fn of(set: &DaemonSet, nodes: usize) -> Self {
        let strategy = set.spec.as_ref().and_then(|spec| spec.update_strategy.clone()).unwrap_or_default();
        let rolling = strategy.rolling_update.unwrap_or_default();
        let nodes = i32::try_from(nodes).unwrap_or(i32::MAX);
        let number = |value: Option<IntOrString>, default| {
            resolve(Some(&value.unwrap_or(IntOrString::Int(default))), nodes, true)
        };
        let (surge, unavailable) = (number(rolling.max_surge, 0), number(rolling.max_unavailable, 1));
        Self { surge, unavailable: if surge == 0 { unavailable.max(1) } else { unavailable } }
    }
}

/// Whether a node may have an old and a new pod at a time.
fn surges(set: &DaemonSet) -> bool {
    let strategy = set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
    strategy.is_some_and(|strategy| strategy.type_.as_deref() != Some("OnDelete")) && Limits::of(set, 1).surge > 0
}

fn min_ready(set: &DaemonSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or_default()
}

/// Bound ones first, then the oldest, then by name.
fn by_age(pod: &Pod) -> impl Ord + use<> {
    (pods::node_name(pod).is_empty(), pod.metadata.creation_timestamp.clone(), pod.metadata.name.clone())
}

/// Gives each fitting node one pod, and takes the others away. `held` tells of which nodes a failed pod must wait.
pub fn place(
    set: &DaemonSet,
    nodes: &[Arc<Node>],
    pods: &ByNode,
    revision: &str,
    held: &dyn Fn(&str) -> bool,
    now: Timestamp,
) -> Step {
    let mut step = Step::default();
    for node in nodes {
        let here = pods.get(node.name()).map(Vec::as_slice).unwrap_or_default();
        let (should_run, may_stay) = fits(set, node);
        let staying = here.iter().filter(|pod| !pod.is_deleting()).cloned();
        if should_run && here.is_empty() {
            step.create.push(node.name().to_owned());
        } else if !may_stay {
            step.delete.extend(staying);
        } else {
            let mut living = Vec::new();
            for pod in staying {
                match pods::phase(&pod) {
                    "Failed" if held(node.name()) => step.held.push(node.name().to_owned()),
                    "Failed" => step.failed.push(pod),
                    "Succeeded" => step.succeeded.push(pod),
                    _ => living.push(pod),
                }
            }
            step.delete.extend(surplus(set, living, revision, now));
        }
    }
    step.delete.extend(step.failed.iter().chain(&step.succeeded).cloned());
    // Pods of nodes that are gone are the pod collector's, once they were bound; others are for nobody.
    let gone = pods.iter().filter(|(node, _)| !nodes.iter().any(|known| known.name() == node.as_str()));
    let unbound = gone.flat_map(|(_, pods)| pods).filter(|pod| pods::node_name(pod).is_empty() && !pod.is_deleting());
    step.delete.extend(unbound.cloned());
    step
}

/// The pods of a node that are too many: all but the oldest, or, while an update surges, but the oldest of the old
/// and of the new ones; the old one of these goes as soon as it is not ready or the new one is available.
fn surplus(set: &DaemonSet, mut living: Vec<Arc<Pod>>, revision: &str, now: Timestamp) -> Vec<Arc<Pod>> {
    if living.len() < 2 {
        return Vec::new();
    }
    living.sort_by_key(|pod| by_age(pod));
    if !surges(set) {
        return living.split_off(1);
    }
    let (mut new, mut old): (Vec<_>, Vec<_>) =
        living.into_iter().partition(|pod| pod.label(REVISION) == Some(revision));
    let replaced = match (new.first(), old.first()) {
        (Some(new), Some(old)) => !pods::is_ready(old) || pods::is_available(new, min_ready(set), now),
        _ => false,
    };
    let mut surplus = if new.is_empty() { Vec::new() } else { new.split_off(1) };
    surplus.extend(old.drain(usize::from(!replaced).min(old.len())..));
    surplus
}

/// What a node has while an update runs: the pod of the new template and that of an older one.
type Pair = (Option<Arc<Pod>>, Option<Arc<Pod>>);

/// Nothing when a node has several of a kind, which is to be cleaned up first.
fn pair(here: &[Arc<Pod>], revision: &str) -> Option<Pair> {
    let staying = here.iter().filter(|pod| !pod.is_deleting()).cloned();
    let (new, old): (Vec<_>, Vec<_>) = staying.partition(|pod| pod.label(REVISION) == Some(revision));
    (new.len() <= 1 && old.len() <= 1).then(|| (new.into_iter().next(), old.into_iter().next()))
}

/// The next step of an update: pods of older templates to delete, and nodes that get a new one besides.
pub fn replace(set: &DaemonSet, nodes: &[Arc<Node>], pods: &ByNode, revision: &str, now: Timestamp) -> Step {
    let strategy = set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
    if strategy.is_some_and(|strategy| strategy.type_.as_deref() == Some("OnDelete")) {
        return Step::default();
    }
    let wanted: Vec<&str> = nodes.iter().filter(|node| fits(set, node).0).map(|node| node.name()).collect();
    let limits = Limits::of(set, wanted.len());
    let with_pods = pods.keys().map(String::as_str).filter(|name| !wanted.contains(name));
    let pairs: Vec<(&str, Option<Pair>)> = wanted
        .iter()
        .copied()
        .chain(with_pods)
        .map(|name| (name, pair(pods.get(name).map(Vec::as_slice).unwrap_or_default(), revision)))
        .collect();
    let available = |pod: &Pod| pods::is_available(pod, min_ready(set), now);
    if limits.surge > 0 {
        surge(&pairs, limits.surge, available)
    } else {
        give_way(&pairs, limits.unavailable, available)
    }
}

/// Old pods go first, and the nodes get new ones later; those that are away already cost nothing.
fn give_way(pairs: &[(&str, Option<Pair>)], limit: i32, available: impl Fn(&Pod) -> bool) -> Step {
    let (mut away, mut broken, mut well) = (0, Vec::new(), Vec::new());
    for (_, pair) in pairs {
        match pair {
            Some((Some(new), None)) => away += i32::from(!available(new)),
            Some((None, Some(old))) if available(old) => well.push(old.clone()),
            Some((None, Some(old))) => broken.push(old.clone()),
            _ => away += 1,
        }
    }
    let room = usize::try_from(limit - away).unwrap_or_default();
    broken.extend(well.into_iter().take(room));
    Step { delete: broken, ..Step::default() }
}

/// New pods come first, and the old ones go when those are available.
fn surge(pairs: &[(&str, Option<Pair>)], limit: i32, available: impl Fn(&Pod) -> bool) -> Step {
    let (mut surging, mut step, mut candidates) = (0, Step::default(), Vec::new());
    for (node, pair) in pairs {
        match pair {
            None => surging += 1,
            Some((None, Some(old))) if available(old) => candidates.push((*node).to_owned()),
            Some((None, Some(_))) => step.create.push((*node).to_owned()),
            Some((Some(new), Some(_))) if !available(new) => surging += 1,
            Some((Some(_), Some(old))) => step.delete.push(old.clone()),
            Some((_, None)) => (),
        }
    }
    let room = usize::try_from(limit - surging).unwrap_or_default();
    step.create.extend(candidates.into_iter().take(room));
    step
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
        let oldest = here.iter().min_by_key(|pod| by_age(pod));
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

//! The shapes of load: nodes, pods that are there before, and pods that are measured, as upstream's scheduler_perf.

use crate::api::Template;
use serde_json::{Value, json};
use std::sync::Arc;

/// Pods of one kind.
pub(crate) struct Pods {
    pub(crate) count: usize,
    pub(crate) template: Arc<Template>,
}

/// What happens besides.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beside {
    Nothing,
    /// A pod of the third kind comes every 200 ms.
    Churn,
    /// Pods of the third kind are there that are never to be scheduled.
    Gated,
}

pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) nodes: usize,
    /// Values of `topology.kubernetes.io/zone`, given in turns.
    pub(crate) zones: &'static [&'static str],
    pub(crate) before: Pods,
    pub(crate) measured: Pods,
    pub(crate) beside: Beside,
    pub(crate) others: Pods,
    /// Pods per second that upstream's test demands of the nearest workload, with its name.
    pub(crate) floor: Option<(u32, &'static str)>,
}

const MOONS: &[&str] = &["moon-1", "moon-2", "moon-3"];
const ONE_ZONE: &[&str] = &["zone1"];
const ZONE: &str = "topology.kubernetes.io/zone";
const HOST: &str = "kubernetes.io/hostname";

fn containers(cpu: &str, memory: &str) -> Value {
    json!([{ "name": "pause", "image": "registry.k8s.io/pause:3.10.1", "ports": [{ "containerPort": 80 }],
        "resources": { "limits": { "cpu": cpu, "memory": memory }, "requests": { "cpu": cpu, "memory": memory } } }])
}

fn pod(namespace: &'static str, color: &str, more: Value) -> Arc<Template> {
    let mut spec = json!({
        "containers": containers("100m", "500Mi"), "schedulerName": "default-scheduler",
        "restartPolicy": "Always", "terminationGracePeriodSeconds": 0, "priority": 0,
    });
    if let (Some(spec), Value::Object(more)) = (spec.as_object_mut(), more) {
        spec.extend(more);
    }
    let labels = if color.is_empty() { json!({}) } else { json!({ "labels": { "color": color } }) };
    Template::new(namespace, &labels, &spec)
}

fn pods(count: usize, template: &Arc<Template>) -> Pods {
    Pods { count, template: Arc::clone(template) }
}

fn plain() -> Arc<Template> {
    pod("default", "", json!({}))
}

fn shape(name: &'static str, nodes: usize, before: Pods, measured: Pods, floor: Option<(u32, &'static str)>) -> Shape {
    let others = pods(0, &plain());
    Shape { name, nodes, zones: &[], before, measured, beside: Beside::Nothing, others, floor }
}

/// Affinity (or anti-affinity) to pods of the same colour.
fn affinity(name: &'static str, kind: &str, required: bool, color: &str, key: &str, count: [usize; 3]) -> Shape {
    let term = json!({
        "labelSelector": { "matchLabels": { "color": color } }, "topologyKey": key,
        "namespaces": ["sched-1", "sched-0"],
    });
    let rule = match required {
        true => json!({ "requiredDuringSchedulingIgnoredDuringExecution": [term] }),
        false => {
            json!({ "preferredDuringSchedulingIgnoredDuringExecution": [{ "weight": 1, "podAffinityTerm": term }] })
        }
    };
    let make = |namespace| pod(namespace, color, json!({ "affinity": { kind: rule } }));
    let [nodes, before, measured] = count;
    shape(name, nodes, pods(before, &make("sched-0")), pods(measured, &make("sched-1")), None)
}

fn spread(name: &'static str, when: &str, nodes: usize, before: usize, measured: usize) -> Shape {
    let constraint = json!([{ "maxSkew": 5, "topologyKey": ZONE, "whenUnsatisfiable": when,
        "labelSelector": { "matchLabels": { "color": "blue" } } }]);
    let spread = pod("default", "blue", json!({ "topologySpreadConstraints": constraint }));
    Shape { zones: MOONS, ..shape(name, nodes, pods(before, &plain()), pods(measured, &spread), None) }
}

fn sized(cpu: &str, priority: i32) -> Arc<Template> {
    pod("default", "", json!({ "containers": containers(cpu, "500Mi"), "priority": priority }))
}

/// All shapes for a cluster of so many nodes: 500 or 5,000, as upstream's workloads have them.
pub(crate) fn all(nodes: usize) -> Vec<Shape> {
    let large = nodes >= 5000;
    let per = |small: usize, big: usize| if large { big } else { small };
    let floor = |floor: u32, workload: &'static str| large.then_some((floor, workload));
    let with = |shape: Shape, least: u32, workload| Shape { floor: floor(least, workload), ..shape };
    let (near, far) = ("podAffinity", "podAntiAffinity");
    let same = [nodes, per(500, 5000), per(1000, 5000)];
    let mut shapes = vec![
        with(
            shape("basic", nodes, pods(per(500, 1000), &plain()), pods(per(1000, 10000), &plain()), None),
            680,
            "SchedulingBasic/5000Nodes_10000Pods",
        ),
        with(node_affinity(nodes, per(500, 5000), per(1000, 10000)), 220, "SchedulingNodeAffinity/5000Nodes_10000Pods"),
        Shape {
            zones: ONE_ZONE,
            ..with(
                affinity("pod affinity", near, true, "blue", ZONE, same),
                35,
                "SchedulingPodAffinity/5000Nodes_5000Pods",
            )
        },
        with(
            affinity("pod anti-affinity", far, true, "green", HOST, [nodes, per(100, 1000), per(400, 2000)]),
            60,
            "SchedulingPodAntiAffinity/5000Nodes_2000Pods",
        ),
        with(
            affinity("preferred affinity", near, false, "red", HOST, same),
            90,
            "SchedulingPreferredPodAffinity/5000Nodes_5000Pods",
        ),
        with(
            affinity("preferred anti-affinity", far, false, "yellow", HOST, same),
            90,
            "SchedulingPreferredPodAntiAffinity/5000Nodes_5000Pods",
        ),
        with(
            spread("spread", "DoNotSchedule", nodes, per(1000, 5000), per(1000, 5000)),
            460,
            "TopologySpreading/5000Nodes_5000Pods",
        ),
        with(
            spread("preferred spread", "ScheduleAnyway", nodes, per(1000, 5000), per(1000, 5000)),
            340,
            "PreferredTopologySpreading/5000Nodes_5000Pods",
        ),
    ];
    shapes.extend(crowded(nodes, &per, &floor));
    shapes
}

fn node_affinity(nodes: usize, before: usize, measured: usize) -> Shape {
    let expression = json!({ "key": ZONE, "operator": "In", "values": ["zone1", "zone2"] });
    let terms = json!({ "nodeSelectorTerms": [{ "matchExpressions": [expression] }] });
    let rule = json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": terms } });
    let choosy = pod("default", "", json!({ "affinity": rule }));
    Shape { zones: ONE_ZONE, ..shape("node affinity", nodes, pods(before, &choosy), pods(measured, &choosy), None) }
}

/// The name of the node that all pods of the daemon shape want.
pub(crate) const DAEMON_NODE: &str = "scheduler-perf-node";

fn crowded(
    nodes: usize,
    per: &dyn Fn(usize, usize) -> usize,
    floor: &dyn Fn(u32, &'static str) -> Option<(u32, &'static str)>,
) -> Vec<Shape> {
    let field = json!({ "key": "metadata.name", "operator": "In", "values": [DAEMON_NODE] });
    let terms = json!({ "nodeSelectorTerms": [{ "matchFields": [field] }] });
    let rule = json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": terms } });
    let light = json!([{ "name": "pause", "image": "registry.k8s.io/pause:3.10.1" }]);
    let daemon = pod("default", "", json!({ "affinity": rule, "containers": light }));
    let gated = pod("default", "", json!({ "schedulingGates": [{ "name": "a-gate" }], "containers": light }));
    let light = pod("default", "", json!({ "containers": light }));
    let (low, high, huge) = (sized("900m", 0), sized("3000m", 10), sized("9", 10));
    let none = || pods(0, &light);
    vec![
        shape("preemption", nodes, pods(nodes * 4, &low), pods(per(500, 1000), &high), None),
        Shape {
            beside: Beside::Churn,
            others: pods(1, &high),
            floor: floor(570, "PreemptionAsync/5000Nodes"),
            ..shape("beside preemption", nodes, pods(nodes * 4, &low), pods(per(500, 5000), &plain()), None)
        },
        Shape {
            beside: Beside::Churn,
            others: pods(1, &huge),
            floor: floor(590, "Unschedulable/5kNodes/100Init/10kPods"),
            ..shape("beside unschedulable", nodes, pods(per(10, 100), &plain()), pods(per(1000, 10000), &plain()), None)
        },
        Shape {
            floor: floor(1100, "SchedulingDaemonset/15000Nodes"),
            ..shape("daemon", per(500, 15000), none(), pods(per(1000, 30000), &daemon), None)
        },
        Shape {
            beside: Beside::Gated,
            others: pods(per(1000, 10000), &gated),
            floor: floor(910, "SchedulingWhileGated/1Node_10000GatedPods"),
            ..shape("gated", 1, pods(per(1000, 20000), &light), pods(per(1000, 20000), &light), None)
        },
    ]
}

/// A node's text.
pub(crate) fn node(number: usize, shape: &Shape) -> String {
    let single = shape.name == "daemon" || shape.name == "gated";
    let (name, room) = match number {
        0 if single => (DAEMON_NODE.to_owned(), json!({ "cpu": "40000", "memory": "320000Gi", "pods": "90000" })),
        _ => (format!("node-{number}"), json!({ "cpu": "4", "memory": "32Gi", "pods": "110" })),
    };
    let mut labels = json!({ HOST: name });
    if !shape.zones.is_empty() {
        labels[ZONE] = shape.zones[number % shape.zones.len()].into();
    }
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": { "name": name, "uid": format!("uid-{name}"), "resourceVersion": "1", "labels": labels },
        "status": {
            "capacity": room, "allocatable": room, "phase": "Running",
            "conditions": [{ "status": "True", "type": "Ready" }],
        },
    })
    .to_string()
}

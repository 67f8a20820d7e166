//! The flow schemas and priority levels that every cluster has: the mandatory ones, and those that are suggested.

use serde_json::{Value, json};

/// The objects without which no request could be classified; their specs are kept as they are.
pub fn mandatory() -> Vec<Value> {
    let everyone = ["system:unauthenticated", "system:authenticated"];
    vec![
        level("exempt", json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}})),
        limited("catch-all", 5, 0, None),
        schema("exempt", "exempt", 1, "", vec![all(groups(&["system:masters"]))]),
        schema("catch-all", "catch-all", 10_000, "ByUser", vec![all(groups(&everyone))]),
    ]
}

/// The priority levels of a new cluster.
pub fn levels() -> Vec<Value> {
    let mut levels = vec![
        limited("system", 30, 33, Some((64, 6))),
        limited("node-high", 40, 25, Some((64, 6))),
        limited("leader-election", 10, 0, Some((16, 4))),
        limited("workload-high", 40, 50, Some((128, 6))),
        limited("workload-low", 100, 90, Some((128, 6))),
        limited("global-default", 20, 50, Some((128, 6))),
    ];
    levels.extend(mandatory().into_iter().filter(|o| o["kind"] == "PriorityLevelConfiguration"));
    levels
}

/// The flow schemas of a new cluster.
pub fn schemas() -> Vec<Value> {
    let everyone = ["system:unauthenticated", "system:authenticated"];
    let components = users(&["system:kube-controller-manager", "system:kube-scheduler"]);
    let leases = || resources(&["get", "create", "update"], "coordination.k8s.io", &["leases"], false);
    let probes = json!({
        "subjects": groups(&everyone),
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}],
    });
    let nodes = json!({
        "subjects": groups(&["system:nodes"]),
        "resourceRules": [
            resources(&["*"], "", &["nodes", "nodes/status"], true),
            resources(&["*"], "coordination.k8s.io", &["leases"], false),
        ],
    });
    let endpoints = json!({
        "subjects": [
            users(&["system:kube-controller-manager"])[0],
            account("endpoint-controller"), account("endpointslicemirroring-controller"),
        ],
        "resourceRules": [resources(&["get", "create", "update"], "", &["endpoints"], false)],
    });
    let electing = json!({"subjects": [components[0], components[1], account("*")], "resourceRules": [leases()]});
    let workloads = json!({"subjects": [account("*")], "resourceRules": [leases()]});
    let mut schemas = vec![
        schema("probes", "exempt", 2, "", vec![probes]),
        schema("system-leader-election", "leader-election", 100, "ByUser", vec![electing]),
        schema("endpoint-controller", "workload-high", 150, "ByUser", vec![endpoints]),
        schema("workload-leader-election", "leader-election", 200, "ByUser", vec![workloads]),
        schema("system-node-high", "node-high", 400, "ByUser", vec![nodes]),
        schema("system-nodes", "system", 500, "ByUser", vec![all(groups(&["system:nodes"]))]),
        schema("kube-controller-manager", "workload-high", 800, "ByNamespace", vec![all(json!([components[0]]))]),
        schema("kube-scheduler", "workload-high", 800, "ByNamespace", vec![all(json!([components[1]]))]),
        schema("kube-system-service-accounts", "workload-high", 900, "ByNamespace", vec![all(json!([account("*")]))]),
        schema("service-accounts", "workload-low", 9000, "ByUser", vec![all(groups(&["system:serviceaccounts"]))]),
        schema("global-default", "global-default", 9900, "ByUser", vec![all(groups(&everyone))]),
    ];
    schemas.extend(mandatory().into_iter().filter(|o| o["kind"] == "FlowSchema"));
    schemas
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": kind,
        "metadata": {"name": name, "annotations": {"apf.kubernetes.io/autoupdate-spec": "true"}},
        "spec": spec,
    })
}

fn level(name: &str, spec: Value) -> Value {
    object("PriorityLevelConfiguration", name, spec)
}

fn limited(name: &str, shares: u32, lendable: u32, queues: Option<(u32, u32)>) -> Value {
    let response = match queues {
        None => json!({"type": "Reject"}),
        Some((queues, hand)) => {
            json!({"type": "Queue", "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": 50}})
        }
    };
    let limited = json!({"nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response});
    level(name, json!({"type": "Limited", "limited": limited}))
}

fn schema(name: &str, level: &str, precedence: u32, distinguisher: &str, rules: Vec<Value>) -> Value {
    let mut spec = json!({
        "matchingPrecedence": precedence, "priorityLevelConfiguration": {"name": level}, "rules": rules,
    });
    if !distinguisher.is_empty() {
        spec["distinguisherMethod"] = json!({"type": distinguisher});
    }
    object("FlowSchema", name, spec)
}

fn groups(names: &[&str]) -> Value {
    names.iter().map(|name| json!({"kind": "Group", "group": {"name": name}})).collect()
}

fn users(names: &[&str]) -> Value {
    names.iter().map(|name| json!({"kind": "User", "user": {"name": name}})).collect()
}

fn account(name: &str) -> Value {
    json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": name}})
}

fn resources(verbs: &[&str], group: &str, resources: &[&str], cluster: bool) -> Value {
    let mut rule = json!({"verbs": verbs, "apiGroups": [group], "resources": resources, "namespaces": ["*"]});
    if cluster {
        rule["clusterScope"] = true.into();
    }
    rule
}

/// Everything that these subjects do.
fn all(subjects: Value) -> Value {
    json!({
        "subjects": subjects,
        "resourceRules": [resources(&["*"], "*", &["*"], true)],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    })
}

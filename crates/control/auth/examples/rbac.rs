//! Measures how long it takes to find out whether somebody may: `rbac [CHECKS]`, over the roles and bindings of a cluster
//! with 500 namespaces, each with three bindings, and 5,000 pods on 100 nodes. Prints nanoseconds per check.

#![allow(clippy::print_stdout, reason = "a command whose output is its purpose")]

use pintle_auth::User;
use pintle_auth::authorization::{Attributes, Authorizer};
use serde_json::{Value, json};
use std::time::Instant;

const NAMESPACES: usize = 500;
const PODS: usize = 5000;
const NODES: usize = 100;

/// Roles as large as `admin` and `edit` are: a dozen rules, each of several resources.
fn cluster_role(name: &str, verbs: &[&str]) -> Value {
    let groups = [
        (
            "",
            ["pods", "services", "configmaps", "secrets", "events", "endpoints", "pods/log", "persistentvolumeclaims"],
        ),
        ("apps", ["deployments", "replicasets", "statefulsets", "daemonsets", "deployments/scale", "a", "b", "c"]),
        ("batch", ["jobs", "cronjobs", "jobs/status", "cronjobs/status", "a", "b", "c", "d"]),
        ("networking.k8s.io", ["ingresses", "networkpolicies", "ingresses/status", "a", "b", "c", "d", "e"]),
    ];
    let rules = groups.iter().flat_map(|(group, resources)| {
        resources.chunks(3).map(move |some| json!({"verbs": verbs, "apiGroups": [group], "resources": some}))
    });
    json!({"metadata": {"name": name}, "rules": rules.collect::<Vec<_>>()})
}

fn binding(namespace: &str, name: &str, role: &str, subject: Value) -> Value {
    let mut metadata = json!({"name": name});
    if !namespace.is_empty() {
        metadata["namespace"] = namespace.into();
    }
    json!({"metadata": metadata, "roleRef": {"kind": "ClusterRole", "name": role}, "subjects": [subject]})
}

fn cluster() -> Authorizer {
    let authorizer = Authorizer::default();
    let rules = &authorizer.rbac;
    let all = ["get", "list", "watch", "create", "update", "patch", "delete"];
    for (name, verbs) in [("admin", &all[..]), ("edit", &all[..6]), ("view", &all[..3])] {
        rules.set_role(&cluster_role(name, verbs));
    }
    for n in 0..80 {
        let name = format!("system:controller:{n}");
        rules.set_role(&cluster_role(&name, &all));
        rules.set_binding(&binding("", &name, &name, json!({"kind": "User", "name": name})));
    }
    for role in ["discovery", "basic-user", "public-info"] {
        rules.set_role(&json!({"metadata": {"name": role},
            "rules": [{"verbs": ["get"], "nonResourceURLs": ["/api", "/api/*", "/apis", "/apis/*", "/healthz", "/version"]}]}));
        rules.set_binding(&binding("", role, role, json!({"kind": "Group", "name": "system:authenticated"})));
    }
    for n in 0..NAMESPACES {
        let namespace = format!("team-{n}");
        rules.set_binding(&binding(
            &namespace,
            "admins",
            "admin",
            json!({"kind": "Group", "name": format!("admins-{n}")}),
        ));
        rules.set_binding(&binding(
            &namespace,
            "editors",
            "edit",
            json!({"kind": "Group", "name": format!("dev-{}", n % 50)}),
        ));
        let account = json!({"kind": "ServiceAccount", "name": "ci", "namespace": namespace});
        rules.set_binding(&binding(&namespace, "ci", "edit", account));
    }
    for n in 0..PODS {
        let spec = json!({"nodeName": format!("node-{}", n % NODES), "serviceAccountName": "default",
            "volumes": [{"name": "s", "secret": {"secretName": format!("s-{}", n % 20)}}]});
        let namespace = format!("team-{}", n % NAMESPACES);
        authorizer
            .nodes
            .set_pod(&json!({"metadata": {"name": format!("p-{n}"), "namespace": namespace}, "spec": spec}));
    }
    authorizer
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let checks: u32 = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(200_000);
    let authorizer = cluster();
    let groups: Vec<String> = (0..20).map(|n| format!("dev-{n}")).collect();
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    let jane = User::new("jane", &groups);
    let node = User::new("system:node:node-7", &["system:nodes"]);
    let list =
        Attributes { verb: "list", group: "apps", version: "v1", resource: "deployments", ..Attributes::default() };
    let secret =
        Attributes { verb: "get", version: "v1", resource: "secrets", namespace: "team-7", ..Attributes::default() };
    let cases = [
        ("a controller, by a binding to itself", User::new("system:controller:40", &[]), list),
        ("a user of 20 groups, in a namespace of theirs", jane.clone(), Attributes { namespace: "team-7", ..list }),
        ("the same, in another's namespace: refused", jane.clone(), Attributes { namespace: "team-49", ..list }),
        (
            "a service account in its namespace",
            User::service_account("team-7", "ci"),
            Attributes { namespace: "team-7", ..list },
        ),
        ("a path", jane, Attributes { verb: "get", path: Some("/apis/apps/v1"), ..Attributes::default() }),
        ("a node and a secret of one of its pods", node.clone(), Attributes { name: "s-7", ..secret }),
        ("a node and another's secret: refused", node, Attributes { name: "s-99", ..secret }),
    ];
    for (what, user, asked) in cases {
        let began = Instant::now();
        let mut allowed = 0_u32;
        for _ in 0..checks {
            allowed += u32::from(authorizer.decide(std::hint::black_box(&user), &asked).await.allowed);
        }
        let each = began.elapsed().as_nanos() / u128::from(checks.max(1));
        println!("{each:>8} ns  {what} ({})", if allowed == checks { "allowed" } else { "refused" });
    }
}

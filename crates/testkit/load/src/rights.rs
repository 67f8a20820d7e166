//! What a decision of the roles costs: the index alone, in this process, filled as in a cluster of many teams.

use crate::measure::{say, short};
use anyhow::{Result, ensure};
use pintle_auth::User;
use pintle_auth::authorization::Attributes;
use pintle_auth::authorization::rbac::Index;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const NAMESPACES: usize = 200;
/// Roles and bindings of each namespace.
const ROLES: usize = 10;
const CLUSTER_ROLES: usize = 300;
/// Decisions of one measurement: the clock alone takes as long as one.
const BATCH: u32 = 1_000;
const BATCHES: usize = 300;

/// Measures a decision that a role of the namespace allows, one by way of a group for the whole cluster, and one that
/// nothing allows. `Attributes` are made for each, as requests make them.
pub(crate) fn run() -> Result<()> {
    let index = filled();
    let user = User::new("jane", &["team-7", "developers", "system:authenticated"]);
    let cases = [
        ("rights, a role in the namespace", "ns-7", "role-3", true),
        ("rights, a group's cluster role", "ns-9", "shared-5", true),
        ("rights, refused", "ns-9", "nothing", false),
    ];
    for (name, namespace, resource, allowed) in cases {
        let decide = || {
            let what =
                Attributes { verb: "get", group: "apps", version: "v1", namespace, resource, ..Attributes::default() };
            std::hint::black_box(&index).decide(&user, std::hint::black_box(&what)).allowed
        };
        ensure!(decide() == allowed, "{name}: the index decided otherwise");
        let mut each: Vec<Duration> = (0..BATCHES)
            .map(|_| {
                let began = Instant::now();
                assert!((0..BATCH).all(|_| std::hint::black_box(decide()) == allowed), "decisions stay");
                began.elapsed() / BATCH
            })
            .collect();
        each.sort_unstable();
        let (median, last) = (each[each.len() / 2], each[each.len() * 99 / 100]);
        let shown = |time: Duration| format!("{} ns", time.as_nanos());
        let rate = 1.0 / median.as_secs_f64().max(1e-9);
        say(format_args!("{name:<44} {rate:>10.0} {:>10} {:>10} {:>12}", shown(median), shown(last), short(median)));
    }
    say(format_args!(""));
    Ok(())
}

fn filled() -> Index {
    let index = Index::default();
    for namespace in 0..NAMESPACES {
        for role in 0..ROLES {
            index.set_role(&role_of(&format!("ns-{namespace}"), &format!("role-{role}")));
            let user = if namespace == 7 { "jane" } else { "somebody" };
            index.set_binding(&binding(&format!("ns-{namespace}"), &format!("role-{role}"), "User", user));
        }
    }
    for role in 0..CLUSTER_ROLES {
        index.set_role(&role_of("", &format!("shared-{role}")));
        let group = if role % 10 == 5 { "developers".to_owned() } else { format!("team-{role}") };
        index.set_binding(&binding("", &format!("shared-{role}"), "Group", &group));
    }
    index
}

/// A role with rules like those that people write, the last of which names a resource after the role.
fn role_of(namespace: &str, name: &str) -> Value {
    let rule = |group: &str, resources: &[&str]| json!({"apiGroups": [group], "resources": resources, "verbs": ["get", "list", "watch", "create", "update"]});
    json!({
        "metadata": {"namespace": namespace, "name": name},
        "rules": [
            rule("", &["pods", "services", "configmaps", "secrets"]),
            rule("batch", &["jobs", "cronjobs"]),
            rule("networking.k8s.io", &["ingresses", "networkpolicies"]),
            rule("apps", &[name]),
        ],
    })
}

fn binding(namespace: &str, role: &str, kind: &str, subject: &str) -> Value {
    let role_kind = if namespace.is_empty() { "ClusterRole" } else { "Role" };
    json!({
        "metadata": {"namespace": namespace, "name": role},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": subject}],
    })
}

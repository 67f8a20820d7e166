//! Cluster roles that are made of others: the rules of all roles whose labels they select, joined.
//!
//! Source: `pkg/controller/clusterroleaggregation` of Kubernetes. It is done here because a cluster whose `admin`
//! role is empty lets nobody in who could start the controllers.

use crate::server::Server;
use parking_lot::Mutex;
use pintle_registry::{AdmitAll, Patch, Request, UserInfo};
use pintle_types::Status;
use pintle_types::selector::LabelSelector;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

const MANAGER: &str = "clusterrole-aggregation-controller";

/// What is known of the cluster roles, as far as joining them needs it.
#[derive(Default)]
pub(crate) struct Aggregator {
    roles: Mutex<BTreeMap<String, Role>>,
    changed: Notify,
}

struct Role {
    labels: BTreeMap<String, String>,
    /// None for ordinary roles.
    selectors: Vec<LabelSelector>,
    /// As text: there are many, and few of them are ever joined.
    rules: Box<str>,
}

impl Aggregator {
    pub fn set(&self, role: &Value) {
        let list = |v: &Value| v.as_array().cloned().unwrap_or_default();
        let selectors = list(&role["aggregationRule"]["clusterRoleSelectors"]);
        let known = Role {
            labels: serde_json::from_value(role["metadata"]["labels"].clone()).unwrap_or_default(),
            selectors: selectors.into_iter().map(selector).collect(),
            rules: text(&list(&role["rules"])),
        };
        self.roles.lock().insert(role["metadata"]["name"].as_str().unwrap_or_default().to_owned(), known);
        self.changed.notify_one();
    }

    pub fn remove(&self, role: &Value) {
        self.roles.lock().remove(role["metadata"]["name"].as_str().unwrap_or_default());
        self.changed.notify_one();
    }

    /// The roles whose rules are not what they should be, with what they should be.
    fn stale(&self) -> Vec<(String, Vec<Value>)> {
        let roles = self.roles.lock();
        let joined = |name: &str, role: &Role| {
            let mut rules: Vec<Value> = Vec::new();
            let selected = roles.iter().filter(|(other, r)| *other != name && role.selects(&r.labels));
            for rule in selected.flat_map(|(_, r)| r.rules()) {
                if !rules.contains(&rule) {
                    rules.push(rule);
                }
            }
            rules
        };
        let made = roles.iter().filter(|(_, role)| !role.selectors.is_empty());
        made.map(|(name, role)| (name.clone(), joined(name, role), role.rules()))
            .filter(|(_, wanted, have)| wanted != have)
            .map(|(name, wanted, _)| (name, wanted))
            .collect()
    }

    /// Writes what is stale, until nothing is: a joined role may itself be part of another.
    pub async fn settle(&self, server: &Server) -> Result<(), Status> {
        // Roles that select each other settle after as many rounds as the chain is long.
        for _ in 0..8 {
            let stale = self.stale();
            if stale.is_empty() {
                break;
            }
            for (name, rules) in stale {
                write(server, &name, &rules).await?;
                if let Some(role) = self.roles.lock().get_mut(&name) {
                    role.rules = text(&rules);
                }
            }
        }
        Ok(())
    }

    /// Settles after every change.
    pub async fn run(&self, server: Arc<Server>, stop: CancellationToken) {
        while stop.run_until_cancelled(self.changed.notified()).await.is_some() {
            if let Err(error) = self.settle(&server).await {
                tracing::warn!(%error, "cluster roles that are made of others could not be written");
            }
        }
    }
}

fn text(rules: &[Value]) -> Box<str> {
    serde_json::to_string(rules).unwrap_or_default().into()
}

impl Role {
    fn rules(&self) -> Vec<Value> {
        serde_json::from_str(&self.rules).unwrap_or_default()
    }

    fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.selectors.iter().any(|selector| selector.matches(labels))
    }
}

/// One that cannot be read selects nothing.
fn selector(value: Value) -> LabelSelector {
    LabelSelector::from_typed(serde_json::from_value(value).ok().as_ref())
}

async fn write(server: &Server, name: &str, rules: &[Value]) -> Result<(), Status> {
    let table = server.registry.table();
    let group = "rbac.authorization.k8s.io";
    let def = table.get(group, "v1", "clusterroles").ok_or_else(Status::no_such_resource)?;
    let user = UserInfo { name: format!("system:serviceaccount:kube-system:{MANAGER}"), ..UserInfo::default() };
    let request = Request::new(&user, &AdmitAll, MANAGER);
    let mut configuration =
        json!({"apiVersion": format!("{group}/v1"), "kind": "ClusterRole", "metadata": {"name": name}});
    // Nothing to join is nothing to own: rules that somebody wrote into such a role stay.
    if !rules.is_empty() {
        configuration["rules"] = rules.into();
    }
    let patch = Patch::Apply { configuration, force: true };
    match server.registry.patch(&request, def, "", name, "", &patch).await {
        Err(status) if status.code == 404 => Ok(()),
        other => other.map(|_| ()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_the_union_of_those_it_selects() {
        let aggregator = Aggregator::default();
        let rule = |verb: &str| json!({"verbs": [verb]});
        aggregator.set(&json!({"metadata": {"name": "all"}, "rules": null,
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to": "all"}}]}}));
        aggregator
            .set(&json!({"metadata": {"name": "b", "labels": {"to": "all"}}, "rules": [rule("get"), rule("list")]}));
        aggregator.set(&json!({"metadata": {"name": "a", "labels": {"to": "all"}}, "rules": [rule("get")]}));
        aggregator.set(&json!({"metadata": {"name": "c", "labels": {"to": "none"}}, "rules": [rule("watch")]}));
        assert_eq!(aggregator.stale(), [("all".to_owned(), vec![rule("get"), rule("list")])]);
        aggregator.remove(&json!({"metadata": {"name": "b"}}));
        assert_eq!(aggregator.stale(), [("all".to_owned(), vec![rule("get")])]);
        let not_all = json!({"key": "to", "operator": "NotIn", "values": ["all"]});
        aggregator.set(&json!({"metadata": {"name": "all"}, "rules": [rule("get")],
            "aggregationRule": {"clusterRoleSelectors": [{"matchExpressions": [not_all]}]}}));
        assert_eq!(aggregator.stale(), [("all".to_owned(), vec![rule("watch")])]);
    }
}

//! Watches ClusterRoles; a change of any may change those that aggregate.

use crate::context::Context;
use crate::ownership::labels_of;
use pintle_client::{ClientError, Patch, PatchOptions};
use pintle_informer::{Informer, Outcome, Queue, run_reconciler};
use pintle_types::k8s::api::rbac::v1::{ClusterRole, PolicyRule};
use pintle_types::selector::LabelSelector;
use pintle_types::{Kind, ObjectKey};
use serde_json::json;

const AGGREGATING: &str = "aggregating";

/// Values for the index of the roles that aggregate.
fn aggregates(role: &ClusterRole) -> Vec<String> {
    role.aggregation_rule.iter().map(|_| "yes".to_owned()).collect()
}

/// Runs the controller until the context's stop.
pub async fn run(context: Context) {
    let roles = context.informers.of::<ClusterRole>();
    roles.index(AGGREGATING, aggregates);
    let queue: Queue<ObjectKey> = Queue::new();
    let (all, from_roles) = (roles.clone(), queue.clone());
    roles.on_change(move |_| {
        all.by_index(AGGREGATING, "yes").iter().for_each(|role| from_roles.add(role.key()));
    });
    roles.synced().await;
    let reconcile = |key| reconcile(&context, &roles, key);
    run_reconciler("clusterrole-aggregation-controller", queue, 1, reconcile, context.stop.clone()).await;
}

async fn reconcile(context: &Context, roles: &Informer<ClusterRole>, key: ObjectKey) -> Result<Outcome, ClientError> {
    let Some(role) = roles.get(&key) else { return Ok(Outcome::Done) };
    let Some(aggregation) = &role.aggregation_rule else { return Ok(Outcome::Done) };
    let selectors = aggregation.cluster_role_selectors.iter().flatten();
    let selectors: Vec<LabelSelector> = selectors.map(|selector| LabelSelector::from_typed(Some(selector))).collect();
    let mut rules: Vec<PolicyRule> = Vec::new();
    for other in roles.list() {
        let labels = labels_of(&other.metadata);
        if other.name() == role.name() || !selectors.iter().any(|selector| selector.matches(labels)) {
            continue;
        }
        for rule in other.rules.iter().flatten() {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
    }
    if role.rules.as_deref().unwrap_or_default() == rules {
        return Ok(Outcome::Done);
    }
    // Applied, not written: where there is nothing to aggregate, the rules that somebody else wrote stay.
    let mut applied = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": role.name()},
    });
    if !rules.is_empty() {
        applied["rules"] = json!(rules);
    }
    let options = PatchOptions {
        field_manager: "clusterrole-aggregation-controller".into(),
        force: true,
        ..PatchOptions::default()
    };
    match context.client.patch::<ClusterRole>("", &key.name, Patch::Apply(applied), &options).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(Outcome::Done),
    }
}

//! Admission policies: followed, asked, and told what is wrong with their expressions.
//!
//! The status of a ValidatingAdmissionPolicy is written here, where the kinds that it matches are known; upstream has
//! a controller for it, `validatingadmissionpolicy-status`.

use crate::follow::{Change, Follower};
use crate::request::{field_requirements, label_requirements};
use crate::server::Server;
use async_trait::async_trait;
use pintle_admission::policy::{Access, Flavor, Policies, World, check_types};
use pintle_auth::User;
use pintle_auth::authorization::Attributes as Question;
use pintle_cel::library::{Decision, Query, Who};
use pintle_registry::{AdmitAll, GetOptions, Patch, Request, UserInfo};
use pintle_types::Status;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const GROUP: &str = "admissionregistration.k8s.io";
const VALIDATING: &str = "validatingadmissionpolicies";
const MANAGER: &str = "validatingadmissionpolicy-status";

/// Follows policies and bindings until `stop`.
pub(super) async fn start(server: &Arc<Server>, stop: &CancellationToken) -> Result<(), Status> {
    let (told, changed) = mpsc::unbounded_channel();
    for (resource, flavor) in [(VALIDATING, Flavor::Validating), ("mutatingadmissionpolicies", Flavor::Mutating)] {
        let told = told.clone();
        follow(server, stop, resource, move |policies, change| match change {
            Change::Set(policy) => {
                policies.set_policy(flavor, policy);
                if flavor == Flavor::Validating && is_unchecked(policy) {
                    // Nobody listens any more only when the server stops.
                    let _ = told.send(policy.clone());
                }
            }
            Change::Gone(gone) => policies.remove_policy(flavor, name_of(gone)),
        })
        .await?;
    }
    for (resource, flavor) in [
        ("validatingadmissionpolicybindings", Flavor::Validating),
        ("mutatingadmissionpolicybindings", Flavor::Mutating),
    ] {
        follow(server, stop, resource, move |policies, change| match change {
            Change::Set(binding) => policies.set_binding(flavor, binding),
            Change::Gone(gone) => policies.remove_binding(flavor, name_of(gone)),
        })
        .await?;
    }
    let (server, stop) = (server.clone(), stop.clone());
    let tracker = server.tasks.clone();
    tracker.spawn(async move { stop.run_until_cancelled(write_statuses(&server, changed)).await });
    Ok(())
}

async fn follow(
    server: &Arc<Server>,
    stop: &CancellationToken,
    resource: &str,
    apply: impl Fn(&Policies, Change<'_>) + Send + 'static,
) -> Result<(), Status> {
    let shared = server.clone();
    let apply = move |change: Change<'_>| apply(&shared.plugins.policies, change);
    let follower = Follower::load(server, GROUP, resource, apply).await?;
    server.tasks.spawn(follower.run(stop.clone()));
    Ok(())
}

fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// Whether the expressions of this generation of a policy were not checked yet.
fn is_unchecked(policy: &Value) -> bool {
    let generation = policy["metadata"]["generation"].as_i64().unwrap_or_default();
    generation > policy["status"]["observedGeneration"].as_i64().unwrap_or_default()
}

/// Checks policies against the kinds that they match, and writes what was found into their status.
async fn write_statuses(server: &Server, mut changed: mpsc::UnboundedReceiver<Value>) {
    while let Some(policy) = changed.recv().await {
        let table = server.registry.table();
        let warnings: Vec<Value> = check_types(&table, &policy)
            .into_iter()
            .map(|warning| json!({"fieldRef": warning.field, "warning": warning.warning}))
            .collect();
        let checking = if warnings.is_empty() { json!({}) } else { json!({"expressionWarnings": warnings}) };
        let status = json!({
            "observedGeneration": policy["metadata"]["generation"],
            "typeChecking": checking,
        });
        if let Err(error) = write_status(server, name_of(&policy), status).await {
            tracing::warn!(policy = name_of(&policy), %error, "the status of an admission policy can't be written");
        }
    }
}

async fn write_status(server: &Server, name: &str, status: Value) -> Result<(), Status> {
    let table = server.registry.table();
    let def = table.get(GROUP, "v1", VALIDATING).ok_or_else(Status::no_such_resource)?;
    // Applying would bring back a policy that is gone.
    match server.registry.get(def, "", name, &GetOptions::default()).await {
        Err(status) if status.code == 404 => return Ok(()),
        other => drop(other?),
    }
    let user =
        UserInfo { name: "system:apiserver".into(), groups: vec!["system:masters".into()], ..UserInfo::default() };
    let request = Request::new(&user, &AdmitAll, MANAGER);
    let configuration = json!({
        "apiVersion": def.api_version(), "kind": def.kind, "metadata": {"name": name}, "status": status,
    });
    let patch = Patch::Apply { configuration, force: true };
    match server.registry.patch(&request, def, "", name, "status", &patch).await {
        Err(status) if status.code == 404 => Ok(()),
        other => other.map(drop),
    }
}

/// What evaluating policies needs of this server.
pub(super) fn world(server: &Server) -> World<'_> {
    World { registry: &server.registry, access: server }
}

#[async_trait]
impl Access for Server {
    async fn decide(&self, user: &UserInfo, query: &Query) -> Decision {
        let user = match &query.who {
            Who::ServiceAccount { namespace, name } => User::service_account(namespace, name),
            Who::Requester => User {
                name: user.name.clone(),
                uid: user.uid.clone(),
                groups: user.groups.clone(),
                extra: user.extra.clone(),
            },
        };
        let (fields, labels) = (field_requirements(&query.field_selector), label_requirements(&query.label_selector));
        let question = Question {
            verb: &query.verb,
            group: &query.group,
            version: if query.path.is_some() { "" } else { "*" },
            namespace: &query.namespace,
            resource: &query.resource,
            subresource: &query.subresource,
            name: &query.name,
            path: query.path.as_deref(),
            fields: &fields,
            labels: &labels,
        };
        let decision = self.authorizer.decide(&user, &question).await;
        Decision {
            allowed: decision.allowed,
            reason: decision.reason.into(),
            error: Some(decision.error).filter(|error| !error.is_empty()).map(Into::into),
        }
    }
}

//! Nobody makes roles or bindings that give more than they have themselves, unless they may `escalate` or `bind`.
//!
//! Source: `pkg/registry/rbac/{role,clusterrole,rolebinding,clusterrolebinding}/policybased` of Kubernetes.

use super::{forbidden, user_of};
use crate::authorization::{self, Authorizer};
use pintle_auth::authorization::{escalation, rules::Rule};
use pintle_auth::{MASTERS, User};
use pintle_registry::{Attributes, Operation};
use pintle_types::Status;
use serde_json::Value;
use std::sync::Arc;

const GROUP: &str = "rbac.authorization.k8s.io";

/// Refuses writes of roles and bindings that would give away what the user does not have.
pub(super) async fn forbid_escalation(authorizer: &Authorizer, attributes: &Attributes<'_>) -> Result<(), Status> {
    let writes = matches!(attributes.operation, Operation::Create | Operation::Update);
    if attributes.def.group != GROUP || !writes || !attributes.subresource.is_empty() {
        return Ok(());
    }
    let from = attributes.user;
    if from.groups.iter().any(|group| group == MASTERS) {
        return Ok(());
    }
    let user = user_of(attributes);
    let Some(new) = &attributes.object else { return Ok(()) };
    let old = attributes.old_object.as_deref();
    if old.is_some_and(|old| only_ownership_differs(old, new)) {
        return Ok(());
    }
    match &*attributes.def.resource {
        "roles" | "clusterroles" => role(authorizer, attributes, &user, old, new).await,
        "rolebindings" | "clusterrolebindings" => binding(authorizer, attributes, &user, new).await,
        _ => Ok(()),
    }
}

/// Whether a write does no more than what the garbage collector needs to do before it deletes.
pub(super) fn only_ownership_differs(old: &Value, new: &Value) -> bool {
    let rest = |object: &Value| {
        let mut object = object.clone();
        if let Some(metadata) = object["metadata"].as_object_mut() {
            for field in ["ownerReferences", "finalizers", "managedFields", "resourceVersion", "generation"] {
                metadata.remove(field);
            }
        }
        object
    };
    rest(old) == rest(new)
}

fn rules_of(object: &Value) -> Vec<Rule> {
    object["rules"].as_array().into_iter().flatten().map(Rule::from_value).collect()
}

async fn may(authorizer: &Authorizer, user: &User, verb: &str, resource: &str, namespace: &str, name: &str) -> bool {
    let what = authorization::Attributes {
        verb,
        group: GROUP,
        version: "v1",
        namespace,
        resource,
        name,
        ..Default::default()
    };
    authorizer.decide(user, &what).await.allowed
}

fn name_of<'a>(attributes: &'a Attributes<'_>, object: &'a Value) -> &'a str {
    match attributes.name {
        "" => object["metadata"]["name"].as_str().unwrap_or_default(),
        name => name,
    }
}

async fn role(
    authorizer: &Authorizer,
    attributes: &Attributes<'_>,
    user: &User,
    old: Option<&Value>,
    new: &Value,
) -> Result<(), Status> {
    let cluster = attributes.def.resource == "clusterroles";
    let rules = rules_of(new);
    let unchanged = |old: &Value| rules_of(old) == rules && old["aggregationRule"] == new["aggregationRule"];
    if old.is_some_and(unchanged) {
        return Ok(());
    }
    let name = name_of(attributes, new);
    if may(authorizer, user, "escalate", &attributes.def.resource, attributes.namespace, name).await {
        return Ok(());
    }
    // What is joined from others may become anything.
    let joins = |object: &Value| object["aggregationRule"].is_object();
    let everything = [
        Rule { verbs: star(), groups: star(), resources: star(), ..Rule::default() },
        Rule { verbs: star(), paths: star(), ..Rule::default() },
    ];
    if cluster && (joins(new) || old.is_some_and(joins)) && confirm(authorizer, attributes, user, &everything).is_err()
    {
        let why = "must have cluster-admin privileges to use an aggregationRule";
        return Err(forbidden(attributes, why));
    }
    confirm(authorizer, attributes, user, &rules)
}

fn star() -> Vec<Box<str>> {
    vec!["*".into()]
}

async fn binding(authorizer: &Authorizer, attributes: &Attributes<'_>, user: &User, new: &Value) -> Result<(), Status> {
    let reference = &new["roleRef"];
    let name = reference["name"].as_str().unwrap_or_default();
    let cluster = reference["kind"] == "ClusterRole";
    let resource = if cluster { "clusterroles" } else { "roles" };
    if may(authorizer, user, "bind", resource, attributes.namespace, name).await {
        return Ok(());
    }
    let rules: Option<Arc<[Rule]>> = authorizer.rbac.rules_of_role(cluster, attributes.namespace, name);
    let rules = rules.ok_or_else(|| Status::not_found(GROUP, resource, name))?;
    confirm(authorizer, attributes, user, &rules)
}

fn confirm(authorizer: &Authorizer, attributes: &Attributes<'_>, user: &User, rules: &[Rule]) -> Result<(), Status> {
    let (held, errors) = authorizer.rbac.rules_of(user, attributes.namespace);
    escalation::confirm(user, &held, rules, &errors).map_err(|why| {
        let def = &attributes.def;
        let name = attributes.object.as_ref().map(|object| name_of(attributes, object)).unwrap_or_default();
        Status::forbidden(&def.group, &def.resource, name, &why)
    })
}

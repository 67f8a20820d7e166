//! NamespaceLifecycle: nothing is made in a namespace that is not there or on its way out, and some namespaces stay.
//!
//! Source: apiserver's `pkg/admission/plugin/namespace/lifecycle`.

use super::forbidden;
use crate::server::Server;
use pintle_registry::{Attributes, GetOptions, Operation};
use pintle_types::Status;
use pintle_types::status::{Cause, Details};

/// Whoever deleted these would not get them back as they were.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub(super) async fn lifecycle(server: &Server, attributes: &Attributes<'_>) -> Result<(), Status> {
    let is_namespace = attributes.def.group.is_empty() && attributes.def.resource == "namespaces";
    if is_namespace && attributes.operation == Operation::Delete && IMMORTAL.contains(&attributes.name) {
        return Err(forbidden(attributes, "this namespace may not be deleted"));
    }
    let creates = attributes.operation == Operation::Create;
    if is_namespace || attributes.namespace.is_empty() || !(creates || attributes.operation == Operation::Update) {
        return Ok(());
    }
    // Who may do what can be asked of any namespace.
    if attributes.def.group == "authorization.k8s.io" && attributes.def.resource == "localsubjectaccessreviews" {
        return Ok(());
    }
    let table = server.registry.table();
    let Some(def) = table.get("", "v1", "namespaces") else { return Ok(()) };
    let namespace = server.registry.get(def, "", attributes.namespace, &GetOptions::default()).await?;
    if !creates {
        return Ok(());
    }
    let namespace = namespace.to_value();
    let since = namespace["metadata"]["deletionTimestamp"].as_str();
    if since.is_none() && namespace["status"]["phase"] != "Terminating" {
        return Ok(());
    }
    Err(terminating(attributes))
}

fn terminating(attributes: &Attributes<'_>) -> Status {
    let ns = attributes.namespace;
    let why = format!("unable to create new content in namespace {ns} because it is being terminated");
    let mut status = forbidden(attributes, &why);
    let cause = Cause {
        reason: "NamespaceTerminating".into(),
        message: format!("namespace {ns} is being terminated"),
        field: "metadata.namespace".into(),
    };
    let details = status.details.get_or_insert_with(|| Box::new(Details::default()));
    details.causes.push(cause);
    status
}

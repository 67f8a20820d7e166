//! Requests for resources: which definition the path names, which verb, and on to the registry.

mod admin;
mod read;
mod view;
mod watch;
mod write;

use crate::media::{Format, Offers, Shape, negotiate_among};
use crate::pipeline::Call;
use crate::request::ResourceRequest;
use crate::response::{self, Answer};
use crate::subresources;
use pintle_kinds::ResourceDef;
use pintle_types::Status;
use std::sync::Arc;

pub(crate) use view::{Include, encode_value, partial};
pub(crate) use write::{body_of, post_subresource};

/// A request whose resource exists.
pub(crate) struct Target<'a> {
    pub call: &'a Call,
    pub def: Arc<ResourceDef>,
    pub path: &'a ResourceRequest,
}

impl Target<'_> {
    /// In which forms the objects can be had: custom resources have no messages.
    pub fn offers(&self) -> Offers {
        Offers { protobuf: self.def.schema.is_none(), cbor: self.call.server.config.cbor }
    }

    /// The form that the client prefers among those.
    pub fn negotiate(&self, shape: Shape) -> Result<Format, Box<Status>> {
        negotiate_among(&self.call.headers, shape, self.offers())
    }
}

pub(crate) async fn answer(call: &Call, path: &ResourceRequest) -> Answer {
    let table = call.server.registry.table();
    let found = table.get(&path.group, &path.version, &path.resource).filter(|def| call.server.serves(def)).cloned();
    let Some(def) = found else {
        let known = path.group.is_empty() || call.server.serves_group(&path.group);
        return if known { Err(Box::new(Status::no_such_resource())) } else { Ok(response::page_not_found()) };
    };
    if !scope_fits(&def, path) {
        return Err(Box::new(Status::no_such_resource()));
    }
    if def.has_verb(call.info.verb)
        && let Some(warning) = def.strategy.deprecation()
    {
        warn_of_deprecation(call, path, warning);
    }
    let target = Target { call, def, path };
    // What is read most has its future in place; the others are larger by far, and would be copied with every request.
    match (target.path.name.is_empty(), target.path.subresource.is_empty()) {
        (true, _) => Box::pin(collection(&target)).await,
        (false, true) if call.info.verb == "get" => get(&target).await,
        (false, true) => Box::pin(object(&target)).await,
        (false, false) => Box::pin(subresources::answer(&target)).await,
    }
}

/// Tells the client, the metrics and the audit log that the version is to go away.
fn warn_of_deprecation(call: &Call, path: &ResourceRequest, warning: &str) {
    call.warn([warning.to_owned()]);
    let decisions = &call.server.metrics.decisions;
    decisions.deprecated(&path.group, &path.version, &path.resource, &path.subresource);
    if let Some(audit) = call.audit() {
        audit.add("k8s.io/deprecated", "true");
    }
}

/// Whether the path has a namespace where it must, and none where it must not.
fn scope_fits(def: &ResourceDef, path: &ResourceRequest) -> bool {
    let own = def.resource == "namespaces" && def.group.is_empty();
    match (def.namespaced, path.namespace.is_empty()) {
        (true, true) => path.name.is_empty(),
        (false, false) => own,
        _ => true,
    }
}

fn not_allowed() -> Answer {
    Err(Box::new(Status::method_not_allowed()))
}

async fn collection(target: &Target<'_>) -> Answer {
    let verb = target.call.info.verb;
    let everywhere = target.def.namespaced && target.path.namespace.is_empty();
    if !target.def.has_verb(verb) || (everywhere && !matches!(verb, "list" | "watch")) {
        return not_allowed();
    }
    match verb {
        "list" if target.def.resource == "componentstatuses" => admin::component_statuses(target).await,
        "list" => read::list(target).await,
        "watch" => watch::watch(target).await,
        "create" => create(target).await,
        "deletecollection" => write::delete_collection(target).await,
        _ => not_allowed(),
    }
}

async fn create(target: &Target<'_>) -> Answer {
    match (&*target.def.group, &*target.def.resource) {
        ("authentication.k8s.io" | "authorization.k8s.io", _) => subresources::reviews::create(target).await,
        ("", "bindings") => subresources::legacy_binding(target).await,
        _ => write::create(target).await,
    }
}

async fn get(target: &Target<'_>) -> Answer {
    if !target.def.has_verb("get") {
        return not_allowed();
    }
    if target.def.resource == "componentstatuses" {
        return Box::pin(admin::component_status(target)).await;
    }
    read::get(target).await
}

async fn object(target: &Target<'_>) -> Answer {
    let verb = target.call.info.verb;
    if !target.def.has_verb(verb) {
        return not_allowed();
    }
    match verb {
        "watch" => watch::watch(target).await,
        "update" => write::update(target, "").await,
        "patch" => write::patch(target, "").await,
        "delete" => write::delete(target).await,
        _ => not_allowed(),
    }
}

/// Verbs of subresources that read and write the object itself (`status`, `scale`, …).
pub(crate) async fn plain_subresource(target: &Target<'_>) -> Answer {
    let name = &target.path.subresource;
    let Some(sub) = target.def.subresource(name) else { return Err(Box::new(Status::no_such_resource())) };
    if !sub.verbs.contains(&target.call.info.verb) {
        return not_allowed();
    }
    match target.call.info.verb {
        "get" => read::get_subresource(target).await,
        "update" => write::update(target, name).await,
        "patch" => write::patch(target, name).await,
        "create" => write::create_subresource(target).await,
        _ => not_allowed(),
    }
}

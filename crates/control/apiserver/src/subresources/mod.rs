//! Subresources that do more than read and write their object: logs, streams, proxies, tokens, reviews.

mod connect;
pub(crate) mod kubelet;
mod links;
mod pod;
mod proxy;
pub(crate) mod reviews;
mod rewrite;
mod token;
pub(crate) mod upgrade;

use crate::media::{Shape, negotiate};
use crate::options::WriteOptions;
use crate::pipeline::Call;
use crate::resources::{self, Target, body_of};
use crate::response::Answer;
use crate::server::Server;
use pintle_registry::GetOptions;
use pintle_types::Status;
use serde_json::Value;

pub(crate) async fn answer(target: &Target<'_>) -> Answer {
    let sub = target.path.subresource.as_str();
    let core = target.def.group.is_empty();
    match (&*target.def.resource, sub) {
        ("pods", "log") if core => only(target, &["get"], pod::log(target)).await,
        ("pods", "exec") if core => only(target, &["get", "create"], pod::exec(target)).await,
        ("pods", "attach") if core => only(target, &["get", "create"], pod::attach(target)).await,
        ("pods", "portforward") if core => only(target, &["get", "create"], pod::port_forward(target)).await,
        ("pods" | "services" | "nodes", "proxy") if core => proxy::proxy(target).await,
        ("serviceaccounts", "token") if core => only(target, &["create"], token::create(target)).await,
        _ if target.path.rest.is_some() => Err(Box::new(Status::no_such_resource())),
        _ => resources::plain_subresource(target).await,
    }
}

async fn only(target: &Target<'_>, verbs: &[&str], answer: impl Future<Output = Answer>) -> Answer {
    if target.path.rest.is_some() {
        return Err(Box::new(Status::no_such_resource()));
    }
    if !verbs.contains(&target.call.info.verb) {
        return Err(Box::new(Status::method_not_allowed()));
    }
    answer.await
}

/// `POST /namespaces/N/bindings`: the old way to bind a pod, which the body names.
pub(crate) async fn legacy_binding(target: &Target<'_>) -> Answer {
    let format = negotiate(&target.call.headers, Shape::Object)?;
    let options = WriteOptions::read(&target.call.query, "CreateOptions", false)?;
    let body = body_of(target, &options, "").await?;
    let name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let table = target.call.server.registry.table();
    let pods = table.get("", "v1", "pods").cloned().ok_or_else(|| Box::new(Status::no_such_resource()))?;
    let target = Target { call: target.call, def: pods, path: target.path };
    resources::post_subresource(&target, format, options, "binding", &name, body).await
}

impl Server {
    /// An object of the core group as it is now.
    pub(crate) async fn core_object(&self, resource: &str, namespace: &str, name: &str) -> Result<Value, Box<Status>> {
        let table = self.registry.table();
        let def = table.get("", "v1", resource).ok_or_else(|| Box::new(Status::no_such_resource()))?;
        Ok(self.registry.get(def, namespace, name, &GetOptions::default()).await?.to_value())
    }
}

/// A query parameter under another name, if it is given and not empty.
fn renamed(call: &Call, from: &str, to: &str, out: &mut Vec<(String, String)>) {
    out.extend(call.query.all(from).filter(|v| !v.is_empty()).map(|v| (to.to_owned(), v.to_owned())));
}

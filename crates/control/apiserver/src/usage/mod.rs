//! `metrics.k8s.io`: what nodes and pods use, worked out when somebody asks.
//!
//! Kubelets are asked at most once in [`scrape::FRESH`], and only those of the nodes that a request is about. While
//! nobody asks, nothing happens. When an APIService names another server for the group, that server answers.

mod scrape;

use crate::media::{Format, Offers, Shape, View, negotiate_among};
use crate::options;
use crate::pipeline::Call;
use crate::request::ResourceRequest;
use crate::resources::{Include, encode_value, partial};
use crate::response::{self, Answer};
use crate::server::Server;
use http::StatusCode;
use pintle_registry::{GetOptions, ListOptions};
use pintle_types::Status;
use pintle_usage::objects::{self, GROUP, Resource, VERSION};
use serde_json::{Value, json};
use std::collections::BTreeSet;

pub(crate) use scrape::Usage;

/// Whether this server can ask kubelets at all.
pub(crate) fn is_enabled(server: &Server) -> bool {
    server.config.kubelet_tls.is_some()
}

/// Whether requests for a group and version are answered here.
pub(crate) fn is_served(server: &Server, group: &str, version: &str) -> bool {
    group == GROUP
        && version == VERSION
        && is_enabled(server)
        && server.aggregation.others.find(group, version).is_none()
}

/// Answers a request for what is used.
pub(crate) async fn answer(call: &Call, path: &ResourceRequest) -> Answer {
    let found = Resource::named(&path.resource).filter(|_| path.subresource.is_empty());
    let Some(resource) = found else { return Err(Box::new(Status::no_such_resource())) };
    let scope_fits = match resource {
        Resource::Nodes => path.namespace.is_empty(),
        Resource::Pods => !path.namespace.is_empty() || path.name.is_empty(),
    };
    if !scope_fits {
        return Err(Box::new(Status::no_such_resource()));
    }
    match call.info.verb {
        "get" => one(call, resource, path).await,
        "list" => list(call, resource, path).await,
        _ => Err(Box::new(Status::method_not_allowed())),
    }
}

async fn one(call: &Call, resource: Resource, path: &ResourceRequest) -> Answer {
    let format = format(call, Shape::Object)?;
    let server = &call.server;
    let table = server.registry.table();
    let def = table.get("", "v1", resource.name()).ok_or_else(|| Box::new(Status::no_such_resource()))?;
    let object = server.registry.get(def, &path.namespace, &path.name, &GetOptions::default()).await?.to_value();
    let found = measured(server, resource, vec![object]).await.pop();
    let Some(found) = found else {
        let name = match resource {
            Resource::Nodes => path.name.clone(),
            Resource::Pods => format!("{}/{}", path.namespace, path.name),
        };
        return Err(Box::new(Status::not_found(GROUP, resource.long_name(), &name)));
    };
    match format.view {
        View::Whole => send(call, format, &found),
        View::Metadata(version) => send(call, format, &partial(&found, version)),
        View::Table(version) => send(call, format, &table_of(call, version, &[found])),
    }
}

async fn list(call: &Call, resource: Resource, path: &ResourceRequest) -> Answer {
    let format = format(call, Shape::List)?;
    let given = options::list_options(&call.query)?;
    // Those that are there now: neither pages nor revisions of the past.
    let wanted = ListOptions { labels: given.labels, fields: given.fields, ..ListOptions::default() };
    let server = &call.server;
    let table = server.registry.table();
    let def = table.get("", "v1", resource.name()).ok_or_else(|| Box::new(Status::no_such_resource()))?;
    let all = server.registry.list(def, &path.namespace, &wanted).await?;
    let items = measured(server, resource, all.items.iter().map(|object| object.to_value()).collect()).await;
    match format.view {
        View::Whole => send(call, format, &objects::list(resource, items)),
        View::Table(version) => send(call, format, &table_of(call, version, &items)),
        View::Metadata(version) => {
            let items: Vec<Value> = items.iter().map(|item| partial(item, version)).collect();
            let list = json!({
                "kind": "PartialObjectMetadataList", "apiVersion": format!("meta.k8s.io/{version}"),
                "metadata": {}, "items": items,
            });
            send(call, format, &list)
        }
    }
}

fn format(call: &Call, shape: Shape) -> Result<Format, Box<Status>> {
    negotiate_among(&call.headers, shape, Offers { protobuf: false, cbor: call.server.config.cbor })
}

fn send(call: &Call, format: Format, value: &Value) -> Answer {
    let body = encode_value(value, format.written)?;
    Ok(response::compressed(StatusCode::OK, format.written.content_type(), body, &call.headers))
}

fn table_of(call: &Call, version: &str, items: &[Value]) -> Value {
    let include = Include::read(&call.query);
    objects::table(version, items, |object| match include {
        Include::Nothing => Value::Null,
        Include::Metadata => partial(object, version),
        Include::Object => object.clone(),
    })
}

/// What the given nodes or pods use; those of which nothing is known yet are left out.
async fn measured(server: &Server, resource: Resource, given: Vec<Value>) -> Vec<Value> {
    let nodes: BTreeSet<&str> = given.iter().filter_map(|object| node_of(resource, object)).collect();
    let mut usage = scrape::fresh(server, nodes, scrape::FRESH).await;
    let now = server.clock.now();
    let one = |usage: &scrape::ByNode, object: &Value| {
        let samples = usage.get(node_of(resource, object)?)?;
        match resource {
            Resource::Nodes => Some(objects::node(object, &samples.node()?, now)),
            Resource::Pods => {
                let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
                objects::pod(object, &samples.pod(text("namespace"), text("name"))?, now)
            }
        }
    };
    // Whoever asks about something new need not wait for as long as the others' samples are good.
    let unknown = |object: &&Value| object["status"]["phase"] == "Running" && one(&usage, object).is_none();
    let behind: BTreeSet<&str> = given.iter().filter(unknown).filter_map(|object| node_of(resource, object)).collect();
    if !behind.is_empty() {
        let newer = scrape::fresh(server, behind, scrape::YOUNGEST).await;
        usage.extend(newer);
    }
    given.iter().filter_map(|object| one(&usage, object)).collect()
}

fn node_of(resource: Resource, object: &Value) -> Option<&str> {
    match resource {
        Resource::Nodes => object["metadata"]["name"].as_str(),
        Resource::Pods => {
            let ended = matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
            object["spec"]["nodeName"].as_str().filter(|_| !ended)
        }
    }
}

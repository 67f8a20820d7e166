//! Which groups, versions and resources there are: each on its own page, or all at once ("aggregated").
//!
//! Source: KEP-3352 for the aggregated form.

use super::json as page;
use crate::media::wants_aggregated_discovery;
use crate::pipeline::Call;
use crate::response::{self, Answer, with_type};
use crate::server::Server;
use crate::usage;
use http::StatusCode;
use http::header::{CACHE_CONTROL, ETAG, HeaderValue, IF_NONE_MATCH, VARY};
use pintle_aggregator::{Known, aggregated_resources, priority};
use pintle_kinds::table::version_rank;
use pintle_kinds::{GroupVersions, ResourceDef, Subresource};
use pintle_types::Status;
use pintle_usage::objects;
use serde_json::{Map, Value, json};
use std::cmp::Reverse;
use std::collections::HashMap;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

impl Server {
    /// Whether a definition is served: the built-in versions that the configuration says, and all of custom resources.
    pub(crate) fn serves(&self, def: &ResourceDef) -> bool {
        def.schema.is_some() || self.config.runtime_config.serves(&def.group, &def.version)
    }

    pub(crate) fn serves_group(&self, group: &str) -> bool {
        self.registry.table().iter().any(|def| def.group == group && self.serves(def))
    }

    /// The groups with their served versions, in the order of discovery.
    pub(crate) fn served_groups(&self) -> Vec<GroupVersions> {
        let table = self.registry.table();
        let mut groups = table.groups();
        for group in &mut groups {
            let name = group.group.clone();
            group.versions.retain(|v| table.of_version(&name, v).any(|def| self.serves(def)));
        }
        groups.retain(|g| !g.versions.is_empty());
        groups
    }

    /// The groups as clients see them: with those that other servers answer, by their priorities.
    fn all_groups(&self) -> Vec<GroupVersions> {
        let mut groups = self.served_groups();
        if usage::is_served(self, objects::GROUP, objects::VERSION) {
            let versions = vec![objects::VERSION.to_owned()];
            groups.push(GroupVersions { group: objects::GROUP.to_owned(), versions });
        }
        if self.aggregation.others.is_empty() {
            return groups;
        }
        let mut ranks: HashMap<String, i32> = HashMap::new();
        let mut others = self.aggregation.others.all();
        others.sort_by_key(|known| (Reverse(known.spec.version_priority), Reverse(version_rank(&known.spec.version))));
        for known in &others {
            let spec = &known.spec;
            let rank = ranks.entry(spec.group.clone()).or_insert(spec.group_priority);
            *rank = (*rank).max(spec.group_priority);
            match groups.iter_mut().find(|g| g.group == spec.group) {
                Some(group) if group.versions.contains(&spec.version) => {}
                Some(group) => group.versions.push(spec.version.clone()),
                None => groups.push(GroupVersions { group: spec.group.clone(), versions: vec![spec.version.clone()] }),
            }
        }
        let rank = |group: &GroupVersions| {
            let own = match &*group.group {
                objects::GROUP => objects::GROUP_PRIORITY,
                name => priority::of_group(name).unwrap_or(priority::CUSTOM.group),
            };
            // A group of which nothing is local has the priority that its APIServices ask for.
            let local = self.serves_group(&group.group);
            match ranks.get(&group.group) {
                Some(asked) if !local => *asked,
                Some(asked) => own.max(*asked),
                None => own,
            }
        };
        groups.sort_by_cached_key(|group| Reverse(rank(group)));
        groups
    }
}

/// `/api`
pub(crate) fn legacy(call: &Call) -> Answer {
    if wants_aggregated_discovery(&call.headers) {
        let core = call.server.served_groups().into_iter().filter(|g| g.group.is_empty());
        return Ok(aggregated(call, core));
    }
    let address = std::net::SocketAddr::new(call.server.config.advertise_address, call.server.port());
    Ok(page(&json!({
        "kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address.to_string()}],
    })))
}

/// `/apis`
pub(crate) fn groups(call: &Call) -> Answer {
    let groups = call.server.all_groups().into_iter().filter(|g| !g.group.is_empty());
    if wants_aggregated_discovery(&call.headers) {
        return Ok(aggregated(call, groups));
    }
    let groups: Vec<Value> = groups.map(|g| group_value(&g)).collect();
    Ok(page(&json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})))
}

fn group_value(group: &GroupVersions) -> Value {
    let version = |v: &String| json!({"groupVersion": format!("{}/{v}", group.group), "version": v});
    json!({
        "name": group.group,
        "versions": group.versions.iter().map(version).collect::<Vec<_>>(),
        "preferredVersion": group.versions.first().map(version),
    })
}

/// `/apis/GROUP`
pub(crate) fn group(call: &Call, name: &str) -> Answer {
    let Some(group) = call.server.all_groups().into_iter().find(|g| g.group == name && !name.is_empty()) else {
        return Ok(response::page_not_found());
    };
    let mut value = group_value(&group);
    value["kind"] = "APIGroup".into();
    value["apiVersion"] = "v1".into();
    Ok(page(&value))
}

/// `/api/v1` and `/apis/GROUP/VERSION`
pub(crate) fn version(call: &Call, group: &str, version: &str) -> Answer {
    if usage::is_served(&call.server, group, version) {
        return Ok(page(&objects::discovery()));
    }
    let table = call.server.registry.table();
    let resources: Vec<Value> =
        table.of_version(group, version).filter(|d| call.server.serves(d)).flat_map(|d| plain_resources(d)).collect();
    if resources.is_empty() {
        let known = group.is_empty() || call.server.serves_group(group);
        return if known { Err(Box::new(Status::no_such_resource())) } else { Ok(response::page_not_found()) };
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let mut list = json!({"kind": "APIResourceList", "groupVersion": group_version, "resources": resources});
    if !group.is_empty() {
        list["apiVersion"] = "v1".into();
    }
    Ok(page(&list))
}

/// A resource and its subresources as `APIResource`s.
fn plain_resources(def: &ResourceDef) -> Vec<Value> {
    let mut main = json!({
        "name": def.resource, "singularName": def.singular, "namespaced": def.namespaced, "kind": def.kind,
    });
    if !def.verbs.is_empty() {
        main["verbs"] = def.verbs.clone().into();
    }
    add_lists(&mut main, def);
    if !def.storage.version_hash.is_empty() {
        main["storageVersionHash"] = def.storage.version_hash.as_str().into();
    }
    let subs = def.subresources.iter().map(|sub| {
        let mut value = json!({
            "name": format!("{}/{}", def.resource, sub.name), "singularName": "",
            "namespaced": def.namespaced, "kind": kind_of(def, sub), "verbs": sub.verbs,
        });
        if let Some(body) = sub.body.as_ref().filter(|_| sub.foreign) {
            value["group"] = body.group.as_str().into();
            value["version"] = body.version.as_str().into();
        }
        value
    });
    std::iter::once(main).chain(subs).collect()
}

fn kind_of<'a>(def: &'a ResourceDef, sub: &'a Subresource) -> &'a str {
    sub.body.as_ref().map_or(&def.kind, |body| &body.kind)
}

fn add_lists(value: &mut Value, def: &ResourceDef) {
    for (field, list) in [("shortNames", &def.short_names), ("categories", &def.categories)] {
        if !list.is_empty() {
            value[field] = list.clone().into();
        }
    }
}

fn aggregated(call: &Call, groups: impl Iterator<Item = GroupVersions>) -> http::Response<pintle_client::Body> {
    let table = call.server.registry.table();
    let items: Vec<Value> = groups
        .map(|group| {
            let versions: Vec<Value> = group
                .versions
                .iter()
                .map(|v| {
                    if let Some(other) = call.server.aggregation.others.find(&group.group, v) {
                        return foreign_version(&other, v);
                    }
                    if group.group == objects::GROUP && v == objects::VERSION {
                        let resources = aggregated_resources(&objects::discovery());
                        return json!({"version": v, "freshness": "Current", "resources": resources});
                    }
                    let defs = table.of_version(&group.group, v).filter(|d| call.server.serves(d));
                    let resources: Vec<Value> = defs.map(|d| aggregated_resource(d)).collect();
                    json!({"version": v, "freshness": "Current", "resources": resources})
                })
                .collect();
            let mut metadata = Map::new();
            if !group.group.is_empty() {
                metadata.insert("name".into(), group.group.as_str().into());
            }
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    let list = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items,
    });
    cached(call, list.to_string())
}

/// A version that another server answers: what it said last, and whether it can be asked now.
fn foreign_version(known: &Known, version: &str) -> Value {
    let freshness = if known.is_available() { "Current" } else { "Stale" };
    let mut value = json!({"version": version, "freshness": freshness});
    let resources = known.discovery().map(|list| aggregated_resources(&list)).unwrap_or_default();
    if !resources.is_empty() {
        value["resources"] = resources.into();
    }
    value
}

/// An answer that clients may keep: they ask with its tag whether it is still so.
fn cached(call: &Call, text: String) -> http::Response<pintle_client::Body> {
    let tag = format!("\"{}\"", pintle_schema::openapi::hash(text.as_bytes()));
    let same = call.headers.get(IF_NONE_MATCH).is_some_and(|v| v.as_bytes() == tag.as_bytes());
    let mut response = match same {
        true => with_type(StatusCode::NOT_MODIFIED, AGGREGATED, ""),
        false => with_type(StatusCode::OK, AGGREGATED, text),
    };
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&tag) {
        headers.insert(ETAG, value);
    }
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public"));
    response
}

fn aggregated_resource(def: &ResourceDef) -> Value {
    // Built-in kinds say their group and version nowhere here, as upstream; custom ones do.
    let (group, version) = if def.schema.is_some() { (&*def.group, &*def.version) } else { ("", "") };
    let mut value = json!({
        "resource": def.resource,
        "responseKind": {"group": group, "version": version, "kind": def.kind},
        "scope": if def.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": def.singular,
        "verbs": def.verbs,
    });
    add_lists(&mut value, def);
    let subs: Vec<Value> = def
        .subresources
        .iter()
        .map(|sub| {
            let foreign = sub.body.as_ref().filter(|_| sub.foreign);
            let (group, version) = foreign.map_or((group, version), |b| (&*b.group, &*b.version));
            json!({
                "subresource": sub.name, "verbs": sub.verbs,
                "responseKind": {"group": group, "version": version, "kind": kind_of(def, sub)},
            })
        })
        .collect();
    if !subs.is_empty() {
        value["subresources"] = subs.into();
    }
    value
}

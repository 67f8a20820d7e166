//! Resource definitions of a CustomResourceDefinition: one for each version that is served.

use super::columns;
use super::conversion::Webhook;
use super::strategy::{CustomStrategy, Family};
use crate::server::Server;
use base64::Engine;
use pintle_kinds::def::Extract;
use pintle_kinds::{ResourceDef, ScalePaths, SelectableField, StorageDef, StrategyRef, Subresource};
use pintle_schema::Schema;
use pintle_schema::custom::Patterns;
use pintle_types::names::GroupVersionKind;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::sync::{Arc, OnceLock, Weak};

/// Upstream's order: discovery shows it.
const VERBS: [&str; 8] = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
const SUBRESOURCE_VERBS: [&str; 3] = ["get", "patch", "update"];

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(text).collect()
}

/// The definitions of all served versions.
pub(super) fn resources(server: &Weak<Server>, definition: &Value) -> Vec<ResourceDef> {
    let spec = &definition["spec"];
    let versions = spec["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let stored = versions.iter().find(|v| v["storage"] == true).map(|v| text(&v["name"])).unwrap_or_default();
    let (group, names) = (text(&spec["group"]), &spec["names"]);
    let storage = Arc::new(StorageDef {
        key_prefix: format!("/registry/{group}/{}", text(&names["plural"])),
        version_hash: version_hash(&group, &stored, &text(&names["kind"])),
        version: stored,
        kind: text(&names["kind"]),
        resource: text(&names["plural"]),
        group,
    });
    let kind = text(&names["kind"]);
    let schema = |version: &Value| {
        let (name, source) = (text(&version["name"]), &version["schema"]["openAPIV3Schema"]);
        (format!("{}/{name}", storage.group), Schema::from_crd_later(&storage.group, &name, &kind, source))
    };
    let family = Arc::new(Family {
        stored: storage.api_version(),
        schemas: versions.iter().map(schema).collect(),
        webhook: Webhook::read(server.clone(), spec),
    });
    versions.iter().filter(|v| v["served"] == true).map(|version| resource(spec, version, &storage, &family)).collect()
}

fn version_hash(group: &str, version: &str, kind: &str) -> String {
    let sum = Sha256::digest(format!("{group}/{version}/{kind}"));
    base64::engine::general_purpose::STANDARD.encode(&sum[..8])
}

fn resource(spec: &Value, version: &Value, storage: &Arc<StorageDef>, family: &Arc<Family>) -> ResourceDef {
    let names = &spec["names"];
    let (group, version_name, kind) = (text(&spec["group"]), text(&version["name"]), text(&names["kind"]));
    let handle = family.schemas.iter().find(|(name, _)| *name == format!("{group}/{version_name}"));
    let handle =
        handle.map_or_else(|| Schema::from_crd_later(&group, &version_name, &kind, &Value::Null), |h| h.1.clone());
    let subresources = subresources(version);
    let has_status = subresources.iter().any(|s| s.name == "status");
    let namespaced = spec["scope"] == "Namespaced";
    let list_kind = match text(&names["listKind"]) {
        given if given.is_empty() => format!("{kind}List"),
        given => given,
    };
    let singular = match text(&names["singular"]) {
        given if given.is_empty() => kind.to_lowercase(),
        given => given,
    };
    let strategy = CustomStrategy {
        handle: handle.clone(),
        family: family.clone(),
        patterns: Patterns::default(),
        rules: OnceLock::new(),
        has_status,
        scale: scale(version),
        columns: columns::read(version),
        deprecation: deprecation(version, &group, &version_name, &kind),
    };
    ResourceDef {
        resource: text(&names["plural"]),
        short_names: texts(&names["shortNames"]),
        categories: texts(&names["categories"]),
        list_kind,
        singular,
        namespaced,
        verbs: VERBS.to_vec(),
        scale: scale(version),
        selectable_fields: selectable(version, namespaced),
        subresources,
        storage: storage.clone(),
        definition: String::new(),
        schema: Some(handle),
        strategy: StrategyRef::Shared(Arc::new(strategy)),
        group,
        version: version_name,
        kind,
    }
}

/// What users of a deprecated version are told: the definition's own words, or upstream's.
fn deprecation(version: &Value, group: &str, name: &str, kind: &str) -> Option<String> {
    let own = version["deprecationWarning"].as_str().map(str::to_owned);
    (version["deprecated"] == true).then(|| own.unwrap_or_else(|| format!("{group}/{name} {kind} is deprecated")))
}

fn subresources(version: &Value) -> Vec<Subresource> {
    let mut list = Vec::new();
    let declared = &version["subresources"];
    let verbs = SUBRESOURCE_VERBS.to_vec();
    if declared["status"].is_object() {
        list.push(Subresource { name: "status".into(), body: None, foreign: false, verbs: verbs.clone() });
    }
    if declared["scale"].is_object() {
        let body = Some(GroupVersionKind::new("autoscaling", "v1", "Scale"));
        list.push(Subresource { name: "scale".into(), body, foreign: true, verbs });
    }
    list
}

/// Definitions write paths with a dot in front.
fn path(value: &Value) -> String {
    value.as_str().unwrap_or_default().trim_start_matches('.').to_owned()
}

fn scale(version: &Value) -> Option<ScalePaths> {
    let scale = &version["subresources"]["scale"];
    scale.is_object().then(|| ScalePaths {
        spec_replicas: path(&scale["specReplicasPath"]),
        status_replicas: path(&scale["statusReplicasPath"]),
        selector: Some(path(&scale["labelSelectorPath"])).filter(|p| !p.is_empty()),
    })
}

fn selectable(version: &Value, namespaced: bool) -> Vec<SelectableField> {
    let mut paths = vec!["metadata.name".to_owned()];
    if namespaced {
        paths.push("metadata.namespace".into());
    }
    paths.extend(version["selectableFields"].as_array().into_iter().flatten().map(|f| path(&f["jsonPath"])));
    paths.into_iter().map(|path| SelectableField { path, extract: Extract::Text }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn served_versions_become_resources() {
        let schema = json!({"openAPIV3Schema": {"type": "object"}});
        let definition = json!({"spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]},
            "versions": [
                {"name": "v1", "served": true, "storage": true, "schema": schema,
                 "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.n", "statusReplicasPath": ".status.n"}},
                 "selectableFields": [{"jsonPath": ".spec.color"}]},
                {"name": "v0", "served": false, "storage": false, "schema": schema},
            ],
        }});
        let defs = resources(&Weak::new(), &definition);
        assert_eq!(defs.len(), 1);
        let def = &defs[0];
        assert_eq!((def.singular.as_str(), def.list_kind.as_str()), ("widget", "WidgetList"));
        assert_eq!(def.subresources.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["status", "scale"]);
        assert_eq!(def.scale.as_ref().unwrap().spec_replicas, "spec.n");
        assert!(def.selectable("spec.color").is_some());
    }
}

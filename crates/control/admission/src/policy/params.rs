//! Parameters: the objects that a binding names, for each of which its policy is evaluated.

use super::World;
use super::definition::{Binding, Policy};
use pintle_kinds::ResourceDef;
use pintle_registry::{GetOptions, ListOptions};
use pintle_types::k8s::apimachinery::pkg::apis::meta::v1::LabelSelector as TypedSelector;
use pintle_types::names::GroupVersionKind;
use pintle_types::selector::LabelSelector;
use serde_json::Value;
use std::sync::Arc;

/// The definition of a policy's parameters; nothing when it has none.
pub(super) fn resource(world: &World<'_>, policy: &Policy) -> Result<Option<Arc<ResourceDef>>, String> {
    let kind = match &policy.params {
        None => return Ok(None),
        Some(kind) => kind.as_ref().map_err(String::clone)?,
    };
    let found = world.registry.table().by_kind(&kind.group, &kind.version, &kind.kind).cloned();
    let missing = || format!("failed to find resource referenced by paramKind: '{}'", shown(kind));
    found.map(Some).ok_or_else(missing)
}

/// `apps/v1, Kind=Deployment`; the core group is empty.
pub(super) fn shown(kind: &GroupVersionKind) -> String {
    format!("{}/{}, Kind={}", kind.group, kind.version, kind.kind)
}

/// The parameters of a binding; null for none: the policy is evaluated once all the same.
pub(super) async fn collect(
    world: &World<'_>,
    def: Option<&Arc<ResourceDef>>,
    binding: &Binding,
    namespace: &str,
) -> Result<Vec<Value>, String> {
    let reference = &binding.params;
    let Some(def) = def.filter(|_| reference.is_object()) else { return Ok(vec![Value::Null]) };
    let own = reference["namespace"].as_str().unwrap_or_default();
    let within = match (def.namespaced, own.is_empty(), namespace.is_empty()) {
        (false, false, _) => {
            return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".into());
        }
        (false, true, _) => "",
        (true, false, _) => own,
        (true, true, false) => namespace,
        (true, true, true) => {
            let why = "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources";
            return Err(why.into());
        }
    };
    let params = match reference["name"].as_str().filter(|name| !name.is_empty()) {
        Some(name) => named(world, def, within, name).await?,
        None if reference["selector"].is_object() => selected(world, def, within, &reference["selector"]).await?,
        None => return Err("one of name or selector must be provided".into()),
    };
    if params.is_empty() && reference["parameterNotFoundAction"] == "Deny" {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".into());
    }
    Ok(params)
}

async fn named(world: &World<'_>, def: &Arc<ResourceDef>, within: &str, name: &str) -> Result<Vec<Value>, String> {
    match world.registry.get(def, within, name, &GetOptions::default()).await {
        Ok(object) => Ok(vec![object.to_value()]),
        Err(status) if status.code == 404 => Ok(Vec::new()),
        Err(status) => Err(status.message),
    }
}

async fn selected(
    world: &World<'_>,
    def: &Arc<ResourceDef>,
    within: &str,
    selector: &Value,
) -> Result<Vec<Value>, String> {
    let typed: TypedSelector = serde_json::from_value(selector.clone()).map_err(|error| error.to_string())?;
    let options = ListOptions { labels: LabelSelector::from_typed(Some(&typed)), ..ListOptions::default() };
    let list = world.registry.list(def, within, &options).await.map_err(|status| status.message)?;
    let mut params: Vec<Value> = list.items.iter().map(|item| item.to_value()).collect();
    for param in &mut params {
        if let Some(fields) = param.as_object_mut() {
            fields.insert("apiVersion".into(), def.api_version().into());
            fields.insert("kind".into(), def.kind.as_str().into());
        }
    }
    Ok(params)
}

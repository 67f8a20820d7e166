//! The `scale` subresource: the number of replicas of anything that has one.

use super::body::{Body, apply_status, check_name, patched};
use super::create::{check_namespace, contradicts_namespace};
use super::update::check_version;
use super::{Attempt, Current, Target, manager, meta};
use crate::admission::Operation;
use crate::object::{Object, Written};
use crate::registry::Registry;
use pintle_kinds::{ResourceDef, ScalePaths, tree};
use pintle_schema::Schema;
use pintle_schema::apply::{ApplyError, Conflict, apply};
use pintle_types::Status;
use pintle_types::field::{FieldError, Path};
use pintle_types::k8s::apimachinery::pkg::apis::meta::v1::LabelSelector as TypedSelector;
use pintle_types::names::GroupKind;
use pintle_types::selector::LabelSelector;
use serde_json::{Value, json};
use std::sync::Arc;

const SCALE_VERSION: &str = "autoscaling/v1";

impl Registry {
    /// `status` is the object itself, `scale` a Scale; others are not to be read.
    pub async fn get_subresource(&self, def: &ResourceDef, ns: &str, name: &str, sub: &str) -> Result<Object, Status> {
        if def.subresource(sub).is_none_or(|sub| !sub.verbs.contains(&"get")) {
            return Err(Status::method_not_allowed());
        }
        let object = self.get(def, ns, name, &Default::default()).await?;
        match sub {
            "scale" => Ok(scale_of(def, &object.to_value())?.into()),
            _ => Ok(object),
        }
    }

    pub(super) async fn change_scale(
        &self,
        target: &Target<'_>,
        body: &Body<'_>,
        old: &Current,
    ) -> Result<Attempt<Written>, Status> {
        let shown = target.shown(&old.value);
        let old_scale = Arc::new(scale_of(target.def, &shown)?);
        let applied = self.applied_scale(target, body, &shown)?;
        let new_scale = match &applied {
            Some(object) => scale_of(target.def, object)?,
            None => self.new_scale(target, body, &old_scale)?,
        };
        let new_scale = self.admit(target, Operation::Update, new_scale, Some(&old_scale)).await?;
        check_scale(target, &new_scale)?;
        check_version(target, &new_scale, old)?;
        let paths = paths(target.def)?;
        let is_applied = applied.is_some();
        let mut new = applied.unwrap_or_else(|| shown.clone());
        set_at(&mut new, &paths.spec_replicas, new_scale["spec"]["replicas"].as_i64().unwrap_or(0).into());
        // Unlike other subresources, this one writes into the spec, and whoever scales owns the number.
        if !is_applied {
            self.record_manager_of_all_but(target, Some(&shown), &mut new, &[]);
        }
        self.judge(target, Operation::Update, Some(new_scale), Some(&old_scale)).await?;
        target.def.to_storage(&mut new);
        Ok(match self.store_changed(target, new, old).await? {
            Attempt::Stale(newer) => Attempt::Stale(newer),
            Attempt::Done(written) => {
                let scale = scale_of(target.def, &written.object.to_value())?;
                Attempt::Done(Written { object: scale.into(), created: false })
            }
        })
    }

    /// The scaled object itself, where a Scale is applied: the manager comes to own the number in it. Nothing where the
    /// body is no apply.
    fn applied_scale(&self, target: &Target<'_>, body: &Body<'_>, shown: &Value) -> Result<Option<Value>, Status> {
        let Body::Patch(crate::Patch::Apply { configuration, force }) = body else { return Ok(None) };
        let ty = target.def.type_ref().ok_or_else(|| Status::internal("the kind has no schema to apply with"))?;
        let (version, kind) = (tree::text(configuration, "apiVersion"), tree::text(configuration, "kind"));
        if (version, kind) != (SCALE_VERSION, "Scale") {
            return Err(Status::bad_request(format!("invalid object type: {version}, Kind={kind}")));
        }
        if tree::has(&configuration["metadata"], "managedFields") {
            return Err(Status::bad_request("metadata.managedFields must be nil"));
        }
        if !meta(configuration, "name").is_empty() {
            check_name(target, configuration)?;
        }
        contradicts_namespace(target, configuration)?;
        let (api_version, time) = (target.def.api_version(), self.now());
        let metadata = json!({"name": target.name});
        let mut wanted = json!({"apiVersion": api_version, "kind": target.def.kind, "metadata": metadata});
        if !target.ns.is_empty() {
            wanted["metadata"]["namespace"] = target.ns.into();
        }
        let replicas = &configuration["spec"]["replicas"];
        if !replicas.is_null() {
            set_at(&mut wanted, &paths(target.def)?.spec_replicas, replicas.clone());
        }
        let by = manager(target, &api_version, &time);
        let applied = apply(ty, Some(shown), wanted, by, *force, &[]);
        let mut object = applied.map_err(|error| apply_status(of_scale(error, &api_version)))?;
        // A number that nobody owns any more is the usual one.
        target.complete(&mut object);
        Ok(Some(object))
    }

    fn new_scale(&self, target: &Target<'_>, body: &Body<'_>, old: &Value) -> Result<Value, Status> {
        let ty = Schema::builtin().kind("autoscaling", "v1", "Scale");
        let mut new = match body {
            Body::Put(scale) => (*scale).clone(),
            Body::Patch(patch) => patched(target, ty, old, patch)?,
        };
        check_namespace(target, &mut new)?;
        let uid = meta(&new, "uid");
        if !uid.is_empty() && uid != meta(old, "uid") {
            let why =
                format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", meta(old, "uid"));
            return Err(target.conflict(&why));
        }
        Ok(new)
    }
}

/// Conflicts are told as those of the Scale, wherever the object has the number.
fn of_scale(error: ApplyError, api_version: &str) -> ApplyError {
    let ApplyError::Conflicts(conflicts) = error else { return error };
    let told = conflicts.into_iter().map(|conflict| Conflict {
        manager: conflict.manager.replace(&format!("using {api_version}"), &format!("using {SCALE_VERSION}")),
        field: ".spec.replicas".to_owned(),
    });
    ApplyError::Conflicts(told.collect())
}

fn check_scale(target: &Target<'_>, scale: &Value) -> Result<(), Status> {
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    if replicas >= 0 {
        return Ok(());
    }
    let path = Path::new("spec").child("replicas");
    let error = FieldError::invalid(&path, replicas, "must be greater than or equal to 0");
    let kind = GroupKind { group: "autoscaling".into(), kind: "Scale".into() };
    Err(Status::invalid(&kind, target.name, &vec![error]))
}

fn paths(def: &ResourceDef) -> Result<&ScalePaths, Status> {
    def.scale.as_ref().ok_or_else(Status::no_such_resource)
}

/// The Scale of an object, both with the object's identity and version.
fn scale_of(def: &ResourceDef, object: &Value) -> Result<Value, Status> {
    let paths = paths(def)?;
    let replicas = tree::at(object, &paths.spec_replicas);
    if replicas.is_null() && def.schema.is_some() {
        return Err(Status::internal(format!("the spec replicas field \".{}\" does not exist", paths.spec_replicas)));
    }
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(field) {
            metadata[field] = value.clone();
        }
    }
    let mut status = json!({"replicas": tree::at(object, &paths.status_replicas).as_i64().unwrap_or(0)});
    let selector = paths.selector.as_deref().map(|path| selector_text(tree::at(object, path))).unwrap_or_default();
    if !selector.is_empty() {
        status["selector"] = selector.into();
    }
    let mut spec = json!({});
    if let Some(replicas) = replicas.as_i64().filter(|replicas| *replicas != 0) {
        spec["replicas"] = replicas.into();
    }
    Ok(json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status}))
}

/// A selector as text, whatever form the kind keeps it in.
fn selector_text(selector: &Value) -> String {
    match selector {
        Value::String(text) => text.clone(),
        Value::Object(fields) if fields.contains_key("matchLabels") || fields.contains_key("matchExpressions") => {
            let typed: Option<TypedSelector> = serde_json::from_value(selector.clone()).ok();
            let mut selector = LabelSelector::from_typed(typed.as_ref());
            selector.requirements.sort_by(|a, b| a.key.cmp(&b.key));
            selector.to_string()
        }
        Value::Object(labels) => {
            let labels = labels.iter().filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?)));
            labels.collect::<Vec<_>>().join(",")
        }
        _ => String::new(),
    }
}

/// Sets a field at a dotted path, making the objects on the way.
fn set_at(object: &mut Value, path: &str, to: Value) {
    match path.split_once('.') {
        None => tree::set(object, path, to),
        Some((first, rest)) => {
            if let Some(child) = tree::child(object, first) {
                set_at(child, rest, to);
            }
        }
    }
}

//! POST to subresources: bindings of pods to nodes, and evictions.

use super::{ATTEMPTS, Attempt, Current, MODIFIED, Target, meta, metadata_mut};
use crate::admission::Operation;
use crate::object::Object;
use crate::registry::Registry;
use crate::request::Request;
use pintle_kinds::{ResourceDef, tree};
use pintle_types::Status;
use pintle_types::field::{ErrorList, FieldError, Path};
use pintle_types::names::GroupKind;
use serde_json::{Value, json};
use std::sync::Arc;

impl Registry {
    /// POST to a subresource of a named object: `binding`, `eviction`.
    pub async fn create_subresource(
        &self,
        by: &Request<'_>,
        def: &ResourceDef,
        ns: &str,
        name: &str,
        sub: &str,
        body: Value,
    ) -> Result<Object, Status> {
        let target = Target { by, def, ns, name, sub };
        match (&*def.storage.group, &*def.storage.resource, sub) {
            ("", "pods", "binding") => self.bind(&target, body).await?,
            ("", "pods", "eviction") => self.evict(&target, body).await?,
            _ => return Err(Status::method_not_allowed()),
        }
        Ok(json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}).into())
    }

    async fn bind(&self, target: &Target<'_>, binding: Value) -> Result<(), Status> {
        if meta(&binding, "name") != target.name {
            return Err(Status::bad_request("name in URL does not match name in Binding object"));
        }
        let binding = self.admit(target, Operation::Create, binding, None).await?;
        check_binding(target, &binding)?;
        let binding = self.judge(target, Operation::Create, Some(binding), None).await?.unwrap_or_default();
        self.reach_newest().await?;
        let mut current = self.current(target.def, target.ns, target.name)?;
        for _ in 0..ATTEMPTS {
            let pod = current.as_ref().ok_or_else(|| target.not_found())?;
            match self.try_bind(target, &binding, pod).await? {
                Attempt::Done(()) => return Ok(()),
                Attempt::Stale(newer) => current = newer,
            }
        }
        Err(target.conflict(MODIFIED))
    }

    async fn try_bind(&self, target: &Target<'_>, binding: &Value, pod: &Current) -> Result<Attempt<()>, Status> {
        let conflict = |why: String| Err(Status::conflict("", "pods/binding", target.name, &why));
        let (name, uid) = (target.name, meta(binding, "uid"));
        if !uid.is_empty() && uid != meta(&pod.value, "uid") {
            let found = meta(&pod.value, "uid");
            return conflict(format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {found}"));
        }
        if !pod.value["metadata"]["deletionTimestamp"].is_null() {
            return conflict(format!("pod {name} is being deleted, cannot be assigned to a host"));
        }
        let node = tree::text(&pod.value["spec"], "nodeName");
        if !node.is_empty() {
            return conflict(format!("pod {name} is already assigned to node {node:?}"));
        }
        if !tree::list(&pod.value["spec"], "schedulingGates").is_empty() {
            return conflict(format!("pod {name} has non-empty .spec.schedulingGates"));
        }
        let new = self.bound(binding, &pod.value);
        if target.by.dry_run {
            return Ok(Attempt::Done(()));
        }
        Ok(match self.swap(target.def, target.key(), pod.revision, &new).await? {
            Attempt::Done(_) => Attempt::Done(()),
            Attempt::Stale(newer) => Attempt::Stale(newer),
        })
    }

    /// The pod on its node.
    fn bound(&self, binding: &Value, old: &Arc<Value>) -> Value {
        let mut new = (**old).clone();
        if let Some(spec) = tree::child(&mut new, "spec") {
            tree::set(spec, "nodeName", tree::text(&binding["target"], "name"));
        }
        let given = binding["metadata"]["annotations"].as_object();
        if let Some(given) = given.filter(|given| !given.is_empty()) {
            let annotations = metadata_mut(&mut new).entry("annotations").or_insert_with(|| json!({}));
            given.iter().for_each(|(key, value)| tree::set(annotations, key, value.clone()));
        }
        let labels = binding["metadata"]["labels"].as_object();
        if let Some(given) = labels.filter(|given| !given.is_empty()) {
            let labels = metadata_mut(&mut new).entry("labels").or_insert_with(|| json!({}));
            // What the pod says of itself stays.
            given.iter().for_each(|(key, value)| tree::default_to(labels, key, value.clone()));
        }
        self.set_scheduled(&mut new);
        new
    }

    fn set_scheduled(&self, pod: &mut Value) {
        let now = self.now();
        let scheduled = |condition: &Value| condition["type"] == "PodScheduled";
        let Some(status) = tree::child(pod, "status") else { return };
        let mut conditions = tree::list(status, "conditions").to_vec();
        let generation = conditions.iter().find(|c| scheduled(c)).and_then(|c| c.get("observedGeneration")).cloned();
        let was_true = conditions.iter().any(|c| scheduled(c) && c["status"] == "True");
        if !was_true {
            conditions.retain(|condition| !scheduled(condition));
            let mut condition = json!({
                "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now,
            });
            if let Some(generation) = generation {
                condition["observedGeneration"] = generation;
            }
            conditions.push(condition);
        }
        tree::set(status, "conditions", conditions);
    }
}

fn check_binding(target: &Target<'_>, binding: &Value) -> Result<(), Status> {
    let path = Path::new("target");
    let (kind, name) = (tree::text(&binding["target"], "kind"), tree::text(&binding["target"], "name"));
    let mut errors = ErrorList::new();
    if !matches!(kind, "" | "Node") {
        errors.push(FieldError::not_supported(&path.child("kind"), kind, &["Node", "<empty>"]));
    }
    if name.is_empty() {
        errors.push(FieldError::required(&path.child("name"), ""));
    }
    if errors.is_empty() {
        return Ok(());
    }
    let kind = GroupKind { group: String::new(), kind: "Binding".into() };
    Err(Status::invalid(&kind, target.name, &errors))
}

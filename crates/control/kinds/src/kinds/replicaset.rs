//! Replica sets and replication controllers.

use super::{pod, workload};
use crate::{
    check::{Errors, number},
    column::{self, Column},
    strategy::{NameRule, Strategy},
    tree,
};
use jiff::Timestamp;
use pintle_types::field::{ErrorList, Path};
use serde_json::{Value, json};

pub struct ReplicaSet;

static COLUMNS: &[Column] = &[
    column::NAME,
    Column::new(
        "Desired",
        "integer",
        "",
        0,
        "Replicas is the number of desired pods. This is a pointer to distinguish between explicit zero and \
         unspecified. Defaults to 1. More info: \
         https://kubernetes.io/docs/concepts/workloads/controllers/replicaset",
    ),
    Column::new(
        "Current",
        "integer",
        "",
        0,
        "Replicas is the most recently observed number of non-terminating pods. More info: \
         https://kubernetes.io/docs/concepts/workloads/controllers/replicaset",
    ),
    Column::new(
        "Ready",
        "integer",
        "",
        0,
        "The number of non-terminating pods targeted by this ReplicaSet with a Ready Condition.",
    ),
    column::AGE,
    workload::CONTAINERS,
    workload::IMAGES,
    Column::new(
        "Selector",
        "string",
        "",
        1,
        "Selector is a label query over pods that should match the replica count. Label keys and values that \
         must match in order to be controlled by this replica set. It must match the pod template's labels. More \
         info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
    ),
];

impl Strategy for ReplicaSet {
    fn default(&self, _api_version: &str, object: &mut Value) {
        let Some(spec) = tree::child(object, "spec") else { return };
        tree::default_to(spec, "replicas", 1);
        if let Some(template) = tree::child(spec, "template") {
            pod::default_template(template);
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| {
            let (path, spec) = (Path::new("spec"), &object["spec"]);
            number::fields_not_negative(errors, &path, spec, &["replicas", "minReadySeconds"]);
            let empty = "empty selector is invalid for deployment";
            let selector = &spec["selector"];
            if workload::selector(errors, &path.child("selector"), selector, empty, "invalid label selector") {
                validate_pods(errors, &path.child("template"), &spec["template"], selector, "ReplicaSet");
            }
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut found = self.validate(new);
        found.extend(Errors::of(|errors| workload::selector_unchanged(errors, new, old)));
        found
    }

    fn validate_subresource_update(&self, _subresource: &str, new: &Value, _old: &Value) -> ErrorList {
        Errors::of(|errors| validate_status(errors, &new["status"]))
    }

    fn generation_fields(&self) -> &'static [&'static str] {
        &["spec"]
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        workload::warnings(new, old)
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        workload::replica_cells(object, now, workload::selector_text(&object["spec"]["selector"]))
    }
}

fn validate_pods(errors: &mut Errors, path: &Path, template: &Value, selector: &Value, kind: &str) {
    workload::labels_match(errors, path, template, selector);
    pod::validate_template(errors, path, template);
    workload::runs_for_ever(errors, path, template, kind);
}

fn validate_status(errors: &mut Errors, status: &Value) {
    const COUNTS: &[&str] =
        &["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"];
    let path = Path::new("status");
    number::fields_not_negative(errors, &path, status, COUNTS);
    let within = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
    workload::counts_within(errors, &path, status, &within, "readyReplicas");
}

pub struct ReplicationController;

static CONTROLLER_COLUMNS: &[Column] = &[
    column::NAME,
    Column::new(
        "Desired",
        "integer",
        "",
        0,
        "Replicas is the number of desired replicas. This is a pointer to distinguish between explicit zero and \
         unspecified. Defaults to 1. More info: \
         https://kubernetes.io/docs/concepts/workloads/controllers/replicationcontroller#what-is-a-replicationcontroller",
    ),
    Column::new(
        "Current",
        "integer",
        "",
        0,
        "Replicas is the most recently observed number of replicas. More info: \
         https://kubernetes.io/docs/concepts/workloads/controllers/replicationcontroller#what-is-a-replicationcontroller",
    ),
    Column::new("Ready", "integer", "", 0, "The number of ready replicas for this replication controller."),
    column::AGE,
    workload::CONTAINERS,
    workload::IMAGES,
    Column::new(
        "Selector",
        "string",
        "",
        1,
        "Selector is a label query over pods that should match the Replicas count. If Selector is empty, it is \
         defaulted to the labels present on the Pod template. Label keys and values that must match in order to \
         be controlled by this replication controller, if empty defaulted to labels on Pod template. More info: \
         https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
    ),
];

/// The rule of subdomains in the words of upstream's newer checks, which count bytes.
fn controller_name(name: &str) -> Vec<String> {
    let words = |why: String| why.replace("253 characters", "253 bytes");
    pintle_types::names::dns1123_subdomain_errors(name).into_iter().map(words).collect()
}

impl Strategy for ReplicationController {
    fn name_rule(&self) -> NameRule {
        NameRule::Custom(controller_name)
    }

    fn default(&self, _api_version: &str, object: &mut Value) {
        let labels = object["spec"]["template"]["metadata"]["labels"].clone();
        let Some(spec) = tree::child(object, "spec") else { return };
        tree::default_to(spec, "replicas", 1);
        if let Some(template) = tree::existing(spec, "template") {
            pod::default_template(template);
        }
        if tree::is_empty(&labels) {
            return;
        }
        tree::default_empty(spec, "selector", labels.clone());
        if let Some(metadata) = tree::child(object, "metadata") {
            tree::default_empty(metadata, "labels", labels);
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| {
            let (path, spec) = (Path::new("spec"), &object["spec"]);
            number::fields_not_negative(errors, &path, spec, &["minReadySeconds"]);
            if tree::is_empty(&spec["selector"]) {
                errors.required(&path.child("selector"), "");
            }
            number::fields_not_negative(errors, &path, spec, &["replicas"]);
            let at = path.child("template");
            if spec["template"].is_null() {
                return errors.required(&at, "");
            }
            let selector = json!({"matchLabels": spec["selector"]});
            validate_pods(errors, &at, &spec["template"], &selector, "ReplicationController");
        })
    }

    fn validate_subresource_update(&self, _subresource: &str, new: &Value, _old: &Value) -> ErrorList {
        Errors::of(|errors| validate_status(errors, &new["status"]))
    }

    fn orphans_by_default(&self) -> bool {
        true
    }

    fn generation_fields(&self) -> &'static [&'static str] {
        &["spec"]
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        workload::warnings(new, old)
    }

    fn columns(&self) -> &[Column] {
        CONTROLLER_COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        workload::replica_cells(object, now, pod::labels_text(&object["spec"]["selector"]))
    }
}

/// Revisions of daemon sets and stateful sets.
pub struct ControllerRevision;

static REVISION_COLUMNS: &[Column] = &[
    column::NAME,
    Column::new("Controller", "string", "", 0, "Controller of the object"),
    Column::new("Revision", "string", "", 0, "Revision indicates the revision of the state represented by Data."),
    column::AGE,
];

impl Strategy for ControllerRevision {
    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| {
            let path = Path::new("data");
            match &object["data"] {
                Value::Null => errors.required(&path, "data is mandatory"),
                Value::Object(_) => {}
                _ => errors.required(&path, "data must be a valid JSON object"),
            }
            number::fields_not_negative(errors, &Path::default(), object, &["revision"]);
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut found = self.validate(new);
        found.extend(Errors::of(|errors| errors.immutable(&Path::new("data"), &new["data"], &old["data"])));
        found
    }

    fn verbatim_field(&self) -> Option<&'static str> {
        Some("data")
    }

    fn columns(&self) -> &[Column] {
        REVISION_COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let owners = tree::list(&object["metadata"], "ownerReferences");
        let owner = owners.iter().find(|owner| tree::flag(owner, "controller")).map_or("<none>".to_owned(), |owner| {
            let group = tree::text(owner, "apiVersion").split_once('/').map_or("", |(group, _)| group);
            let kind = tree::text(owner, "kind").to_lowercase();
            let kind = if group.is_empty() { kind } else { format!("{kind}.{group}") };
            format!("{kind}/{}", tree::text(owner, "name"))
        });
        vec![workload::name(object), owner.into(), tree::int(object, "revision").into(), column::age(object, now)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replication_controller_takes_the_labels_of_its_template() {
        let mut object = json!({"metadata": {"name": "r"}, "spec": {"template": {"metadata": {"labels": {"a": "b"}}}}});
        ReplicationController.default("v1", &mut object);
        assert_eq!(object["spec"]["selector"], json!({"a": "b"}));
        assert_eq!(object["metadata"]["labels"], json!({"a": "b"}));
        assert_eq!(object["spec"]["replicas"], 1);
    }

    #[test]
    fn status_counts_fit_together() {
        let object = json!({"status": {"replicas": 1, "readyReplicas": 2}});
        let found = ReplicaSet.validate_subresource_update("status", &object, &object);
        assert_eq!(
            found[0].to_string(),
            "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas"
        );
    }

    #[test]
    fn revisions_need_an_object() {
        for (data, expected) in [
            (json!(null), "data: Required value: data is mandatory"),
            (json!([]), "data: Required value: data must be a valid JSON object"),
        ] {
            let found = ControllerRevision.validate(&json!({"data": data}));
            assert_eq!(found[0].to_string(), expected);
        }
    }
}

//! Pods, and the pod templates inside other kinds.

mod affinity;
mod amounts;
mod annotation;
mod columns;
mod container;
mod defaults;
mod gated;
mod plugin;
mod probe;
mod projection;
mod qos;
mod resize;
mod restart;
mod security;
mod spec;
mod status;
mod update;
mod volume;
mod warnings;
mod windows;

pub(crate) use defaults::{default_claim_template, default_network_volume, default_template, sync_data_source};
pub(crate) use gated::term_shown as node_term_shown;
pub(crate) use plugin::{
    Owner as VolumeOwner, cluster_initiator_fits, driver_name, validate as validate_plugin_volume,
};
pub(crate) use spec::validate_template;
pub(crate) use volume::second_name as second_volume_name;
pub(crate) use warnings::{
    of_claim_spec as claim_warnings, of_node_term as node_term_warnings, of_template as template_warnings, old_label,
};

use crate::{check::Errors, column::Column, strategy::Strategy, tree};
use jiff::Timestamp;
use pintle_types::field::{ErrorList, Path};
use serde_json::{Value, json};

/// The strategy of pods.
pub struct Pod;

impl Strategy for Pod {
    fn default(&self, _api_version: &str, pod: &mut Value) {
        defaults::default_pod(pod);
    }

    fn prepare_create(&self, pod: &mut Value) {
        let class = qos::class(&pod["spec"]);
        let mut status = json!({"phase": "Pending", "qosClass": class});
        if !tree::list(&pod["spec"], "schedulingGates").is_empty() {
            tree::set(
                &mut status,
                "conditions",
                json!([{
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "SchedulingGated",
                    "message": "Scheduling is blocked due to non-empty scheduling gates",
                }]),
            );
        }
        tree::set(pod, "status", status);
        if tree::int(&pod["spec"], "terminationGracePeriodSeconds") < 0
            && let Some(spec) = tree::child(pod, "spec")
        {
            // As if it never was possible: pods from old times may have less, new ones don't.
            tree::set(spec, "terminationGracePeriodSeconds", 1);
        }
        let labels = pod["metadata"]["labels"].clone();
        if let Some(spec) = tree::existing(pod, "spec") {
            affinity::fill_label_keys(spec, &labels);
        }
    }

    fn prepare_subresource_update(&self, subresource: &str, new: &mut Value, old: &Value) {
        match subresource {
            "status" => {
                if let Some(status) = tree::child(new, "status") {
                    tree::copy(status, &old["status"], "qosClass");
                }
            }
            "ephemeralcontainers" => update::keep_all_but_ephemeral(new, old),
            "resize" => resize::prepare(new, old),
            _ => {}
        }
    }

    fn validate(&self, pod: &Value) -> ErrorList {
        Errors::of(|errors| spec::validate_pod(errors, pod))
    }

    fn validate_request(&self, _api_version: &str, pod: &Value) -> ErrorList {
        Errors::of(|errors| spec::validate_new(errors, pod))
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut found = self.validate(new);
        found.extend(Errors::of(|errors| {
            annotation::unchanged(errors, new, old);
            annotation::validate(errors, &Path::new("metadata.annotations"), &new["metadata"], &new["spec"]);
            update::validate(errors, &new["spec"], &old["spec"]);
        }));
        found
    }

    fn validate_subresource_update(&self, subresource: &str, new: &Value, old: &Value) -> ErrorList {
        match subresource {
            "ephemeralcontainers" => {
                let mut found = self.validate(new);
                found.extend(Errors::of(|errors| update::validate_ephemeral(errors, &new["spec"], &old["spec"])));
                found
            }
            "resize" => {
                if let Some(why) = resize::refused(old) {
                    return Errors::of(|errors| errors.forbidden(&Path::default(), why));
                }
                let mut found = self.validate(new);
                found.extend(Errors::of(|errors| resize::validate(errors, new, old)));
                found
            }
            "status" => Errors::of(|errors| {
                annotation::unchanged(errors, new, old);
                annotation::validate(errors, &Path::new("metadata.annotations"), &new["metadata"], &new["spec"]);
                status::validate(errors, new, old);
            }),
            _ => ErrorList::new(),
        }
    }

    /// Nothing is said about updates: they are many, and hardly any is a person's.
    fn warnings(&self, pod: &Value, old: Option<&Value>) -> Vec<String> {
        if old.is_some() { Vec::new() } else { warnings::of(None, pod) }
    }

    fn subresource_warnings(&self, subresource: &str, pod: &Value) -> Vec<String> {
        if subresource == "status" { warnings::of_addresses(&pod["status"]) } else { Vec::new() }
    }

    fn graceful_delete(&self, pod: &Value, requested_seconds: Option<i64>) -> Option<i64> {
        let phase = tree::text(&pod["status"], "phase");
        // Nobody runs the pod (yet, or any more), so nobody would confirm that it is gone.
        if tree::text(&pod["spec"], "nodeName").is_empty() || phase == "Succeeded" || phase == "Failed" {
            return Some(0);
        }
        let own = pod["spec"].get("terminationGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(30);
        match requested_seconds.unwrap_or(own) {
            seconds if seconds < 0 => Some(1),
            seconds => Some(seconds),
        }
    }

    fn reset_fields(&self, subresource: &str) -> &'static [&'static str] {
        match subresource {
            "" => &["status"],
            "status" => &["spec", "metadata.deletionTimestamp", "metadata.ownerReferences"],
            _ => &[],
        }
    }

    fn generation_fields(&self) -> &'static [&'static str] {
        &["spec"]
    }

    fn columns(&self) -> &[Column] {
        columns::COLUMNS
    }

    fn cells(&self, pod: &Value, now: Timestamp) -> Vec<Value> {
        columns::cells(pod, now)
    }
}

/// The strategy of pod templates.
pub struct PodTemplate;

impl Strategy for PodTemplate {
    fn default(&self, _api_version: &str, object: &mut Value) {
        if let Some(template) = tree::child(object, "template") {
            default_template(template);
        }
    }
    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| validate_template(errors, &Path::new("template"), &object["template"]))
    }
    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        match old {
            Some(old) if old["template"] == new["template"] => Vec::new(),
            _ => warnings::of(Some("template"), &new["template"]),
        }
    }
    fn allow_create_on_update(&self) -> bool {
        true
    }
    fn generation_fields(&self) -> &'static [&'static str] {
        &["template"]
    }
    fn columns(&self) -> &[Column] {
        columns::TEMPLATE_COLUMNS
    }
    fn cells(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        let (names, images) = columns::containers_and_images(&object["template"]);
        let labels = columns::labels_text(&object["template"]["metadata"]["labels"]);
        vec![tree::text(&object["metadata"], "name").into(), names.into(), images.into(), labels.into()]
    }
}

pub(crate) use columns::{containers_and_images, labels_text};

#[cfg(test)]
mod tests;

//! Groups of pods that are scheduled together, and the workloads that make such groups.
//!
//! What belongs to features that are off by default (topology, preemption and devices of whole groups) is dropped, as
//! upstream drops it.

use super::workload;
use crate::{
    check::{Errors, Seen},
    column::{self, Column},
    strategy::Strategy,
    tree,
};
use jiff::Timestamp;
use pintle_types::{
    field::{ErrorList, Path},
    names,
};
use serde_json::Value;

/// Fields that only features which are off by default read.
const UNUSED: [&str; 5] =
    ["schedulingConstraints", "resourceClaims", "disruptionMode", "priorityClassName", "priority"];

static COLUMNS: &[Column] = &[column::NAME, column::AGE];

fn drop_unused(owner: &mut Value) {
    UNUSED.iter().for_each(|field| {
        tree::remove(owner, field);
    });
}

/// What was stored while the feature was on stays.
fn drop_unused_unless_kept(owner: &mut Value, old: &Value) {
    UNUSED.iter().filter(|field| !tree::has(old, field)).for_each(|field| {
        tree::remove(owner, field);
    });
}

pub struct Workload;

impl Strategy for Workload {
    fn prepare_create(&self, object: &mut Value) {
        if let Some(spec) = tree::existing(object, "spec") {
            tree::items_mut(spec, "podGroupTemplates").for_each(drop_unused);
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| {
            let (path, spec) = (Path::new("spec"), &object["spec"]);
            controller(errors, &path.child("controllerRef"), &spec["controllerRef"]);
            templates(errors, &path.child("podGroupTemplates"), tree::list(spec, "podGroupTemplates"));
        })
    }

    /// A controller may be named later, but not changed.
    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        Errors::of(|errors| {
            let (path, new, old) = (Path::new("spec"), &new["spec"], &old["spec"]);
            let at = path.child("controllerRef");
            if !tree::has(old, "controllerRef") {
                controller(errors, &at, &new["controllerRef"]);
            } else if new["controllerRef"] != old["controllerRef"] {
                errors.invalid(&at, Value::Null, crate::check::IMMUTABLE);
            }
            unchanged(errors, &path, new, old, &["podGroupTemplates"]);
        })
    }

    fn generation_fields(&self) -> &'static [&'static str] {
        &["spec"]
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![workload::name(object), column::age(object, now)]
    }
}

/// These messages show no value.
fn unchanged(errors: &mut Errors, path: &Path, new: &Value, old: &Value, fields: &[&str]) {
    for field in fields.iter().filter(|field| tree::at(new, field) != tree::at(old, field)) {
        errors.invalid(&path.child(field), Value::Null, crate::check::IMMUTABLE);
    }
}

fn controller(errors: &mut Errors, at: &Path, reference: &Value) {
    if reference.is_null() {
        return;
    }
    let group = tree::text(reference, "apiGroup");
    if !group.is_empty() {
        errors.invalid_for(&at.child("apiGroup"), group, names::dns1123_subdomain_errors(group));
    }
    for field in ["kind", "name"] {
        let text = tree::text(reference, field);
        if errors.needs(&at.child(field), text, "") {
            errors.invalid_for(&at.child(field), text, names::path_segment_errors(text, false));
        }
    }
}

fn templates(errors: &mut Errors, path: &Path, templates: &[Value]) {
    const MOST: usize = 8;
    if templates.is_empty() {
        return errors.required(path, "must have at least one item");
    }
    if templates.len() > MOST {
        return errors.too_many(path, templates.len(), MOST);
    }
    let mut seen = Seen::default();
    for (i, template) in templates.iter().enumerate() {
        let (at, own) = (path.index(i), tree::text(template, "name"));
        if errors.needs(&at.child("name"), own, "") {
            errors.invalid_for(&at.child("name"), own, names::dns1123_label_errors(own));
        }
        if !seen.first(own) {
            errors.duplicate(&at, template.clone());
        }
        policy(errors, &at.child("schedulingPolicy"), &template["schedulingPolicy"]);
    }
}

/// Pods one by one, or all at once: one of the two.
fn policy(errors: &mut Errors, at: &Path, policy: &Value) {
    match (tree::has(policy, "basic"), tree::has(policy, "gang")) {
        (false, false) => errors.invalid(at, "", "must specify one of: `basic`, `gang`"),
        (true, true) => errors.invalid(at, "{basic, gang}", "must specify exactly one of: `basic`, `gang`"),
        (true, false) => {}
        (false, true) => {
            let (count, place) = (tree::int(&policy["gang"], "minCount"), at.child("gang").child("minCount"));
            match count {
                0 => errors.required(&place, ""),
                i64::MIN..0 => errors.invalid(&place, count, "must be greater than or equal to 1"),
                _ => {}
            }
        }
    }
}

pub struct PodGroup;

impl Strategy for PodGroup {
    fn prepare_create(&self, object: &mut Value) {
        if let Some(spec) = tree::existing(object, "spec") {
            drop_unused(spec);
        }
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        if let Some(spec) = tree::existing(new, "spec") {
            drop_unused_unless_kept(spec, &old["spec"]);
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| {
            let (path, spec) = (Path::new("spec"), &object["spec"]);
            template_reference(errors, &path.child("podGroupTemplateRef"), &spec["podGroupTemplateRef"]);
            policy(errors, &path.child("schedulingPolicy"), &spec["schedulingPolicy"]);
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        const STAY: &[&str] = &["podGroupTemplateRef", "schedulingPolicy", "schedulingConstraints", "resourceClaims"];
        Errors::of(|errors| unchanged(errors, &Path::new("spec"), &new["spec"], &old["spec"], STAY))
    }

    fn validate_subresource_update(&self, _subresource: &str, new: &Value, _old: &Value) -> ErrorList {
        Errors::of(|errors| {
            let conditions = tree::list(&new["status"], "conditions");
            crate::check::condition::all(errors, &Path::new("status.conditions"), conditions);
        })
    }

    fn generation_fields(&self) -> &'static [&'static str] {
        &["spec"]
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![workload::name(object), column::age(object, now)]
    }
}

fn template_reference(errors: &mut Errors, at: &Path, reference: &Value) {
    if reference.is_null() {
        return;
    }
    let own = &reference["workload"];
    if own.is_null() {
        return errors.invalid(at, "", "must specify one of: `workload`");
    }
    let at = at.child("workload");
    for (field, rule) in [
        ("podGroupTemplateName", names::dns1123_label_errors as fn(&str) -> Vec<String>),
        ("workloadName", names::dns1123_subdomain_errors),
    ] {
        let text = tree::text(own, field);
        if errors.needs(&at.child(field), text, "") {
            errors.invalid_for(&at.child(field), text, rule(text));
        }
    }
}

//! Stateful sets: named pods, each with claims of its own.

use super::{claim, pod, workload};
use crate::{
    check::{Errors, name, number},
    column::{self, Column},
    strategy::{NameRule, Strategy},
    tree,
};
use jiff::Timestamp;
use pintle_types::{
    field::{ErrorList, Path},
    names,
};
use serde_json::Value;

pub struct StatefulSet;

static COLUMNS: &[Column] = &[
    column::NAME,
    Column::new("Ready", "string", "", 0, "Number of the pod with ready state"),
    column::AGE,
    workload::CONTAINERS,
    workload::IMAGES,
];

impl Strategy for StatefulSet {
    /// The name is a label of the host names of its pods.
    fn name_rule(&self) -> NameRule {
        NameRule::Label
    }

    fn default(&self, _api_version: &str, object: &mut Value) {
        let Some(spec) = tree::child(object, "spec") else { return };
        tree::default_empty(spec, "podManagementPolicy", "OrderedReady");
        tree::default_to(spec, "replicas", 1);
        tree::default_to(spec, "revisionHistoryLimit", 10);
        if let Some(strategy) = tree::child(spec, "updateStrategy") {
            if tree::text(strategy, "type").is_empty() {
                tree::set(strategy, "type", "RollingUpdate");
                tree::child(strategy, "rollingUpdate");
            }
            if strategy["type"] == "RollingUpdate"
                && let Some(rolling) = tree::existing(strategy, "rollingUpdate")
            {
                tree::default_to(rolling, "partition", 0);
            }
        }
        if let Some(policy) = tree::child(spec, "persistentVolumeClaimRetentionPolicy") {
            tree::default_empty(policy, "whenDeleted", "Retain");
            tree::default_empty(policy, "whenScaled", "Retain");
        }
        if let Some(template) = tree::child(spec, "template") {
            pod::default_template(template);
        }
        for template in tree::items_mut(spec, "volumeClaimTemplates") {
            tree::set(template, "apiVersion", "v1");
            tree::set(template, "kind", "PersistentVolumeClaim");
            pod::default_claim_template(template);
            if let Some(status) = tree::child(template, "status") {
                tree::default_empty(status, "phase", "Pending");
            }
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| validate_spec(errors, &Path::new("spec"), &object["spec"]))
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut found = self.validate(new);
        found.extend(Errors::of(|errors| unchanged(errors, &new["spec"], &old["spec"])));
        found
    }

    fn validate_subresource_update(&self, _subresource: &str, new: &Value, old: &Value) -> ErrorList {
        const COUNTS: &[&str] =
            &["replicas", "readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
        Errors::of(|errors| {
            let (path, status) = (Path::new("status"), &new["status"]);
            number::fields_not_negative(errors, &path, status, COUNTS);
            number::fields_not_negative(errors, &path, status, &["observedGeneration", "collisionCount"]);
            workload::counts_within(errors, &path, status, &COUNTS[1..], "status.readyReplicas");
            workload::collisions_only_grow(errors, new, old);
        })
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        let mut warnings = pod::template_warnings("spec.template", &new["spec"]["template"], new, old);
        for (i, template) in tree::list(&new["spec"], "volumeClaimTemplates").iter().enumerate() {
            // Upstream writes this one field in the way of its struct.
            let path = Path::new("spec.volumeClaimTemplates").index(i).child("Spec");
            warnings.extend(pod::claim_warnings(&path, &template["spec"]));
        }
        if tree::int(&new["spec"], "revisionHistoryLimit") < 0 {
            let words = "a negative value retains all historical revisions; a value >= 0 is recommended";
            warnings.push(format!("spec.revisionHistoryLimit: {words}"));
        }
        warnings
    }

    fn generation_fields(&self) -> &'static [&'static str] {
        &["spec"]
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let ready = format!("{}/{}", tree::int(status, "readyReplicas"), tree::int(spec, "replicas"));
        let mut cells = vec![workload::name(object), ready.into(), column::age(object, now)];
        cells.extend(workload::wide_cells(&spec["template"], None));
        cells
    }
}

fn validate_spec(errors: &mut Errors, path: &Path, spec: &Value) {
    let service = tree::text(spec, "serviceName");
    if !service.is_empty() {
        errors.invalid_for(&path.child("serviceName"), service, names::dns1123_label_errors(service));
    }
    let policy = tree::text(spec, "podManagementPolicy");
    match policy {
        "OrderedReady" | "Parallel" => {}
        "" => errors.required(&path.child("podManagementPolicy"), ""),
        _ => errors.invalid(&path.child("podManagementPolicy"), policy, "must be 'OrderedReady' or 'Parallel'"),
    }
    update_strategy(errors, &path.child("updateStrategy"), &spec["updateStrategy"]);
    for field in ["whenDeleted", "whenScaled"] {
        let at = path.child("persistentVolumeClaimRetentionPolicy").child(field);
        errors.one_of(&at, tree::text(&spec["persistentVolumeClaimRetentionPolicy"], field), &["Retain", "Delete"]);
    }
    number::fields_not_negative(errors, path, spec, &["replicas", "minReadySeconds"]);
    number::fields_not_negative(errors, &path.child("ordinals"), &spec["ordinals"], &["start"]);
    for (i, template) in tree::list(spec, "volumeClaimTemplates").iter().enumerate() {
        claim::validate_spec(errors, &path.child("volumeClaimTemplates").index(i).child("spec"), &template["spec"]);
    }
    let at = path.child("template");
    let selector = &spec["selector"];
    if workload::selector(errors, &path.child("selector"), selector, "empty selector is invalid for statefulset", "") {
        workload::labels_match(errors, &at, &spec["template"], selector);
        // Upstream checks the labels here and once more with the whole template.
        name::labels(errors, &at.child("labels"), &spec["template"]["metadata"], "labels");
        pod::validate_template(errors, &at, &with_claims(spec));
    }
    workload::runs_for_ever(errors, &at, &spec["template"], "StatefulSet");
}

/// The template with a volume for each claim, as its pods will have them.
fn with_claims(spec: &Value) -> Value {
    let mut template = spec["template"].clone();
    let claims = tree::list(spec, "volumeClaimTemplates");
    let mut claimed: Vec<&str> = claims.iter().map(|claim| tree::text(&claim["metadata"], "name")).collect();
    claimed.sort_unstable();
    claimed.dedup();
    let mut volumes: Vec<Value> = claimed
        .iter()
        .map(|name| serde_json::json!({"name": name, "persistentVolumeClaim": {"claimName": name}}))
        .collect();
    let own = tree::list(&template["spec"], "volumes").iter();
    volumes.extend(own.filter(|volume| !claimed.contains(&tree::text(volume, "name"))).cloned());
    if let Some(spec) = tree::existing(&mut template, "spec") {
        tree::set(spec, "volumes", volumes);
    }
    template
}

fn update_strategy(errors: &mut Errors, path: &Path, strategy: &Value) {
    let rolling = &strategy["rollingUpdate"];
    match tree::text(strategy, "type") {
        "" => errors.required(path, ""),
        "OnDelete" if !rolling.is_null() => {
            errors.invalid(
                &path.child("rollingUpdate"),
                rolling.clone(),
                "only allowed for updateStrategy 'RollingUpdate'",
            );
        }
        "OnDelete" => {}
        "RollingUpdate" => {
            let at = path.child("rollingUpdate");
            number::fields_not_negative(errors, &at, rolling, &["partition"]);
            let (at, unavailable) = (at.child("maxUnavailable"), &rolling["maxUnavailable"]);
            number::count_or_percent(errors, &at, unavailable);
            if !unavailable.is_null() && number::is_zero(unavailable) {
                errors.invalid(&at, unavailable.clone(), "cannot be 0");
            }
            number::not_over_100(errors, &at, unavailable);
        }
        _ => errors.invalid(path, strategy.clone(), "must be 'RollingUpdate' or 'OnDelete'"),
    }
}

fn unchanged(errors: &mut Errors, new: &Value, old: &Value) {
    const MAY_CHANGE: &[&str] = &[
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    ];
    let mut kept = new.clone();
    MAY_CHANGE.iter().for_each(|field| tree::copy(&mut kept, old, field));
    if kept != *old {
        let words = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                     'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                     'minReadySeconds' are forbidden";
        errors.forbidden(&Path::new("spec"), words);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set() -> Value {
        let mut set = json!({"metadata": {"name": "s"}, "spec": {
            "serviceName": "s", "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
                "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
            }}],
        }});
        StatefulSet.default("apps/v1", &mut set);
        set
    }

    #[test]
    fn defaults() {
        let set = set();
        assert_eq!(set["spec"]["updateStrategy"], json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}));
        assert_eq!(set["spec"]["volumeClaimTemplates"][0]["spec"]["volumeMode"], "Filesystem");
        assert!(StatefulSet.validate(&set).is_empty(), "{:?}", StatefulSet.validate(&set));
    }

    #[test]
    fn only_some_fields_change() {
        let old = set();
        let mut new = old.clone();
        new["spec"]["replicas"] = json!(5);
        assert!(StatefulSet.validate_update(&new, &old).is_empty());
        new["spec"]["serviceName"] = json!("t");
        assert_eq!(StatefulSet.validate_update(&new, &old).len(), 1);
    }
}

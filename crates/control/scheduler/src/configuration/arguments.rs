//! The arguments of plugins (`pluginConfig`), with upstream's defaults and bounds.

use super::fields::Fields;
use crate::profile::{DefaultConstraint, Profile, Strategy};
use crate::rules::NodeRules;
use pintle_types::k8s::api::core::v1::NodeAffinity;
use pintle_types::names::check_label_key;
use serde::Deserialize;
use std::time::Duration;

const STRATEGIES: [&str; 3] = ["LeastAllocated", "MostAllocated", "RequestedToCapacityRatio"];

/// Reads `pluginConfig` of a profile.
pub(super) fn read(fields: &mut Fields<'_, '_>, profile: &mut Profile) {
    let mut seen: Vec<String> = Vec::new();
    fields.each("pluginConfig", |_, fields| {
        let name = fields.text("name").unwrap_or_default().to_owned();
        if seen.contains(&name) {
            fields.duplicate("", &name);
        }
        let kind = fields.peek("/args/kind");
        let wanted = format!("{name}Args");
        if kind.as_str().is_some_and(|kind| kind != wanted) {
            fields.invalid("args", "has to match plugin args");
        }
        let read: fn(&mut Fields<'_, '_>, &mut Profile) = match name.as_str() {
            "NodeResourcesFit" => fit,
            "NodeResourcesBalancedAllocation" => balanced,
            "InterPodAffinity" => pod_affinity,
            "PodTopologySpread" => spread,
            "NodeAffinity" => node_affinity,
            "DefaultPreemption" => preemption,
            "VolumeBinding" => volume_binding,
            // Upstream leaves the arguments of plugins that it does not know to them.
            _ => {
                fields.skip("args");
                return;
            }
        };
        seen.push(name);
        fields.object("args", |fields| {
            fields.skip("apiVersion");
            fields.skip("kind");
            read(fields, profile);
        });
    });
}

fn fit(fields: &mut Fields<'_, '_>, profile: &mut Profile) {
    profile.ignored_resources = names(fields, "ignoredResources", false);
    profile.ignored_groups = names(fields, "ignoredResourceGroups", true);
    fields.object("scoringStrategy", |fields| {
        let strategy = fields.text("type").unwrap_or_default().to_owned();
        if !STRATEGIES.contains(&strategy.as_str()) {
            fields.unsupported("type", &strategy, &STRATEGIES);
        }
        let resources = resources(fields, |fields, name, weight| {
            if !(1..=100).contains(&weight) {
                fields.invalid("weight", &format!("resource weight of {name} not in valid range (0, 100]"));
            }
        });
        if !resources.is_empty() {
            profile.resources = resources;
        }
        let mut points = Vec::new();
        let shaped = fields.object("requestedToCapacityRatio", |fields| points = shape(fields));
        let by_ratio = strategy == STRATEGIES[2];
        if by_ratio && !shaped {
            fields.required("requestedToCapacityRatio", "must be specified when type is RequestedToCapacityRatio");
        } else if shaped && !by_ratio {
            fields.forbidden("requestedToCapacityRatio", "must be nil when type is not RequestedToCapacityRatio");
        }
        profile.strategy = match strategy.as_str() {
            "MostAllocated" => Strategy::MostAllocated,
            "RequestedToCapacityRatio" => Strategy::RequestedToCapacityRatio(points),
            _ => Strategy::LeastAllocated,
        };
    });
}

fn names(fields: &mut Fields<'_, '_>, list: &'static str, groups: bool) -> Vec<String> {
    let names: Vec<String> = fields.texts(list).into_iter().map(str::to_owned).collect();
    for (i, name) in names.iter().enumerate() {
        let path = format!("{list}[{i}]");
        if groups && name.contains('/') {
            fields.at(&path).invalid_here(name, "resource group name can't contain '/'");
        }
        if let Err(why) = check_label_key(name) {
            fields.at(&path).invalid_here(name, &why);
        }
    }
    names
}

/// Resources with weights; a weight that is not named is 1.
fn resources(fields: &mut Fields<'_, '_>, check: impl Fn(&mut Fields<'_, '_>, &str, i64)) -> Vec<(String, i64)> {
    let mut out = Vec::new();
    fields.each("resources", |_, fields| {
        let name = fields.text("name").unwrap_or_default().to_owned();
        let weight = fields.integer("weight").filter(|weight| *weight != 0).unwrap_or(1);
        check(fields, &name, weight);
        out.push((name, weight));
    });
    out
}

/// Points of a line; scores are given of 10 and kept of 100.
fn shape(fields: &mut Fields<'_, '_>) -> Vec<(i64, i64)> {
    let mut points: Vec<(i64, i64)> = Vec::new();
    let mut sorted = true;
    fields.each("shape", |_, fields| {
        let (utilization, score) = (fields.integer("utilization").unwrap_or(0), fields.integer("score").unwrap_or(0));
        if sorted && points.last().is_some_and(|(before, _)| *before >= utilization) {
            fields.invalid("utilization", "values must be sorted in increasing order");
            sorted = false;
        }
        if !(0..=100).contains(&utilization) {
            fields.invalid("utilization", "not in valid range [0, 100]");
        }
        if !(0..=10).contains(&score) {
            fields.invalid("score", "not in valid range [0, 10]");
        }
        points.push((utilization, score.saturating_mul(10)));
    });
    if points.is_empty() {
        fields.required("shape", "at least one point must be specified");
    }
    points
}

fn balanced(fields: &mut Fields<'_, '_>, profile: &mut Profile) {
    let resources = resources(fields, |fields, _, weight| {
        if weight != 1 {
            fields.invalid("weight", "must be 1");
        }
    });
    for (i, (name, _)) in resources.iter().enumerate() {
        if resources[..i].iter().any(|(other, _)| other == name) {
            fields.at(&format!("resources[{i}]")).duplicate("name", name);
        }
    }
    if !resources.is_empty() {
        profile.balanced = resources.into_iter().map(|(name, _)| name).collect();
    }
}

fn pod_affinity(fields: &mut Fields<'_, '_>, profile: &mut Profile) {
    if let Some(weight) = fields.integer("hardPodAffinityWeight") {
        if !(0..=100).contains(&weight) {
            fields.invalid("hardPodAffinityWeight", "not in valid range [0, 100]");
        }
        profile.required_affinity_weight = weight;
    }
    profile.ignores_preferences_of_others = fields.flag("ignorePreferredTermsOfExistingPods");
}

fn spread(fields: &mut Fields<'_, '_>, profile: &mut Profile) {
    let kind = fields.text("defaultingType").filter(|kind| !kind.is_empty()).unwrap_or("System").to_owned();
    let count = fields.count("defaultConstraints").unwrap_or(0);
    if kind != "System" && kind != "List" {
        fields.unsupported("defaultingType", &kind, &["System", "List"]);
    } else if kind == "System" && count > 0 {
        fields.at("defaultingType").invalid_here(&kind, "when .defaultConstraints are not empty");
    }
    let mut constraints: Vec<DefaultConstraint> = Vec::new();
    fields.each("defaultConstraints", |_, fields| {
        let constraint = constraint(fields);
        if constraints.iter().any(|other| other.key == constraint.key && other.hard == constraint.hard) {
            let when = if constraint.hard { "DoNotSchedule" } else { "ScheduleAnyway" };
            fields.duplicate("", &format!("{{{}, {when}}}", constraint.key));
        }
        constraints.push(constraint);
    });
    profile.spread = (kind == "List").then_some(constraints);
}

fn constraint(fields: &mut Fields<'_, '_>) -> DefaultConstraint {
    let max_skew = fields.integer("maxSkew").unwrap_or(0);
    if max_skew <= 0 {
        fields.invalid("maxSkew", "not in valid range (0, inf)");
    }
    let key = fields.text("topologyKey").unwrap_or_default().to_owned();
    match check_label_key(&key) {
        _ if key.is_empty() => fields.required("topologyKey", "can not be empty"),
        Err(why) => fields.invalid("topologyKey", &why),
        Ok(()) => {}
    }
    let when = fields.text("whenUnsatisfiable").unwrap_or_default().to_owned();
    match when.as_str() {
        "" => fields.required("whenUnsatisfiable", "can not be empty"),
        "DoNotSchedule" | "ScheduleAnyway" => {}
        other => fields.unsupported("whenUnsatisfiable", other, &["DoNotSchedule", "ScheduleAnyway"]),
    }
    if fields.raw("labelSelector").is_some() {
        fields.forbidden("labelSelector", "constraint must not define a selector, as they deduced for each pod");
    }
    fields.skip("matchLabelKeys");
    DefaultConstraint {
        key,
        max_skew,
        min_domains: fields.integer("minDomains").unwrap_or(1),
        hard: when == "DoNotSchedule",
        honor_affinity: fields.text("nodeAffinityPolicy") != Some("Ignore"),
        honor_taints: fields.text("nodeTaintsPolicy") == Some("Honor"),
    }
}

fn node_affinity(fields: &mut Fields<'_, '_>, profile: &mut Profile) {
    let Some(value) = fields.raw("addedAffinity") else { return };
    match NodeAffinity::deserialize(value) {
        Ok(affinity) => profile.added_affinity = Some(NodeRules::new(&affinity)),
        Err(error) => fields.invalid("addedAffinity", &error.to_string()),
    }
}

fn preemption(fields: &mut Fields<'_, '_>, profile: &mut Profile) {
    let percent = fields.integer("minCandidateNodesPercentage").unwrap_or(10);
    let absolute = fields.integer("minCandidateNodesAbsolute").unwrap_or(100);
    if !(0..=100).contains(&percent) {
        fields.invalid("minCandidateNodesPercentage", "not in valid range [0, 100]");
    }
    if absolute < 0 {
        fields.invalid("minCandidateNodesAbsolute", "not in valid range [0, inf)");
    }
    if percent == 0 && absolute == 0 {
        let why = "cannot be zero at the same time as";
        fields.invalid("minCandidateNodesPercentage", &format!("{why} minCandidateNodesAbsolute"));
        fields.invalid("minCandidateNodesAbsolute", &format!("{why} minCandidateNodesPercentage"));
    }
    profile.min_candidates_percent = usize::try_from(percent).unwrap_or(10);
    profile.min_candidates = usize::try_from(absolute).unwrap_or(100);
}

fn volume_binding(fields: &mut Fields<'_, '_>, profile: &mut Profile) {
    if let Some(seconds) = fields.integer("bindTimeoutSeconds") {
        match u64::try_from(seconds) {
            Ok(seconds) => profile.bind_timeout = Duration::from_secs(seconds),
            Err(_) => {
                fields.invalid("bindTimeoutSeconds", "invalid BindTimeoutSeconds, should not be a negative value")
            }
        }
    }
    if fields.raw("shape").is_some() {
        let why = "unexpected field `shape`, remove it or turn on the feature gate StorageCapacityScoring";
        fields.invalid("shape", why);
    }
}

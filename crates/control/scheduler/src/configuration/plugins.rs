//! Which plugins a profile runs at which extension point: upstream's `multiPoint`, overrides and `*`.

use super::fields::Fields;
use crate::filter::{Plugin, Plugins};
use crate::profile::{Profile, SCORERS, Scorer};

/// Extension points by the names of their fields, and by the names of upstream's interfaces.
const POINTS: [(&str, &str); 12] = [
    ("preEnqueue", "PreEnqueuePlugin"),
    ("queueSort", "QueueSortPlugin"),
    ("preFilter", "PreFilterPlugin"),
    ("filter", "FilterPlugin"),
    ("postFilter", "PostFilterPlugin"),
    ("preScore", "PreScorePlugin"),
    ("score", "ScorePlugin"),
    ("reserve", "ReservePlugin"),
    ("permit", "PermitPlugin"),
    ("preBind", "PreBindPlugin"),
    ("bind", "BindPlugin"),
    ("postBind", "PostBindPlugin"),
];

/// Every plugin with the points that it extends and the weight that it has by default, in upstream's order.
const KNOWN: [(&str, &[&str], i64); 19] = [
    ("SchedulingGates", &["preEnqueue"], 0),
    ("PrioritySort", &["queueSort"], 0),
    ("NodeUnschedulable", &["filter"], 0),
    ("NodeName", &["filter"], 0),
    ("TaintToleration", &["filter", "preScore", "score"], 3),
    ("NodeAffinity", &["preFilter", "filter", "preScore", "score"], 2),
    ("NodePorts", &["preFilter", "filter"], 0),
    ("NodeResourcesFit", &["preFilter", "filter", "preScore", "score"], 1),
    ("VolumeRestrictions", &["preFilter", "filter"], 0),
    ("NodeVolumeLimits", &["preFilter", "filter"], 0),
    ("VolumeBinding", &["preFilter", "filter", "reserve", "preBind", "preScore", "score"], 0),
    ("VolumeZone", &["preFilter", "filter"], 0),
    ("PodTopologySpread", &["preFilter", "filter", "preScore", "score"], 2),
    ("InterPodAffinity", &["preFilter", "filter", "preScore", "score"], 2),
    ("DynamicResources", &["preEnqueue", "preFilter", "filter", "postFilter", "reserve", "preBind"], 0),
    ("DefaultPreemption", &["preEnqueue", "postFilter"], 0),
    ("NodeResourcesBalancedAllocation", &["preScore", "score"], 1),
    ("ImageLocality", &["score"], 1),
    ("DefaultBinder", &["bind"], 0),
];

const ALL: &str = "*";

#[derive(Clone, Default)]
struct Set {
    enabled: Vec<(String, i64)>,
    disabled: Vec<String>,
}

impl Set {
    fn read(fields: &mut Fields<'_, '_>, name: &'static str) -> Self {
        let mut set = Self::default();
        fields.object(name, |fields| {
            let plugin = |fields: &mut Fields<'_, '_>| {
                let weight = fields.integer("weight").unwrap_or(0);
                let name = fields.text("name").unwrap_or_default().to_owned();
                if name.is_empty() {
                    fields.required("name", "");
                }
                (name, weight)
            };
            fields.each("enabled", |_, fields| set.enabled.push(plugin(fields)));
            fields.each("disabled", |_, fields| set.disabled.push(plugin(fields).0));
        });
        set
    }

    fn disables(&self, name: &str) -> bool {
        self.disabled.iter().any(|disabled| disabled == name || disabled == ALL)
    }
}

fn known(name: &str) -> Option<&'static (&'static str, &'static [&'static str], i64)> {
    KNOWN.iter().find(|(known, ..)| *known == name)
}

/// Reads the profile's plugins and takes what they come to over. The error is that of upstream's framework.
pub(super) fn read(fields: &mut Fields<'_, '_>, profile: &mut Profile) -> Result<(), String> {
    let mut sets: Vec<Set> = vec![Set::default(); POINTS.len()];
    let mut everywhere = Set::default();
    let asked = fields.object("plugins", |fields| {
        everywhere = Set::read(fields, "multiPoint");
        for (set, (point, _)) in sets.iter_mut().zip(POINTS) {
            *set = Set::read(fields, point);
        }
    });
    if !asked {
        return Ok(());
    }
    let everywhere = merged(&everywhere);
    let mut at: Vec<Vec<String>> = Vec::new();
    for (set, (point, interface)) in sets.iter().zip(POINTS) {
        at.push(expanded(set, &everywhere, point, interface)?);
    }
    let of = |point: &str| POINTS.iter().zip(&at).find(|((name, _), _)| *name == point).map_or(&[][..], |(_, l)| l);
    let has = |point: &str, name: &str| of(point).iter().any(|plugin| plugin == name);
    if of("queueSort").len() != 1 {
        let (name, count) = (&profile.name, of("queueSort").len());
        return Err(format!(
            "only one queue sort plugin required for profile with scheduler name {name:?}, but got {count}"
        ));
    }
    if of("bind").is_empty() {
        let name = &profile.name;
        return Err(format!("at least one bind plugin is needed for profile with scheduler name {name:?}"));
    }
    profile.gates = has("preEnqueue", "SchedulingGates");
    profile.waits_for_claims = has("preEnqueue", "DynamicResources");
    profile.preempts = has("postFilter", "DefaultPreemption");
    profile.filters = Plugins::default();
    for plugin in Plugin::ALL.into_iter().filter(|plugin| has("filter", plugin.name())) {
        profile.filters.insert(plugin);
    }
    let score = &sets[6].enabled;
    profile.weights = weights(|name| has("score", name).then(|| weight(name, score, &everywhere)));
    Ok(())
}

/// The first that names a weight counts; naming none is 1.
fn weight(name: &str, score: &[(String, i64)], everywhere: &[(String, i64)]) -> i64 {
    let named = score.iter().chain(everywhere).find(|(plugin, _)| plugin == name);
    named.map_or(1, |(_, weight)| (*weight).max(1))
}

fn weights(of: impl Fn(&str) -> Option<i64>) -> [i64; SCORERS] {
    let mut weights = [0; SCORERS];
    for scorer in Scorer::ALL {
        weights[scorer as usize] = of(scorer.name()).unwrap_or(0);
    }
    weights
}

/// The default plugins with what is said of all points: left out, weighed otherwise, or others added.
fn merged(custom: &Set) -> Vec<(String, i64)> {
    let mut out: Vec<(String, i64)> = Vec::new();
    let mut replaced: Vec<&str> = Vec::new();
    for (name, _, weight) in KNOWN.iter().filter(|(name, ..)| !custom.disables(name)) {
        let own = custom.enabled.iter().find(|(enabled, _)| enabled == name);
        replaced.extend(own.map(|_| *name));
        out.push(((*name).to_owned(), own.map_or(*weight, |(_, weight)| *weight)));
    }
    // The first of a name replaces; what is said again is an error, which is found where it is expanded.
    for (name, weight) in &custom.enabled {
        match replaced.iter().position(|known| known == name) {
            Some(first) => drop(replaced.swap_remove(first)),
            None => out.push((name.clone(), *weight)),
        }
    }
    out
}

/// What runs at one point, in order.
fn expanded(set: &Set, everywhere: &[(String, i64)], point: &str, interface: &str) -> Result<Vec<String>, String> {
    let mut out: Vec<String> = Vec::new();
    let mut add = |name: &str| {
        if out.iter().any(|there| there == name) {
            return Err(format!("plugin {name:?} already registered as {interface:?}"));
        }
        out.push(name.to_owned());
        Ok(())
    };
    for (name, _) in &set.enabled {
        check_known(name, interface)?;
        if !known(name).is_some_and(|(_, points, _)| points.contains(&point)) {
            return Err(format!("plugin {name:?} does not extend {interface} plugin"));
        }
        add(name)?;
    }
    for (name, _) in everywhere {
        check_known(name, interface)?;
        let extends = known(name).is_some_and(|(_, points, _)| points.contains(&point));
        let overridden = set.enabled.iter().any(|(enabled, _)| enabled == name);
        if extends && !overridden && !set.disables(name) {
            add(name)?;
        }
    }
    Ok(out)
}

fn check_known(name: &str, interface: &str) -> Result<(), String> {
    known(name).map(drop).ok_or_else(|| format!("{interface} {name:?} does not exist"))
}

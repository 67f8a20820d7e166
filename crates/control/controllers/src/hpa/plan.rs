//! How many pods there should be, for what the present ones use.
//!
//! Source: "Algorithm details" of the documentation of horizontal pod autoscaling; upstream's `replica_calculator.go`.

use super::settings::Youth;
use crate::pods;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{Container, Pod, ResourceRequirements};
use pintle_types::quantity::Quantity;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What a pod uses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    /// In thousandths.
    pub value: i64,
    /// Milliseconds since 1970.
    pub at: i64,
    /// The time that it was measured over, in milliseconds.
    pub window: i64,
}

/// By the pod's name.
pub type Readings = BTreeMap<String, Reading>;

/// How far what is used may be from what was asked for without anything being done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    pub down: f64,
    pub up: f64,
}

impl Tolerance {
    fn covers(self, ratio: f64) -> bool {
        (1.0 - self.down..=1.0 + self.up).contains(&ratio)
    }
}

/// What is known when a number is asked for.
pub struct Present<'a> {
    /// As many as the target wants now.
    pub replicas: i32,
    /// Those that the target's selector finds.
    pub pods: &'a [Arc<Pod>],
    pub tolerance: Tolerance,
    /// Which pods are too young to count.
    pub youth: Youth,
    /// Milliseconds since 1970.
    pub now: i64,
}

/// A number of pods, and what it was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposal {
    pub replicas: i32,
    /// Percent of what was requested.
    pub utilization: Option<i32>,
    /// What each pod uses, in thousandths.
    pub average: i64,
}

/// The pods by what can be said of their readings.
#[derive(Debug, Default, PartialEq, Eq)]
struct Groups {
    ready: i32,
    unready: BTreeSet<String>,
    missing: BTreeSet<String>,
    ignored: BTreeSet<String>,
}

fn group(present: &Present<'_>, readings: &Readings, is_cpu: bool) -> Groups {
    let mut groups = Groups::default();
    for pod in present.pods {
        let name = pod.name().to_owned();
        if pod.is_deleting() || pods::phase(pod) == "Failed" {
            groups.ignored.insert(name);
        } else if pods::phase(pod) == "Pending" {
            groups.unready.insert(name);
        } else if let Some(reading) = readings.get(&name) {
            if is_cpu && is_unready(pod, reading, present) {
                groups.unready.insert(name);
            } else {
                groups.ready += 1;
            }
        } else {
            groups.missing.insert(name);
        }
    }
    groups
}

/// Whether what a pod uses of the processor says nothing yet.
fn is_unready(pod: &Pod, reading: &Reading, present: &Present<'_>) -> bool {
    let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
    let (Some(ready), Some(started)) = (pods::condition(pod, "Ready"), started) else { return true };
    let started = started.0.as_millisecond();
    let changed = ready.last_transition_time.as_ref().map_or(0, |time| time.0.as_millisecond());
    let not_ready = ready.status == "False";
    if started + present.youth.cpu_ms > present.now {
        return not_ready || reading.at < changed + reading.window;
    }
    not_ready && started + present.youth.readiness_ms > changed
}

/// By what is used of what the pods' containers (or the one of that name) request of a resource; `target` is percent.
pub fn by_utilization(
    present: &Present<'_>,
    mut readings: Readings,
    resource: &str,
    container: Option<&str>,
    target: i32,
) -> Result<Proposal, String> {
    let groups = sort_out(present, &mut readings, resource == "cpu")?;
    let requests = requests(present.pods, resource, container)?;
    let measure = |readings: &Readings| utilization(readings, &requests, target);
    let assumed = |pod: &str, ratio: f64| {
        // Such pods are thought to do nothing when there is too much to do, and all they may when there is too little.
        let all = requests.get(pod).copied().unwrap_or_default() * i64::from(target.max(100)) / 100;
        if ratio < 1.0 { Some(all) } else { (ratio > 1.0).then_some(0) }
    };
    settle(present, readings, &groups, measure, assumed)
}

/// By the average of what each pod uses; `target` is thousandths. `is_cpu`: young pods count only when they are ready.
pub fn by_average(
    present: &Present<'_>,
    mut readings: Readings,
    is_cpu: bool,
    target: i64,
) -> Result<Proposal, String> {
    let groups = sort_out(present, &mut readings, is_cpu)?;
    let measure = |readings: &Readings| {
        let total: i64 = readings.values().map(|reading| reading.value).sum();
        let average = total / i64::try_from(readings.len().max(1)).unwrap_or(i64::MAX);
        Ok(Measure { ratio: average as f64 / target as f64, utilization: None, average })
    };
    settle(present, readings, &groups, measure, |_, ratio| Some(if ratio < 1.0 { target } else { 0 }))
}

/// By a value that all pods bring about together: `ratio` is the value to what was asked for.
pub fn by_ratio(present: &Present<'_>, ratio: f64) -> Result<i32, String> {
    if present.replicas == 0 {
        return Ok(ceil(ratio));
    }
    if present.tolerance.covers(ratio) {
        return Ok(present.replicas);
    }
    if present.pods.is_empty() {
        let why = "no pods returned by selector while calculating replica count";
        return Err(format!("unable to calculate ready pods: {why}"));
    }
    let ready = present.pods.iter().filter(|pod| pods::phase(pod) == "Running" && pods::is_ready(pod)).count();
    Ok(ceil(ratio * ready as f64))
}

/// By a value that is shared by `replicas` pods: their number, and the value of each; all in thousandths.
pub fn by_share(replicas: i32, value: i64, target: i64, tolerance: Tolerance) -> (i32, i64) {
    let ratio = value as f64 / (target as f64 * f64::from(replicas));
    let wanted = if tolerance.covers(ratio) { replicas } else { ceil(value as f64 / target as f64) };
    (wanted, (value as f64 / f64::from(replicas)).ceil() as i64)
}

/// The groups of the pods; only readings that count are left.
fn sort_out(present: &Present<'_>, readings: &mut Readings, is_cpu: bool) -> Result<Groups, String> {
    if present.pods.is_empty() {
        return Err("no pods returned by selector while calculating replica count".into());
    }
    let groups = group(present, readings, is_cpu);
    readings.retain(|name, _| !groups.ignored.contains(name) && !groups.unready.contains(name));
    if readings.is_empty() {
        return Err("did not receive metrics for targeted pods (pods might be unready)".into());
    }
    Ok(groups)
}

/// What some readings come to.
#[derive(Clone, Copy)]
struct Measure {
    /// To what was asked for.
    ratio: f64,
    utilization: Option<i32>,
    average: i64,
}

/// Follows the ratio, and is careful where pods are missing or not ready: what is assumed of them can damp a change,
/// and never turn it around.
fn settle(
    present: &Present<'_>,
    mut readings: Readings,
    groups: &Groups,
    measure: impl Fn(&Readings) -> Result<Measure, String>,
    assumed: impl Fn(&str, f64) -> Option<i64>,
) -> Result<Proposal, String> {
    let first = measure(&readings)?;
    let propose = |replicas| Proposal { replicas, utilization: first.utilization, average: first.average };
    let stay = propose(present.replicas);
    let with_unready = !groups.unready.is_empty() && first.ratio > 1.0;
    if !with_unready && groups.missing.is_empty() {
        let covered = present.tolerance.covers(first.ratio);
        return Ok(if covered { stay } else { propose(ceil(first.ratio * f64::from(groups.ready))) });
    }
    for name in &groups.missing {
        if let Some(value) = assumed(name, first.ratio) {
            readings.insert(name.clone(), Reading { value, ..Reading::default() });
        }
    }
    if with_unready {
        readings.extend(groups.unready.iter().map(|name| (name.clone(), Reading::default())));
    }
    let again = measure(&readings)?.ratio;
    let turned = (first.ratio < 1.0 && again > 1.0) || (first.ratio > 1.0 && again < 1.0);
    if present.tolerance.covers(again) || turned {
        return Ok(stay);
    }
    let replicas = ceil(again * readings.len() as f64);
    let against = (again < 1.0 && replicas > present.replicas) || (again > 1.0 && replicas < present.replicas);
    Ok(if against { stay } else { propose(replicas) })
}

fn ceil(number: f64) -> i32 {
    number.ceil() as i32
}

fn utilization(readings: &Readings, requests: &BTreeMap<String, i64>, target: i32) -> Result<Measure, String> {
    let known = readings.iter().filter_map(|(name, reading)| Some((reading.value, *requests.get(name)?)));
    let (mut used, mut requested, mut count) = (0i64, 0i64, 0i64);
    for (value, request) in known {
        (used, requested, count) = (used + value, requested + request, count + 1);
    }
    if requested == 0 {
        return Err("no metrics returned matched known pods".into());
    }
    let percent = i32::try_from(used * 100 / requested).unwrap_or(i32::MAX);
    let ratio = f64::from(percent) / f64::from(target);
    Ok(Measure { ratio, utilization: Some(percent), average: used / count })
}

/// What each pod requests of a resource, in thousandths.
fn requests(all: &[Arc<Pod>], resource: &str, container: Option<&str>) -> Result<BTreeMap<String, i64>, String> {
    all.iter().map(|pod| Ok((pod.name().to_owned(), request(pod, resource, container)?))).collect()
}

fn request(pod: &Pod, resource: &str, container: Option<&str>) -> Result<i64, String> {
    let Some(spec) = &pod.spec else { return Ok(0) };
    let of_pod = spec.resources.as_ref().and_then(|resources| requested(resources, resource));
    if let Some(whole) = of_pod.filter(|_| container.is_none()) {
        return Ok(whole);
    }
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let all: Vec<&Container> = spec.containers.iter().chain(sidecars).collect();
    let of = |c: &Container| {
        c.resources
            .as_ref()
            .and_then(|resources| requested(resources, resource))
            .ok_or_else(|| format!("missing request for {resource} in container {} of Pod {}", c.name, pod.name()))
    };
    match container {
        None => all.into_iter().map(of).sum(),
        Some(name) => {
            let found = all.into_iter().find(|c| c.name == name);
            of(found.ok_or_else(|| format!("container {name} not found in Pod {}", pod.name()))?)
        }
    }
}

fn requested(resources: &ResourceRequirements, resource: &str) -> Option<i64> {
    Some(Quantity::from(resources.requests.as_ref()?.get(resource)?).milli())
}

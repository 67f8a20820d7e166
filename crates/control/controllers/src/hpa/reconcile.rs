//! Looks at every autoscaler once in a period: reads the target's scale, asks what its pods use, changes the scale.
//!
//! Between these looks nothing happens, and without autoscalers nothing at all.

use super::limits::{History, Limited, Wish};
use super::metrics::{Failure, Question};
use super::plan::{Present, Tolerance};
use super::settings::Settings;
use crate::context::Context;
use crate::discovery::{Resource, discover};
use crate::ownership::labels_of;
use http::Method;
use parking_lot::Mutex;
use pintle_client::{ClientError, resource_path};
use pintle_informer::{Change, EventType, Informer, Outcome, Queue, run_reconciler};
use pintle_types::k8s::api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerSpec,
    HorizontalPodAutoscalerStatus, MetricStatus,
};
use pintle_types::k8s::api::core::v1::Pod;
use pintle_types::quantity::Quantity;
use pintle_types::selector::LabelSelector;
use pintle_types::{GroupVersion, Kind, ObjectKey};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// What upstream's `--concurrent-horizontal-pod-autoscaler-syncs` is by default.
const WORKERS: usize = 5;

struct Controller {
    context: Context,
    settings: Settings,
    autoscalers: Informer<HorizontalPodAutoscaler>,
    pods: Informer<Pod>,
    histories: Mutex<HashMap<ObjectKey, History>>,
    /// What is served of each group and kind, as far as somebody asked.
    resources: Mutex<HashMap<(String, String), Resource>>,
    /// The selectors of the targets, by autoscaler.
    selectors: Mutex<HashMap<ObjectKey, LabelSelector>>,
}

/// Runs the controller until the context's stop.
pub async fn run(context: Context, settings: Settings) {
    let period = settings.period;
    let controller = Arc::new(Controller {
        autoscalers: context.informers.of(),
        pods: context.informers.of(),
        histories: Mutex::default(),
        resources: Mutex::default(),
        selectors: Mutex::default(),
        context: context.clone(),
        settings,
    });
    let queue: Queue<ObjectKey> = Queue::new();
    let from_autoscalers = queue.clone();
    controller.autoscalers.on_change(move |change| match change {
        Change::Added(hpa) => from_autoscalers.add_after(hpa.key(), period),
        // What changed is seen at the next look.
        Change::Modified(..) => {}
        Change::Deleted(hpa) => from_autoscalers.add(hpa.key()),
    });
    controller.autoscalers.synced().await;
    controller.pods.synced().await;
    let reconcile = |key: ObjectKey| {
        let controller = controller.clone();
        async move {
            let Some(hpa) = controller.autoscalers.get(&key) else {
                controller.histories.lock().remove(&key);
                controller.selectors.lock().remove(&key);
                return Ok(Outcome::Done);
            };
            if let Err(why) = (Look { controller: &controller, hpa: HorizontalPodAutoscaler::clone(&hpa) }).take().await
            {
                tracing::debug!(autoscaler = %key, why, "an autoscaler could not do its work");
            }
            Ok(Outcome::After(period))
        }
    };
    run_reconciler("horizontal-pod-autoscaler", queue, WORKERS, reconcile, context.stop.clone()).await;
}

impl Controller {
    /// What is served of a group and kind.
    async fn resource(&self, group: &str, kind: &str) -> Result<Resource, String> {
        let key = (group.to_owned(), kind.to_owned());
        if let Some(known) = self.resources.lock().get(&key) {
            return Ok(known.clone());
        }
        let found = discover(&self.context.client).await.map_err(|e| e.to_string())?;
        let known = found.resources.into_iter().find(|r| r.group == group && r.kind == kind);
        let known = known.ok_or_else(|| format!("no matches for kind {kind:?} in group {group:?}"))?;
        self.resources.lock().insert(key, known.clone());
        Ok(known)
    }

    /// `NAMESPACE/NAME` of the autoscalers whose targets select any of some pods.
    fn autoscalers_of(&self, namespace: &str, pods: &[Arc<Pod>]) -> Vec<String> {
        let selectors = self.selectors.lock();
        let found = selectors.iter().filter(|(key, selector)| {
            key.namespace == namespace && pods.iter().any(|pod| selector.matches(labels_of(&pod.metadata)))
        });
        let mut names: Vec<String> = found.map(|(key, _)| key.to_string()).collect();
        names.sort();
        names
    }
}

/// The scale of a target.
struct Scale {
    path: String,
    object: Value,
}

impl Scale {
    fn replicas(&self, part: &str) -> i32 {
        self.object[part]["replicas"].as_i64().and_then(|n| i32::try_from(n).ok()).unwrap_or_default()
    }
}

/// What the metrics propose together.
struct Proposed {
    replicas: i32,
    name: String,
}

/// One look at one autoscaler.
struct Look<'a> {
    controller: &'a Controller,
    /// As it was, with the status as it is to be.
    hpa: HorizontalPodAutoscaler,
}

impl Look<'_> {
    fn spec(&self) -> HorizontalPodAutoscalerSpec {
        self.hpa.spec.clone()
    }

    fn warn(&self, reason: &str, message: &str) {
        self.controller.context.recorder.event(&self.hpa, EventType::Warning, reason, message);
    }

    fn now(&self) -> i64 {
        self.controller.context.clock.now().as_millisecond()
    }

    fn set(&mut self, type_: &str, holds: bool, reason: &str, message: impl Into<String>) {
        let now = self.controller.context.time();
        let status = self.hpa.status.get_or_insert_default();
        let conditions = status.conditions.get_or_insert_default();
        let at = conditions.iter().position(|c| c.type_ == type_).unwrap_or_else(|| {
            let new = HorizontalPodAutoscalerCondition { type_: type_.into(), ..Default::default() };
            conditions.push(new);
            conditions.len() - 1
        });
        let condition = &mut conditions[at];
        let value = if holds { "True" } else { "False" };
        if condition.status != value {
            condition.last_transition_time = Some(now);
        }
        condition.status = value.into();
        condition.reason = Some(reason.into());
        condition.message = Some(message.into());
    }

    fn with_history<T>(&self, act: impl FnOnce(&mut History) -> T) -> T {
        let window = self.controller.settings.down_window;
        let mut histories = self.controller.histories.lock();
        act(histories.entry(self.hpa.key()).or_insert_with(|| History::new(window)))
    }

    async fn take(mut self) -> Result<(), String> {
        let before = self.hpa.status.clone();
        let done = self.scale().await;
        let written = self.write(before).await;
        done.and(written)
    }

    async fn write(&self, before: Option<HorizontalPodAutoscalerStatus>) -> Result<(), String> {
        if self.hpa.status == before {
            return Ok(());
        }
        match self.controller.context.client.update_status(&self.hpa).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => {
                // Somebody else changed it a moment ago: the next look tells the same.
                if !error.is_conflict() {
                    self.warn("FailedUpdateStatus", &error.to_string());
                }
                Err(format!("failed to update status for {}: {error}", self.hpa.name()))
            }
        }
    }

    async fn scale(&mut self) -> Result<(), String> {
        let scale = match self.read_scale().await {
            Ok(scale) => scale,
            Err(why) => {
                self.warn("FailedGetScale", &why);
                let message = format!("the HPA controller was unable to get the target's current scale: {why}");
                self.set("AbleToScale", false, "FailedGetScale", message);
                return Err(why);
            }
        };
        let message = "the HPA controller was able to get the target's current scale";
        self.set("AbleToScale", true, "SucceededGetScale", message);
        let (spec, now, current) = (self.spec(), self.now(), scale.replicas("spec"));
        self.with_history(|history| history.begin(current, now));
        let min = spec.min_replicas.unwrap_or(1);
        if current == 0 && min != 0 {
            let message = "scaling is disabled since the replica count of the target is zero";
            self.set("ScalingActive", false, "ScalingDisabled", message);
            self.set_status(current, current, None, false);
            return Ok(());
        }
        if current > spec.max_replicas {
            let why = "Current number of replicas above Spec.MaxReplicas";
            return self.rescale(&scale, spec.max_replicas, why, None).await;
        }
        if current < min {
            return self.rescale(&scale, min, "Current number of replicas below Spec.MinReplicas", None).await;
        }
        let (proposed, statuses, first_error) = self.propose(&spec, &scale).await;
        let Some(proposed) = proposed else {
            let why = first_error.unwrap_or_default();
            let desired = self.hpa.status.as_ref().map_or(0, |status| status.desired_replicas);
            self.set_status(current, desired, statuses, false);
            self.warn("FailedComputeMetricsReplicas", &why);
            return Err(why);
        };
        let why = match proposed.replicas.cmp(&current) {
            std::cmp::Ordering::Less => "All metrics below target".to_owned(),
            _ => format!("{} above target", proposed.name),
        };
        let wish = Wish { current, proposed: proposed.replicas, min, max: spec.max_replicas };
        let limited = self.with_history(|history| history.limit(spec.behavior.as_ref(), wish, now));
        self.tell_limits(&limited);
        if limited.replicas == current {
            self.set_status(current, current, statuses, false);
            return first_error.map_or(Ok(()), Err);
        }
        self.rescale(&scale, limited.replicas, &why, statuses).await
    }

    fn tell_limits(&mut self, limited: &Limited) {
        self.set("AbleToScale", true, limited.able.0, limited.able.1);
        self.set("ScalingLimited", limited.limited, limited.why.0, limited.why.1);
    }

    async fn read_scale(&self) -> Result<Scale, String> {
        let target = self.spec().scale_target_ref;
        let version = target.api_version.unwrap_or_default();
        let group = GroupVersion::parse(&version).map(|v| v.group);
        let group = group.ok_or_else(|| format!("unexpected GroupVersion string: {version}"))?;
        let resource = self.controller.resource(&group, &target.kind).await?;
        let (namespace, name) = (self.hpa.namespace(), &target.name);
        let path = resource_path(&resource.group, &resource.version, &resource.resource, namespace, name, "scale");
        match self.controller.context.client.json(Method::GET, &path, None).await {
            Ok(object) => Ok(Scale { path, object }),
            Err(error) => {
                // Definitions come and go: the next look asks again what is served.
                self.controller.resources.lock().remove(&(group, target.kind));
                Err(error.to_string())
            }
        }
    }

    /// Evaluates all metrics. Without a proposal, the reason comes in its place; with one, what could not be had.
    async fn propose(
        &mut self,
        spec: &HorizontalPodAutoscalerSpec,
        scale: &Scale,
    ) -> (Option<Proposed>, Option<Vec<MetricStatus>>, Option<String>) {
        let selector = scale.object["status"]["selector"].as_str().unwrap_or_default().to_owned();
        let pods = match self.select(&selector) {
            Ok(pods) => pods,
            Err(why) => return (None, None, Some(why)),
        };
        for metric in spec.metrics.iter().flatten().filter_map(|metric| metric.object.as_ref()) {
            let of = &metric.described_object;
            let version = GroupVersion::parse(of.api_version.as_deref().unwrap_or_default()).unwrap_or_default();
            // A kind that is not served is told of with the metric.
            let _ = self.controller.resource(&version.group, &of.kind).await;
        }
        let resource_of = |group: &str, kind: &str| {
            let known = self.controller.resources.lock();
            known.get(&(group.to_owned(), kind.to_owned())).map(|r| match r.group.is_empty() {
                true => r.resource.clone(),
                false => format!("{}.{}", r.resource, r.group),
            })
        };
        let question = Question {
            client: &self.controller.context.client,
            namespace: self.hpa.namespace(),
            selector: &selector,
            present: Present {
                replicas: scale.replicas("spec"),
                pods: &pods,
                tolerance: tolerance(spec, self.controller.settings.tolerance),
                youth: self.controller.settings.youth,
                now: self.now(),
            },
            replicas_there: scale.replicas("status"),
            resource_of: &resource_of,
        };
        let metrics = spec.metrics.as_deref().unwrap_or_default();
        let (mut best, mut statuses, mut failures) = (None::<Proposed>, Vec::new(), Vec::new());
        for metric in metrics {
            match question.evaluate(metric).await {
                Ok(answer) => {
                    statuses.push(answer.status);
                    if best.as_ref().is_none_or(|best| best.replicas == 0 || answer.replicas > best.replicas) {
                        best = Some(Proposed { replicas: answer.replicas, name: answer.name });
                    }
                }
                Err(failure) => {
                    self.warn(failure.reason, &failure.message);
                    statuses.push(MetricStatus::default());
                    failures.push(failure);
                }
            }
        }
        self.judge(best, failures, metrics.len(), scale.replicas("spec"), statuses)
    }

    /// What is known is enough to go up, but not to go down.
    fn judge(
        &mut self,
        best: Option<Proposed>,
        failures: Vec<Failure>,
        all: usize,
        current: i32,
        statuses: Vec<MetricStatus>,
    ) -> (Option<Proposed>, Option<Vec<MetricStatus>>, Option<String>) {
        let count = failures.len();
        let first = failures.into_iter().next();
        let error = first
            .as_ref()
            .map(|first| format!("invalid metrics ({count} invalid out of {all}), first error is: {}", first.whole));
        let enough = best.filter(|best| count < all && (count == 0 || best.replicas >= current));
        match (&enough, first) {
            (Some(best), _) => {
                let message = format!("the HPA was able to successfully calculate a replica count from {}", best.name);
                self.set("ScalingActive", true, "ValidMetricFound", message);
            }
            (None, Some(first)) => {
                let message = format!("the HPA was unable to compute the replica count: {}", first.message);
                self.set("ScalingActive", false, first.reason, message);
            }
            (None, None) => {}
        }
        (enough, Some(statuses), error)
    }

    /// The pods of the target, which must be those of this autoscaler alone.
    fn select(&mut self, text: &str) -> Result<Vec<Arc<Pod>>, String> {
        if text.is_empty() {
            let why = "selector is required";
            self.warn("SelectorRequired", why);
            let message = "the HPA target's scale is missing a selector";
            self.set("ScalingActive", false, "InvalidSelector", message);
            return Err(why.into());
        }
        let selector = match LabelSelector::parse(text) {
            Ok(selector) => selector,
            Err(error) => {
                let why = format!("couldn't convert selector into a corresponding internal selector object: {error}");
                self.warn("InvalidSelector", &why);
                self.set("ScalingActive", false, "InvalidSelector", &*why);
                return Err(why);
            }
        };
        let (key, namespace) = (self.hpa.key(), self.hpa.namespace());
        self.controller.selectors.lock().insert(key, selector.clone());
        let mut pods = self.controller.pods.in_namespace(namespace);
        pods.retain(|pod| selector.matches(labels_of(&pod.metadata)));
        let selecting = self.controller.autoscalers_of(namespace, &pods);
        if selecting.len() > 1 {
            let list = selecting.join(" ");
            let why = format!("pods by selector {text} are controlled by multiple HPAs: [{list}]");
            self.warn("AmbiguousSelector", &why);
            self.set("ScalingActive", false, "AmbiguousSelector", &*why);
            return Err(why);
        }
        Ok(pods)
    }

    async fn rescale(
        &mut self,
        scale: &Scale,
        desired: i32,
        why: &str,
        statuses: Option<Vec<MetricStatus>>,
    ) -> Result<(), String> {
        let current = scale.replicas("spec");
        let mut changed = scale.object.clone();
        changed["spec"]["replicas"] = desired.into();
        let context = &self.controller.context;
        let done: Result<Value, ClientError> = context.client.json(Method::PUT, &scale.path, Some(&changed)).await;
        if let Err(error) = done {
            self.warn("FailedRescale", &format!("New size: {desired}; reason: {why}; error: {error}"));
            let message = format!("the HPA controller was unable to update the target scale: {error}");
            self.set("AbleToScale", false, "FailedUpdateScale", message);
            let before = self.hpa.status.as_ref().map_or(0, |status| status.desired_replicas);
            self.set_status(current, before, statuses, false);
            return Err(format!("failed to rescale: {error}"));
        }
        let message = format!("the HPA controller was able to update the target scale to {desired}");
        self.set("AbleToScale", true, "SucceededRescale", message);
        let message = format!("New size: {desired}; reason: {why}");
        context.recorder.event(&self.hpa, EventType::Normal, "SuccessfulRescale", message);
        let (behavior, now) = (self.spec().behavior, self.now());
        self.with_history(|history| history.note_change(behavior.as_ref(), current, desired, now));
        self.set_status(current, desired, statuses, true);
        Ok(())
    }

    fn set_status(&mut self, current: i32, desired: i32, metrics: Option<Vec<MetricStatus>>, scaled: bool) {
        let now = self.controller.context.time();
        let status = self.hpa.status.get_or_insert_default();
        status.current_replicas = Some(current);
        status.desired_replicas = desired;
        status.current_metrics = metrics.filter(|metrics| !metrics.is_empty());
        if scaled {
            status.last_scale_time = Some(now);
        }
    }
}

/// What the autoscaler says, or else what is usual.
fn tolerance(spec: &HorizontalPodAutoscalerSpec, usual: f64) -> Tolerance {
    let mut tolerance = Tolerance { down: usual, up: usual };
    let Some(behavior) = &spec.behavior else { return tolerance };
    let given = |quantity: &_| Quantity::from(quantity).nanos() as f64 / 1e9;
    if let Some(up) = behavior.scale_up.as_ref().and_then(|rules| rules.tolerance.as_ref()) {
        tolerance.up = given(up);
    }
    if let Some(down) = behavior.scale_down.as_ref().and_then(|rules| rules.tolerance.as_ref()) {
        tolerance.down = given(down);
    }
    tolerance
}

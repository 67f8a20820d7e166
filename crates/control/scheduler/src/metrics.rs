//! What the scheduler counts, under upstream's names. What is counted for each pod is found once, not each time.

use crate::filter::Plugin;
use crate::profile::Profile;
use crate::timings::Timings;
use parking_lot::Mutex;
use pintle_metrics::{Counter, Family, Gauge, Histogram, Registry, Text};
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// From 1 ms on, doubled.
const ATTEMPTS: &[f64] =
    &[0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384];
/// From 10 ms on, doubled.
const WAITS: &[f64] = &[
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68, 655.36,
    1310.72, 2621.44, 5242.88,
];
/// From 0.1 ms on, doubled.
const POINTS: &[f64] =
    &[0.0001, 0.0002, 0.0004, 0.0008, 0.0016, 0.0032, 0.0064, 0.0128, 0.0256, 0.0512, 0.1024, 0.2048];
const VICTIMS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];
const TRIES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0];
const PENDING_HELP: &str = "[STABLE] Number of pending pods, by the queue type. 'active' means number of pods in \
                            activeQ; 'backoff' means number of pods in backoffQ; 'unschedulable' means number of pods \
                            in unschedulablePods that the scheduler attempted to schedule and failed; 'gated' is the \
                            number of unschedulable pods that the scheduler never attempted to schedule because they \
                            are gated.";

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Scheduled,
    Unschedulable,
    Error,
}

const OUTCOMES: [&str; 3] = ["scheduled", "unschedulable", "error"];

/// Where in an attempt time is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    PreFilter,
    Filter,
    PostFilter,
    Score,
    Reserve,
    PreBind,
    Bind,
}

const POINT_NAMES: [&str; 7] = ["PreFilter", "Filter", "PostFilter", "Score", "Reserve", "PreBind", "Bind"];

/// The counts of one profile.
pub(crate) struct OfProfile {
    attempts: [Arc<Counter>; 3],
    durations: [Arc<Histogram>; 3],
    /// By point; after success, and after none.
    points: [[Arc<Histogram>; 2]; 7],
}

impl OfProfile {
    pub(crate) fn attempted(&self, outcome: Outcome, took: Duration) {
        self.attempts[outcome as usize].inc();
        self.durations[outcome as usize].observe(took.as_secs_f64());
    }

    /// A step that began then is over; returns the time now, at which the next begins.
    pub(crate) fn ran(&self, point: Point, success: bool, since: Instant) -> Instant {
        let now = Instant::now();
        let took = now.duration_since(since).as_secs_f64();
        self.points[point as usize][usize::from(!success)].observe(took);
        now
    }
}

/// What is known elsewhere and only asked for when somebody looks.
pub(crate) trait Waiting: Send + Sync {
    /// Pods that are active, back off, are unschedulable and are gated.
    fn pending(&self) -> [usize; 4];
    /// Unschedulable pods by who refused them and the name of their scheduler.
    fn refused(&self) -> Vec<(Plugin, String, usize)>;
    /// Nodes, pods on them, and pods that were given a node which is not confirmed.
    fn cached(&self) -> [usize; 3];
}

/// The scheduler's metrics: made once, and told to each scheduler that runs.
pub struct Metrics {
    attempts: Arc<Family<Counter>>,
    durations: Arc<Family<Histogram>>,
    points: Arc<Family<Histogram>>,
    incoming: Arc<Family<Counter>>,
    slis: Arc<Family<Histogram>>,
    tries: Arc<Histogram>,
    pub(crate) algorithm: Arc<Histogram>,
    pub(crate) preemptions: Arc<Counter>,
    pub(crate) victims: Arc<Histogram>,
    pub(crate) bindings: Arc<Gauge>,
    pub(crate) timings: Arc<Timings>,
    current: Mutex<Option<Weak<dyn Waiting>>>,
    profiles: Mutex<HashMap<String, Arc<OfProfile>>>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    pub fn new(registry: &Registry) -> Arc<Self> {
        let metrics = Arc::new(Self {
            attempts: registry.counters(
                "scheduler_schedule_attempts_total",
                "[STABLE] Number of attempts to schedule pods, by the result. 'unschedulable' means a pod could not be \
                 scheduled, while 'error' means an internal scheduler problem.",
                &["result", "profile"],
            ),
            durations: registry.histograms(
                "scheduler_scheduling_attempt_duration_seconds",
                "[STABLE] Scheduling attempt latency in seconds (scheduling algorithm + binding)",
                &["result", "profile"],
                ATTEMPTS,
            ),
            points: registry.histograms(
                "scheduler_framework_extension_point_duration_seconds",
                "[STABLE] Latency for running all plugins of a specific extension point.",
                &["extension_point", "status", "profile"],
                POINTS,
            ),
            incoming: registry.counters(
                "scheduler_queue_incoming_pods_total",
                "[STABLE] Number of pods added to scheduling queues by event and queue type.",
                &["queue", "event"],
            ),
            slis: registry.histograms(
                "scheduler_pod_scheduling_sli_duration_seconds",
                "[BETA] E2e latency for a pod being scheduled, from the time the pod enters the scheduling queue and \
                 might involve multiple scheduling attempts.",
                &["attempts"],
                WAITS,
            ),
            tries: registry.histogram(
                "scheduler_pod_scheduling_attempts",
                "[STABLE] Number of attempts to successfully schedule a pod.",
                TRIES,
            ),
            algorithm: registry.histogram(
                "scheduler_scheduling_algorithm_duration_seconds",
                "[ALPHA] Scheduling algorithm latency in seconds",
                ATTEMPTS,
            ),
            preemptions: registry.counter(
                "scheduler_preemption_attempts_total",
                "[STABLE] Total preemption attempts in the cluster till now",
            ),
            victims: registry.histogram(
                "scheduler_preemption_victims",
                "[STABLE] Number of selected preemption victims",
                VICTIMS,
            ),
            bindings: registry
                .gauges(
                    "scheduler_goroutines",
                    "[ALPHA] Number of running goroutines split by the work they do such as binding.",
                    &["operation"],
                )
                .with(&["binding"]),
            timings: Timings::new(registry),
            current: Mutex::default(),
            profiles: Mutex::default(),
        });
        let shown = Arc::downgrade(&metrics);
        registry.on_scrape(move |text| {
            let metrics = shown.upgrade();
            let current = metrics.and_then(|metrics| metrics.current.lock().as_ref().and_then(Weak::upgrade));
            if let Some(current) = current {
                show(&*current, text);
            }
        });
        metrics
    }

    /// Whose queue is shown from now on.
    pub(crate) fn show(&self, waiting: Weak<dyn Waiting>) {
        *self.current.lock() = Some(waiting);
    }

    pub(crate) fn of(&self, profile: &Profile) -> Arc<OfProfile> {
        let mut profiles = self.profiles.lock();
        let name = profile.name.as_str();
        if let Some(known) = profiles.get(name) {
            return Arc::clone(known);
        }
        let made = Arc::new(OfProfile {
            attempts: OUTCOMES.map(|outcome| self.attempts.with(&[outcome, name])),
            durations: OUTCOMES.map(|outcome| self.durations.with(&[outcome, name])),
            points: POINT_NAMES
                .map(|point| ["Success", "Unschedulable"].map(|status| self.points.with(&[point, status, name]))),
        });
        profiles.insert(name.to_owned(), Arc::clone(&made));
        made
    }

    /// A pod came to one of the queues, by that event.
    pub(crate) fn came(&self, queue: &str, event: &str) {
        self.incoming.with(&[queue, event]).inc();
    }

    /// A pod that came so long ago has a node, after so many attempts.
    pub(crate) fn scheduled(&self, after: Duration, attempts: u32) {
        const NUMBERS: [&str; 16] =
            ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15+"];
        let label = NUMBERS[usize::try_from(attempts).map_or(15, |n| n.min(15))];
        self.slis.with(&[label]).observe(after.as_secs_f64());
        self.tries.observe(f64::from(attempts));
    }
}

fn show(waiting: &dyn Waiting, text: &mut Text) {
    text.family("scheduler_pending_pods", "gauge", PENDING_HELP);
    for (queue, pods) in ["active", "backoff", "unschedulable", "gated"].iter().zip(waiting.pending()) {
        text.labelled("scheduler_pending_pods", &[("queue", queue)], pods as f64);
    }
    let name = "scheduler_unschedulable_pods";
    let help = "[ALPHA] The number of unschedulable pods broken down by plugin name. A pod will increment the gauge \
                for all plugins that caused it to not schedule and so this metric have meaning only when broken down \
                by plugin.";
    text.family(name, "gauge", help);
    for (plugin, profile, pods) in waiting.refused() {
        text.labelled(name, &[("plugin", plugin.name()), ("profile", &profile)], pods as f64);
    }
    let name = "scheduler_cache_size";
    let help = "[ALPHA] Number of nodes, pods, and assumed (bound) pods in the scheduler cache.";
    text.family(name, "gauge", help);
    for (kind, count) in ["nodes", "pods", "assumed_pods"].iter().zip(waiting.cached()) {
        text.labelled(name, &[("type", kind)], count as f64);
    }
}

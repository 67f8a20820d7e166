//! How long single plugins take, by every tenth pod: to look at the clock around each plugin on each node is not free.

use crate::filter::{Plugin, Refusal};
use crate::profile::{SCORERS, Scorer};
use pintle_metrics::{Family, Histogram, Registry};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::{Duration, Instant};

/// Of so many attempts one is measured; the first is. Upstream draws lots for a tenth.
const SAMPLE: u32 = 10;

const STATUSES: [&str; 4] = ["Success", "Unschedulable", "UnschedulableAndUnresolvable", "Error"];

/// From 10 µs on, each one and a half times the one before.
static BOUNDS: LazyLock<Vec<f64>> =
    LazyLock::new(|| std::iter::successors(Some(0.00001), |bound| Some(bound * 1.5)).take(20).collect());

/// Series by their status, each made when it is first observed.
type Series = [OnceLock<Arc<Histogram>>; STATUSES.len()];

fn is_sample(count: &AtomicU32) -> bool {
    count.fetch_add(1, Ordering::Relaxed).is_multiple_of(SAMPLE)
}

/// The measured times of plugins, of all profiles together.
#[derive(Debug)]
pub(crate) struct Timings {
    family: Arc<Family<Histogram>>,
    attempts: AtomicU32,
    preemptions: AtomicU32,
    bindings: AtomicU32,
    filters: [Series; Plugin::ALL.len()],
    scorers: [Series; SCORERS],
    preemption: Series,
    binder: Series,
}

impl Timings {
    pub(crate) fn new(registry: &Registry) -> Arc<Self> {
        let family = registry.histograms(
            "scheduler_plugin_execution_duration_seconds",
            "[ALPHA] Duration for running a plugin at a specific extension point.",
            &["plugin", "extension_point", "status"],
            &BOUNDS,
        );
        Arc::new(Self {
            family,
            attempts: AtomicU32::default(),
            preemptions: AtomicU32::default(),
            bindings: AtomicU32::default(),
            filters: Default::default(),
            scorers: Default::default(),
            preemption: Default::default(),
            binder: Default::default(),
        })
    }

    /// The same for an attempt that is to be measured, nothing for the others.
    pub(crate) fn sample(self: &Arc<Self>) -> Option<Arc<Self>> {
        is_sample(&self.attempts).then(|| Arc::clone(self))
    }

    fn observe(&self, series: &Series, names: [&str; 2], status: usize, took: Duration, times: usize) {
        let [plugin, point] = names;
        let histogram = series[status].get_or_init(|| self.family.with(&[plugin, point, STATUSES[status]]));
        (0..times).for_each(|_| histogram.observe(took.as_secs_f64()));
    }

    /// A plugin looked at one node.
    pub(crate) fn filtered(&self, plugin: Plugin, refusal: Option<&Refusal>, since: Instant) {
        let Some(place) = Plugin::ALL.iter().position(|other| *other == plugin) else { return };
        let status = refusal.map_or(0, |refusal| if refusal.resolvable { 1 } else { 2 });
        self.observe(&self.filters[place], [plugin.name(), "Filter"], status, since.elapsed(), 1);
    }

    /// A plugin scored so many nodes, all at once: each is said to have taken the same.
    pub(crate) fn scored(&self, scorer: Scorer, nodes: usize, since: Instant) {
        let took = since.elapsed() / u32::try_from(nodes.max(1)).unwrap_or(u32::MAX);
        self.observe(&self.scorers[scorer as usize], [scorer.name(), "Score"], 0, took, nodes);
    }

    /// Room was looked for by preemption.
    pub(crate) fn preempted(&self, room: bool, since: Instant) {
        if is_sample(&self.preemptions) {
            let names = ["DefaultPreemption", "PostFilter"];
            self.observe(&self.preemption, names, usize::from(!room), since.elapsed(), 1);
        }
    }

    /// The API server was told of the binding.
    pub(crate) fn bound(&self, success: bool, since: Instant) {
        if is_sample(&self.bindings) {
            let status = if success { 0 } else { 3 };
            self.observe(&self.binder, ["DefaultBinder", "Bind"], status, since.elapsed(), 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::{Prepared, misfit};
    use crate::score::scores;
    use crate::tests::{node, pod, snapshot};
    use crate::{Metrics, default_profile};
    use serde_json::json;

    #[test]
    fn one_attempt_of_ten_is_measured() {
        let timings = Timings::new(&Registry::default());
        let measured: Vec<usize> = (0..30).filter(|_| timings.sample().is_some()).collect();
        assert_eq!(measured, [0, 10, 20]);
    }

    #[test]
    fn plugins_that_have_a_say_are_told_with_how_it_ended() {
        let registry = Registry::default();
        let metrics = Metrics::new(&registry);
        let tiny = node("b", json!({ "status": { "allocatable": { "cpu": "100m" } } }));
        let off = node("c", json!({ "spec": { "unschedulable": true } }));
        let state = snapshot(&[node("a", json!({})), tiny, off], &[]);
        let pod = pod("p", json!({}));
        let mut prepared = Prepared::new(&pod, &default_profile(), &state).unwrap();
        prepared.timings = metrics.timings.sample();
        let fit: Vec<_> = state.nodes().iter().filter(|n| misfit(&pod, n, &prepared, &state).is_none()).collect();
        assert_eq!(fit.len(), 1);
        scores(&pod, &fit, &prepared, &state);
        let text = registry.render();
        let count = |plugin: &str, point: &str, status: &str| {
            let labels = format!("{{plugin=\"{plugin}\",extension_point=\"{point}\",status=\"{status}\"}} ");
            let line = text.lines().find_map(|line| {
                line.strip_prefix("scheduler_plugin_execution_duration_seconds_count")?.strip_prefix(&labels)
            });
            line.map(str::to_owned)
        };
        let table = [
            ("NodeUnschedulable", "Filter", "Success", Some("2")),
            ("NodeUnschedulable", "Filter", "UnschedulableAndUnresolvable", Some("1")),
            ("NodeResourcesFit", "Filter", "Success", Some("1")),
            ("NodeResourcesFit", "Filter", "UnschedulableAndUnresolvable", Some("1")),
            ("NodeResourcesFit", "Score", "Success", Some("1")),
            // The pod has no ports, no claims and no constraints: nobody asks these.
            ("NodePorts", "Filter", "Success", None),
            ("VolumeBinding", "Filter", "Success", None),
            ("PodTopologySpread", "Filter", "Success", None),
        ];
        for (plugin, point, status, expected) in table {
            assert_eq!(count(plugin, point, status).as_deref(), expected, "{plugin} {point} {status}: {text}");
        }
    }
}

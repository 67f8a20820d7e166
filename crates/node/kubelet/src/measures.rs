//! What the kubelet counts of its own work, by upstream's names.

use pintle_metrics::{Counter, Family, Histogram, Registry, SECONDS};
use std::sync::Arc;
use std::time::Duration;

/// Upper bounds for the starts of pods, in seconds.
const START_SECONDS: &[f64] = &[
    0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 20.0, 30.0, 45.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0, 480.0,
    600.0, 900.0, 1200.0, 1800.0, 2700.0, 3600.0,
];
/// Upper bounds for calls of the runtime, in seconds: each is two and a half times the one before.
const CALL_SECONDS: &[f64] = &[
    0.005,
    0.0125,
    0.03125,
    0.078125,
    0.1953125,
    0.48828125,
    1.220703125,
    3.0517578125,
    7.62939453125,
    19.073486328125,
    47.6837158203125,
    119.20928955078125,
    298.0232238769531,
    745.0580596923828,
];

/// Counted from the start of the kubelet.
pub struct Measures {
    registry: Registry,
    /// Sandboxes that were to be made, and those that could not be.
    pub started_pods: Arc<Counter>,
    pub started_pods_errors: Arc<Counter>,
    /// By the kind of the container; the errors also by the reason that its status tells.
    pub started_containers: Arc<Family<Counter>>,
    pub started_containers_errors: Arc<Family<Counter>>,
    /// From when the kubelet saw a pod first to when it reported that it runs.
    pub pod_start: Arc<Histogram>,
    /// By what the step of a pod was for.
    pub pod_worker: Arc<Family<Histogram>>,
    /// Pods that made room for a critical one, by the resource that was short.
    pub preemptions: Arc<Family<Counter>>,
    /// By method, path, kind of server, and whether such requests take long.
    pub requests: Arc<Family<Counter>>,
    calls: Arc<Family<Counter>>,
    call_time: Arc<Family<Histogram>>,
    call_errors: Arc<Family<Counter>>,
}

impl Default for Measures {
    fn default() -> Self {
        let registry = Registry::default();
        let of_calls = &["operation_type"];
        Self {
            started_pods: registry.counter("kubelet_started_pods_total", "[ALPHA] Cumulative number of pods started"),
            started_pods_errors: registry.counter(
                "kubelet_started_pods_errors_total",
                "[ALPHA] Cumulative number of errors when starting pods",
            ),
            started_containers: registry.counters(
                "kubelet_started_containers_total",
                "[ALPHA] Cumulative number of containers started",
                &["container_type"],
            ),
            started_containers_errors: registry.counters(
                "kubelet_started_containers_errors_total",
                "[ALPHA] Cumulative number of errors when starting containers",
                &["container_type", "code"],
            ),
            pod_start: registry.histogram(
                "kubelet_pod_start_duration_seconds",
                "[ALPHA] Duration in seconds from kubelet seeing a pod for the first time to the pod starting to run",
                START_SECONDS,
            ),
            pod_worker: registry.histograms(
                "kubelet_pod_worker_duration_seconds",
                "[ALPHA] Duration in seconds to sync a single pod. Broken down by operation type: create, update, or sync",
                of_calls,
                SECONDS,
            ),
            preemptions: registry.counters(
                "kubelet_preemptions",
                "[ALPHA] Cumulative number of pod preemptions by preemption resource",
                &["preemption_signal"],
            ),
            requests: registry.counters(
                "kubelet_http_requests_total",
                "[ALPHA] Number of the http requests received since the server started",
                &["method", "path", "server_type", "long_running"],
            ),
            calls: registry.counters(
                "kubelet_runtime_operations_total",
                "[ALPHA] Cumulative number of runtime operations by operation type.",
                of_calls,
            ),
            call_time: registry.histograms(
                "kubelet_runtime_operations_duration_seconds",
                "[ALPHA] Duration in seconds of runtime operations. Broken down by operation type.",
                of_calls,
                CALL_SECONDS,
            ),
            call_errors: registry.counters(
                "kubelet_runtime_operations_errors_total",
                "[ALPHA] Cumulative number of runtime operation errors by operation type.",
                of_calls,
            ),
            registry,
        }
    }
}

impl Measures {
    /// A call of the runtime has ended.
    pub fn called(&self, operation: &str, took: Duration, failed: bool) {
        self.calls.with(&[operation]).inc();
        self.call_time.with(&[operation]).observe(took.as_secs_f64());
        if failed {
            self.call_errors.with(&[operation]).inc();
        }
    }

    /// Everything in the text form.
    pub fn render(&self) -> String {
        self.registry.render()
    }
}

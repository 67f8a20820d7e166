//! What is counted of calls to webhooks, under upstream's names.

use super::config::Flavor;
use pintle_metrics::{Counter, Family, Histogram, Registry};
use std::sync::Arc;
use std::time::Duration;

/// Upper bounds of the histogram, in seconds.
const BOUNDS: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0];

pub(super) struct Metrics {
    duration: Arc<Family<Histogram>>,
    requests: Arc<Family<Counter>>,
    rejections: Arc<Family<Counter>>,
    fail_open: Arc<Family<Counter>>,
    exclusions: Arc<Family<Counter>>,
    condition_errors: Arc<Family<Counter>>,
}

/// One call that ended.
pub(super) struct Ended<'a> {
    pub name: &'a str,
    pub flavor: Flavor,
    pub operation: &'static str,
    pub took: Duration,
    /// The HTTP status of the answer, or of the refusal.
    pub code: u16,
    pub rejected: bool,
}

impl Metrics {
    pub fn new(registry: &Registry) -> Self {
        Self {
            duration: registry.histograms(
                "apiserver_admission_webhook_admission_duration_seconds",
                "[STABLE] Admission webhook latency histogram in seconds, identified by name and broken out for each \
                 operation and API resource and type (validate or admit).",
                &["name", "type", "operation", "rejected"],
                BOUNDS,
            ),
            requests: registry.counters(
                "apiserver_admission_webhook_request_total",
                "[ALPHA] Admission webhook request total, identified by name and broken out for each admission type \
                 (validating or mutating) and operation.",
                &["name", "type", "operation", "code", "rejected"],
            ),
            rejections: registry.counters(
                "apiserver_admission_webhook_rejection_count",
                "[ALPHA] Admission webhook rejection count, identified by name and broken out for each admission type \
                 (validating or admit) and operation.",
                &["name", "type", "operation", "error_type", "rejection_code"],
            ),
            fail_open: registry.counters(
                "apiserver_admission_webhook_fail_open_count",
                "[ALPHA] Admission webhook fail open count, identified by name and broken out for each admission type \
                 (validating or mutating).",
                &["name", "type"],
            ),
            exclusions: registry.counters(
                "apiserver_admission_match_condition_exclusions_total",
                "[ALPHA] Admission match condition evaluation exclusions count, identified by name of resource \
                 containing the match condition and broken out for each kind containing matchConditions (webhook or \
                 policy), operation and admission type (validate or admit).",
                &["name", "kind", "type", "operation"],
            ),
            condition_errors: registry.counters(
                "apiserver_admission_match_condition_evaluation_errors_total",
                "[ALPHA] Admission match condition evaluation errors count, identified by name of resource containing \
                 the match condition and broken out for each kind containing matchConditions (webhook or policy), \
                 operation and admission type (validate or admit).",
                &["name", "kind", "type", "operation"],
            ),
        }
    }

    /// Match conditions kept a hook from being asked.
    pub fn excluded(&self, name: &str, flavor: Flavor, operation: &str) {
        self.exclusions.with(&[name, "webhook", flavor.condition_label(), operation]).inc();
    }

    /// Match conditions could not be evaluated.
    pub fn condition_failed(&self, name: &str, flavor: Flavor, operation: &str) {
        self.condition_errors.with(&[name, "webhook", flavor.condition_label(), operation]).inc();
    }

    pub fn ended(&self, call: &Ended<'_>) {
        let (kind, rejected) = (call.flavor.label(), if call.rejected { "true" } else { "false" });
        self.duration.with(&[call.name, kind, call.operation, rejected]).observe(call.took.as_secs_f64());
        let code = call.code.to_string();
        self.requests.with(&[call.name, kind, call.operation, &code, rejected]).inc();
    }

    /// `error_type` is `no_error` when the hook itself refused, `calling_webhook_error` when it did not answer.
    pub fn rejected(&self, name: &str, flavor: Flavor, operation: &str, error_type: &str, code: u16) {
        let code = code.to_string();
        self.rejections.with(&[name, flavor.label(), operation, error_type, &code]).inc();
    }

    pub fn failed_open(&self, name: &str, flavor: Flavor) {
        self.fail_open.with(&[name, flavor.label()]).inc();
    }
}

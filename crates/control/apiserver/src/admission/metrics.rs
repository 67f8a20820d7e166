//! How long admission takes, under upstream's names: each plugin, and each of the two steps.

use super::plugins::{COUNT, Plugin};
use pintle_metrics::{Family, Histogram, Registry};
use pintle_registry::Operation;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Upper bounds of the histograms, in seconds.
const BOUNDS: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5];

/// The two passes over a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Admit,
    Validate,
}

impl Step {
    fn label(self) -> &'static str {
        match self {
            Self::Admit => "admit",
            Self::Validate => "validate",
        }
    }
}

pub(super) struct Metrics {
    plugins: Arc<Family<Histogram>>,
    steps: Arc<Family<Histogram>>,
    /// The series of plugins that let writes pass, found without a look-up: nearly all there are.
    passed: Box<[OnceLock<Arc<Histogram>>]>,
}

const OPERATIONS: usize = 4;

impl Metrics {
    pub fn new(registry: &Registry) -> Self {
        Self {
            plugins: registry.histograms(
                "apiserver_admission_controller_admission_duration_seconds",
                "[STABLE] Admission controller latency histogram in seconds, identified by name and broken out for each \
                 operation and API resource and type (validate or admit).",
                &["name", "type", "operation", "rejected"],
                BOUNDS,
            ),
            steps: registry.histograms(
                "apiserver_admission_step_admission_duration_seconds",
                "[STABLE] Admission sub-step latency histogram in seconds, broken out for each operation and API \
                 resource and step type (validate or admit).",
                &["type", "operation", "rejected"],
                BOUNDS,
            ),
            passed: std::iter::repeat_with(OnceLock::new).take(COUNT * OPERATIONS * 2).collect(),
        }
    }

    /// A plugin was asked.
    pub fn asked(&self, plugin: Plugin, step: Step, operation: Operation, took: Duration, rejected: bool) {
        let series = |rejected| self.plugins.with(&[plugin.name(), step.label(), operation.as_str(), rejected]);
        if rejected {
            return series("true").observe(took.as_secs_f64());
        }
        let place = (plugin as usize * OPERATIONS + operation as usize) * 2 + step as usize;
        self.passed[place].get_or_init(|| series("false")).observe(took.as_secs_f64());
    }

    /// A step is done.
    pub fn done(&self, step: Step, operation: Operation, took: Duration, rejected: bool) {
        let rejected = if rejected { "true" } else { "false" };
        self.steps.with(&[step.label(), operation.as_str(), rejected]).observe(took.as_secs_f64());
    }
}

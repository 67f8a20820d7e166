//! What is set for all autoscalers: upstream's `--horizontal-pod-autoscaler-*` flags.

use std::time::Duration;

/// How autoscalers work that say nothing else. The default is that of upstream's flags.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Between two looks at an autoscaler (`sync-period`).
    pub period: Duration,
    /// How far what is used may be from what was asked for, as a share of it (`tolerance`).
    pub tolerance: f64,
    /// How long going down waits, in seconds (`downscale-stabilization`).
    pub down_window: i32,
    pub youth: Youth,
}

/// Which pods are too young for what they use of the processor to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Youth {
    /// For so long after its start a pod counts only while it is ready, in milliseconds (`cpu-initialization-period`).
    pub cpu_ms: i64,
    /// A pod that was not ready within this time of its start has never been ready, in milliseconds
    /// (`initial-readiness-delay`).
    pub readiness_ms: i64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { period: Duration::from_secs(15), tolerance: 0.1, down_window: 300, youth: Youth::default() }
    }
}

impl Default for Youth {
    fn default() -> Self {
        Self { cpu_ms: 300_000, readiness_ms: 30_000 }
    }
}

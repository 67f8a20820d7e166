//! What is set for all nodes: upstream's flags of the node lifecycle controller.

use std::time::Duration;

/// When nodes count as silent, and how fast pods are made to leave them. The default is that of upstream's flags.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// How long a node may give no sign of life (`node-monitor-grace-period`).
    pub grace: Duration,
    /// How long a node must not have been ready before its pods may be made to leave (`node-monitor-period`): time in
    /// which those that fail with it are noticed too.
    pub period: Duration,
    /// Nodes of a zone per second that pods must leave (`node-eviction-rate`).
    pub rate: f64,
    /// The same in a large zone of which many nodes aren't ready (`secondary-node-eviction-rate`).
    pub reduced_rate: f64,
    /// Nodes of the largest zone that is not large yet (`large-cluster-size-threshold`): pods leave nothing in one where
    /// many nodes aren't ready.
    pub large: usize,
    /// From which share of a zone on many nodes aren't ready (`unhealthy-zone-threshold`).
    pub unhealthy: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(50),
            period: Duration::from_secs(5),
            rate: 0.1,
            reduced_rate: 0.01,
            large: 50,
            unhealthy: 0.55,
        }
    }
}

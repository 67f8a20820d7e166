//! Probes containers, counts what the probes say, and keeps the verdicts that plan and status go by.
//!
//! One task per container and kind of probe, for as long as that container runs. A verdict changes only when as
//! many results in a row as the thresholds ask for agree; then the pod's actor is woken.

mod count;
mod counts;
mod exec;
mod grpc;
pub mod http;
mod tcp;
mod worker;

pub use counts::ProbeCounts;
pub use worker::Workers;

use std::collections::HashMap;

/// What a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

impl ProbeKind {
    /// As events spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// Why a probe did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unhealthy {
    /// It was answered, and not well.
    Failed(String),
    /// It could not be made: that says nothing of the container, and is not counted.
    Errored(String),
}

/// What the probes of one container say; nothing while too few have run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub startup: Option<bool>,
    pub liveness: Option<bool>,
    pub readiness: Option<bool>,
}

/// The verdicts of a pod's containers, by container id.
#[derive(Clone, Debug, Default)]
pub struct Verdicts {
    of: HashMap<String, Verdict>,
}

impl Verdicts {
    pub fn of(&self, container_id: &str) -> Verdict {
        self.of.get(container_id).copied().unwrap_or_default()
    }

    /// Returns whether that is news.
    pub fn set(&mut self, container_id: &str, kind: ProbeKind, verdict: bool) -> bool {
        let entry = self.of.entry(container_id.to_owned()).or_default();
        let place = match kind {
            ProbeKind::Startup => &mut entry.startup,
            ProbeKind::Liveness => &mut entry.liveness,
            ProbeKind::Readiness => &mut entry.readiness,
        };
        place.replace(verdict) != Some(verdict)
    }

    /// Forgets containers that do not run any more.
    pub fn keep(&mut self, is_running: impl Fn(&str) -> bool) {
        self.of.retain(|id, _| is_running(id));
    }
}

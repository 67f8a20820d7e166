//! Chooses a node for each pod, or says why none will do.
//!
//! The core is pure: a [`Snapshot`] of nodes with the pods on them and a [`PodInfo`] go in, a node's name or a
//! [`Misfit`] comes out ([`schedule`]). Around it, [`run`] keeps the snapshot by informers, takes pods from a queue by
//! priority, assumes a pod onto its node at once and binds it in the background. For a pod that fits nowhere pods of
//! lower priority may have to leave ([`preempt`]); otherwise it waits until something changed that could help it.
//! Talks to the API server only.

mod affinity;
mod bind;
mod bind_volumes;
mod budgets;
mod configuration;
mod counts;
mod csi_nodes;
mod cycle;
mod domains;
mod dra;
mod evict;
mod extender;
mod filter;
#[cfg(test)]
mod filter_tests;
mod groups;
mod hints;
mod kinds;
mod limits;
mod metrics;
mod place;
mod places;
mod pod;
mod pods;
mod preemption;
#[cfg(test)]
mod preemption_tests;
mod profile;
mod queue;
mod resources;
mod room;
mod rules;
mod run;
mod score;
#[cfg(test)]
mod score_tests;
mod selectors;
mod shared;
mod snapshot;
mod spread;
mod storage;
mod storage_capacity;
mod terms;
#[cfg(test)]
mod tests;
mod timings;
#[cfg(test)]
mod verdict_tests;
mod verdicts;
#[cfg(test)]
mod volume_tests;
mod volumes;
mod zones;

pub use configuration::{Configuration, ConfigurationError};
pub use cycle::{Choice, Misfit, schedule};
pub use dra::Devices;
pub use extender::ExtenderError;
pub use filter::Plugins;
pub use metrics::Metrics;
pub use pod::PodInfo;
pub use preemption::{Preemption, preempt};
pub use profile::{Profile, default_profile};
pub use resources::Resources;
pub use run::{Config, Error, run};
pub use selectors::Owner;
pub use snapshot::{NodeInfo, Snapshot};
pub use storage::Storage;

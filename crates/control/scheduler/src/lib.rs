//! Chooses a node for each pod, or says why none will do.
//!
//! The core is pure: a [`Snapshot`] of nodes with the pods on them and a [`PodInfo`] go in, a node's name or a
//! [`Misfit`] comes out ([`schedule`]). Around it, [`run`] keeps the snapshot by informers, takes pods from a queue by
//! priority, assumes a pod onto its node at once and binds it in the background. For a pod that fits nowhere pods of
//! lower priority may have to leave ([`preempt`]); otherwise it waits until something changed that could help it.
//! Talks to the API server only.

mod affinity;
mod bind_volumes;
mod csi_nodes;
mod cycle;
mod evict;
mod filter;
mod hints;
mod limits;
mod pod;
mod preemption;
#[cfg(test)]
mod preemption_tests;
mod queue;
mod resources;
mod run;
mod score;
mod snapshot;
mod spread;
mod storage;
mod terms;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod volume_tests;
mod volumes;

pub use cycle::{Misfit, schedule};
pub use filter::Plugins;
pub use pod::PodInfo;
pub use preemption::{Preemption, preempt};
pub use resources::Resources;
pub use run::{Config, Error, run};
pub use snapshot::{NodeInfo, Snapshot};
pub use storage::Storage;

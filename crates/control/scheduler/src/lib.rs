//! Chooses a node for each pod, or says why none will do.
//!
//! The core is pure: a [`Snapshot`] of nodes with the pods on them and a [`PodInfo`] go in, a node's name or a
//! [`Misfit`] comes out ([`schedule`]). Around it, [`run`] keeps the snapshot by informers, takes pods from a queue by
//! priority, assumes a pod onto its node at once and binds it in the background. A pod that fits nowhere waits until
//! something changed that could help it. Talks to the API server only.

mod affinity;
mod cycle;
mod filter;
mod pod;
mod queue;
mod resources;
mod run;
mod score;
mod snapshot;
mod spread;
#[cfg(test)]
mod tests;

pub use cycle::{Misfit, schedule};
pub use pod::PodInfo;
pub use resources::Resources;
pub use run::{Config, Error, run};
pub use snapshot::{NodeInfo, Snapshot};

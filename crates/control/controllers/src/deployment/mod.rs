//! Moves a Deployment's pods from one template to the next, through ReplicaSets.

mod plan;
mod reconcile;
mod revision;
mod rollout;
mod status;
#[cfg(test)]
mod tests;

pub use plan::resolve;
pub use reconcile::run;

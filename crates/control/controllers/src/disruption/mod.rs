//! Tells how many of the pods that a PodDisruptionBudget covers may be evicted now.

mod plan;
mod reconcile;
#[cfg(test)]
mod tests;

pub use reconcile::run;

//! Tells kubelets, by an annotation of their nodes, how long they may keep what they read of secrets and config maps.

mod plan;
mod reconcile;
#[cfg(test)]
mod tests;

pub use reconcile::run;

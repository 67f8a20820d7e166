//! Keeps pods that have a name, a place in an order and volumes of their own.
//!
//! Not supported yet: `persistentVolumeClaimRetentionPolicy` other than `Retain`, `maxUnavailable` above one.

mod plan;
mod reconcile;
#[cfg(test)]
mod tests;

pub use reconcile::run;

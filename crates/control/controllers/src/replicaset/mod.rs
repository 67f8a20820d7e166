//! Keeps as many pods as a ReplicaSet or a ReplicationController asks for.

mod plan;
mod reconcile;
mod set;
#[cfg(test)]
mod tests;

pub use reconcile::run;
pub use set::{RcSets, RsSets};

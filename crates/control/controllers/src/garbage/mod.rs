//! Deletes what its owners leave behind, in the background, in the foreground, or not at all.
//!
//! Holds, for every object of every kind, only who it is and who owns it; and of those without owners only that they
//! exist. Source of the behaviour: KEP and code of upstream's `garbagecollector`.

mod graph;
mod plan;
mod reconcile;
#[cfg(test)]
mod tests;
mod watch;

pub use reconcile::run;

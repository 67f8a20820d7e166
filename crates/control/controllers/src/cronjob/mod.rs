//! Makes Jobs at the times that a schedule names.
//!
//! Not supported yet: time zones other than UTC; an event says so.

mod plan;
mod reconcile;
mod schedule;
#[cfg(test)]
mod tests;

pub use reconcile::run;

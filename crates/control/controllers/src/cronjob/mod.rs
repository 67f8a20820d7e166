//! Starts Jobs at the times of a schedule, in a time zone.

mod plan;
mod reconcile;
mod schedule;
#[cfg(test)]
mod tests;
mod zone;

pub use reconcile::run;

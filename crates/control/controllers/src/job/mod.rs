//! Runs a Job's pods until enough of them have succeeded, or too many failed.
//!
//! Not supported yet: `podFailurePolicy`, `backoffLimitPerIndex`, `successPolicy`. A Job that asks for one of them is
//! left alone, and an event says so.

mod indexes;
mod plan;
mod reconcile;
#[cfg(test)]
mod tests;
mod track;

pub use plan::finished_at;
pub use reconcile::run;

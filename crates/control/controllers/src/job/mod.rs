//! Runs a Job's pods until enough of them have succeeded, or too many failed.

mod backoff;
mod indexes;
mod plan;
mod policy;
mod reconcile;
#[cfg(test)]
mod tests;
mod track;

pub use plan::finished_at;
pub use reconcile::run;

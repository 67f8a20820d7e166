//! Keeps one pod on every node that fits.
//!
//! Not supported yet: `maxSurge` (a rolling update replaces pods one after the other instead).

mod plan;
mod reconcile;
#[cfg(test)]
mod tests;

pub use reconcile::run;

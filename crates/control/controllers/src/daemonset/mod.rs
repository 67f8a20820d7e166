//! Keeps one pod on every node that fits.

mod backoff;
mod plan;
mod reconcile;
#[cfg(test)]
mod tests;

pub use reconcile::run;

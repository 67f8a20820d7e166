//! Counts what the quotas of a namespace limit, so that admission knows how much is left.

mod counts;
mod plan;
mod reconcile;
#[cfg(test)]
mod tests;

pub use reconcile::run;

//! Keeps the range of the Services' addresses while addresses of it are given away, and says that it is ready.
//!
//! Only the cluster's own range is served; others are not said to be ready.

mod plan;
mod reconcile;
#[cfg(test)]
mod tests;

pub use reconcile::run;

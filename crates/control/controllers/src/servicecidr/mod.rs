//! Keeps the ranges of the Services' addresses while addresses of them are given away, and says that they are ready.

mod plan;
mod reconcile;
#[cfg(test)]
mod tests;

pub use reconcile::run;

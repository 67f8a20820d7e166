//! Keeps pods that have a name, a place in an order and volumes of their own.

mod claims;
mod plan;
mod reconcile;
#[cfg(test)]
mod tests;

pub use reconcile::run;

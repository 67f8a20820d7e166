//! Gives every node its share of the pods' addresses.

mod plan;
mod reconcile;
#[cfg(test)]
mod tests;

pub use reconcile::run;

//! Empties namespaces that are being deleted, and lets them go.

mod plan;
mod reconcile;
#[cfg(test)]
mod tests;

pub use reconcile::run;

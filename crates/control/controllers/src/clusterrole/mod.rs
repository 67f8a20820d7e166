//! Fills ClusterRoles that aggregate others with the rules of those.

mod reconcile;
#[cfg(test)]
mod tests;

pub use reconcile::run;

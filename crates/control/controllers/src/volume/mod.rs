//! Says of volumes that nobody claimed that they are available. Volumes are not bound to claims.

mod reconcile;
#[cfg(test)]
mod tests;

pub use reconcile::run;

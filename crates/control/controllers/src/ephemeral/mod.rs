//! Creates the claims of pods that bring their volumes with them.

mod plan;
mod reconcile;
#[cfg(test)]
mod tests;

pub use reconcile::run;

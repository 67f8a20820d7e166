//! Deletes Jobs some time after they finished, if they ask for it.

mod reconcile;
#[cfg(test)]
mod tests;

pub use reconcile::run;

//! Signs the approved requests for certificates of the built-in signers, and removes requests that are over.

mod approve;
mod plan;
mod reconcile;
#[cfg(test)]
mod tests;

pub use reconcile::run;

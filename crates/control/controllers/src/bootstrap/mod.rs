//! Tokens by which nodes join: signs with them what everybody may read of the cluster, and deletes them when their time
//! is over.

mod plan;
mod reconcile;
#[cfg(test)]
mod tests;

pub use plan::signature;
pub use reconcile::{run_cleaner, run_signer};

//! Gives every namespace its `default` ServiceAccount and the certificates to trust the API server by.

mod reconcile;
#[cfg(test)]
mod tests;

pub use reconcile::{run_accounts, run_root_ca};

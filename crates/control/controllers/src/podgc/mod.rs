//! Removes pods that no kubelet will ever remove: of nodes that are gone, and deleted before they had one.

mod reconcile;
#[cfg(test)]
mod tests;

pub use reconcile::run;

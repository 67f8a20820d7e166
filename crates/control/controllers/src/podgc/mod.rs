//! Removes pods that no kubelet will ever remove: of nodes that are gone or out of service, deleted before they had one,
//! and finished ones that are too many.

mod plan;
mod reconcile;
#[cfg(test)]
mod tests;

pub use reconcile::run;

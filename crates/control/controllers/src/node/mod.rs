//! Watches over nodes: notices the silent ones, taints them, and moves pods away from taints that they can't bear.

mod eviction;
mod plan;
mod reconcile;
#[cfg(test)]
mod tests;

pub use eviction::{disrupt, run as run_eviction};
pub use plan::{Bears, bears, is_out_of_service, is_ready};
pub use reconcile::{BY_NODE, node_of, run};

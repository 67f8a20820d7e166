//! Watches over nodes: notices the silent ones, taints them, and moves pods away from taints that they can't bear.

mod eviction;
mod plan;
mod rate;
mod reconcile;
mod settings;
#[cfg(test)]
mod tests;
mod zones;
#[cfg(test)]
mod zones_tests;

pub use eviction::{disrupt, run as run_eviction};
pub use plan::{Bears, bears, is_out_of_service, is_ready};
pub use reconcile::{BY_NODE, node_of, run};
pub use settings::Settings;

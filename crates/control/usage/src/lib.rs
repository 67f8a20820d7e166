//! What nodes, pods and containers use, from samples of their kubelets: metrics.k8s.io.
//!
//! A kubelet counts processor time from the start; a rate needs two samples. [`Sample::parse`] reads one,
//! [`Samples`] keeps the last two of a node, and [`objects`] writes what clients see. Nothing here asks anybody.

mod exposition;
pub mod objects;
mod samples;

pub use exposition::Sample;
pub use samples::{Rate, Samples};

//! HorizontalPodAutoscalers: keeps the number of pods such that what they use is near what was asked for.
//!
//! `plan.rs` turns what pods use into a number of pods, `limits.rs` says how far and how fast that may be followed,
//! `source.rs` asks the metrics APIs, `metrics.rs` evaluates what an autoscaler names.

mod limits;
mod metrics;
mod plan;
mod reconcile;
mod settings;
mod source;
#[cfg(test)]
mod tests;

pub use reconcile::run;
pub use settings::{Settings, Youth};

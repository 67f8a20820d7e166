//! Estimates costs.
use crate::check::Tree;
use crate::cost::{CostEstimate, SizeEstimator};
use crate::env::Env;
pub(crate) fn estimate(_tree: &Tree, _env: &Env, _sizes: &dyn SizeEstimator) -> CostEstimate {
    CostEstimate { min: 0, max: u64::MAX }
}

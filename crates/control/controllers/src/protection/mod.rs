//! Lets claims, volumes and classes of volume attributes go only when nobody uses them any more.

mod claims;
mod classes;
mod plan;
#[cfg(test)]
mod tests;
mod volumes;

pub use claims::{BY_CLAIM, claims_of_placed, run as run_claims};
pub use classes::run as run_classes;
pub use volumes::run as run_volumes;

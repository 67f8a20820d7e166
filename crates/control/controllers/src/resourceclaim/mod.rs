//! Makes the claims of devices that pods ask for by templates, and lets claims go that no pod uses any more.

mod plan;
mod reconcile;
#[cfg(test)]
mod tests;

pub use plan::claims_of as claims_of_pod;
pub use reconcile::run;

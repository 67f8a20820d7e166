//! Writes down which pods stand behind each Service: as EndpointSlices, and as Endpoints for older readers.
//! Endpoints that people write are mirrored into slices.

mod legacy;
mod mirror;
mod plan;
mod reconcile;
mod slices;
#[cfg(test)]
mod tests;
mod topology;

pub use legacy::run as run_legacy;
pub use mirror::run as run_mirror;
pub use reconcile::run;

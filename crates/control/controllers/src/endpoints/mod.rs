//! Writes down which pods stand behind each Service: as EndpointSlices, and as Endpoints for older readers.

mod legacy;
mod plan;
mod reconcile;
mod slices;
#[cfg(test)]
mod tests;

pub use legacy::run as run_legacy;
pub use reconcile::run;

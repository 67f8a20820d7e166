//! Says of claims that grow that whoever is outside has to make their volume larger: no driver inside can.

mod plan;
mod reconcile;
#[cfg(test)]
mod tests;

pub use reconcile::run;

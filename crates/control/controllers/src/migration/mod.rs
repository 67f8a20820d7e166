//! Writes all objects of a resource anew, in the version that is stored now, where a StorageVersionMigration asks for it.

mod plan;
mod reconcile;
#[cfg(test)]
mod tests;

pub use reconcile::run;

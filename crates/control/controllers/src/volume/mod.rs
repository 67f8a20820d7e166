//! Binds claims to volumes, asks external provisioners for volumes that are missing, and reclaims what was released.
//!
//! Volumes are matched by size, class, modes and labels; a claim whose class waits for its first consumer is bound by
//! the scheduler, and only finished here. There are no provisioners, deleters or recyclers inside: a volume that asks
//! for one fails with upstream's words.

mod matching;
mod plan;
mod reconcile;
#[cfg(test)]
mod tests;

pub use reconcile::run;

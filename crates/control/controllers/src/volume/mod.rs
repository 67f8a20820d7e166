//! Binds claims to volumes, asks external provisioners for volumes that are missing, and reclaims what was released.
//!
//! Volumes are matched by size, class, modes and labels; a claim whose class waits for its first consumer is bound by
//! the scheduler, and only finished here. Provisioners are others, `provisioner` among them; there are no deleters or
//! recyclers inside: a volume that asks for one fails with upstream's words.

mod plan;
mod reconcile;
#[cfg(test)]
mod tests;

pub use reconcile::run;

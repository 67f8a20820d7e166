//! Runs real sandboxes and containers through the engine and this crate's shim. Needs root, and says so.

mod confinement;
mod lifecycle;
mod machine;
mod mounts;
mod restart;
mod streams;

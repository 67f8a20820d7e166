//! Runs real sandboxes and containers through the engine and this crate's shim. Needs root, and says so.

mod confinement;
mod escapes;
mod lifecycle;
mod machine;
mod mounts;
mod options;
mod restart;
mod streams;

//! Carries the small binaries that pintle brings with it: shim, pause, hello and the OCI runtime.
//!
//! `build.rs` builds them as static executables with the `guest` profile, so that a plain `cargo build` makes one
//! binary that needs nothing beside it.

/// Starts the containers of one pod and stays beside them.
pub const SHIM: &[u8] = include_bytes!(env!("PINTLE_GUEST_SHIM"));
/// The init of a pod whose containers share a PID namespace; also the image `pintle/pause`.
pub const PAUSE: &[u8] = include_bytes!(env!("PINTLE_GUEST_PAUSE"));
/// The server in the image `pintle/hello`.
pub const HELLO: &[u8] = include_bytes!(env!("PINTLE_GUEST_HELLO"));
/// The OCI runtime's command line.
pub const OCI: &[u8] = include_bytes!(env!("PINTLE_GUEST_OCI"));

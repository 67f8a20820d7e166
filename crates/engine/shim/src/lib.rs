//! Starts the containers of one sandbox and stays beside them: stdio, logs, exits.
//!
//! One `pintle-shim` process serves one sandbox. It is single-threaded, so that it may fork; it lives in the
//! sandbox's network, ipc and uts namespaces, which its children inherit; and it outlives the daemon, which finds it
//! again by its socket. The daemon binds that socket and hands it over as stdin, so there is no moment at which it
//! is not there. `protocol` is what both sides say; everything else runs in the shim only.
//!
//! How a container starts: `prepare` opens on the host what the container will see (bind sources, pipes, the layers of
//! its root), then the shim forks into new namespaces, and the child builds its root (`rootfs`), lets go of the host,
//! takes its identity (`identity`) and executes. It reports over a socket that exec closes: words mean that it failed.
//! The child's mounts are a copy of the few that the daemon hands over (`pintle_linux::bare_mounts`), and only where
//! something has to be found by its path one of the machine's, whose number grows with that of the sandboxes.
//!
//! `prepare`, `rootfs`, `identity`, `join` and `user_namespace` are one mechanism with two faces: the OCI runtime
//! command line (`pintle-oci`) starts what bundles describe with the same code.
//!
//! The shim's own program is never reachable from a container: the daemon executes it from a sealed memory file, and
//! it is not dumpable, so its descriptors, memory and root are closed to what shares a pid namespace with it.

pub mod identity;
pub mod init;
pub mod join;
pub mod pause;
pub mod prepare;
pub mod protocol;
pub mod rootfs;
pub mod server;
pub mod user_namespace;

mod attach;
mod cri_log;
mod launch;
mod log_file;
mod log_ring;
mod sandbox;
mod task;
mod users;

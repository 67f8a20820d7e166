//! Starts the containers of one sandbox and stays beside them: stdio, logs, exits.
//!
//! One `pintle-shim` process serves one sandbox. It is single-threaded, so that it may fork; it lives in the
//! sandbox's network, ipc and uts namespaces, which its children inherit; and it outlives the daemon, which finds it
//! again by its socket. The daemon binds that socket and hands it over as stdin, so there is no moment at which it
//! is not there. `protocol` is what both sides say; everything else runs in the shim only.
//!
//! How a container starts: `prepare` opens on the host what the container will see (bind sources, pipes), then the
//! shim forks into new namespaces, and the child builds its root (`rootfs`), lets go of the host, takes its identity
//! (`identity`) and executes. It reports over a socket that exec closes: words mean that it failed.
//!
//! The shim's own program is never reachable from a container: the daemon executes it from a sealed memory file, and
//! it is not dumpable, so its descriptors, memory and root are closed to what shares a pid namespace with it.

pub mod init;
pub mod pause;
pub mod protocol;
pub mod server;

mod attach;
mod cri_log;
mod identity;
mod join;
mod launch;
mod prepare;
mod rootfs;
mod sandbox;
mod task;
mod user_namespace;
mod users;

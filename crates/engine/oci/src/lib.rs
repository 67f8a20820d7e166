//! The OCI runtime command line on the set-up of our own containers: one mechanism, two faces.
//!
//! `pintle-shim` starts what the daemon tells it and stays beside it; this starts what a bundle's `config.json`
//! describes and goes (OCI runtime specification 1.2, runc's command line). Both use `pintle_shim::{rootfs, identity,
//! user_namespace}` for the root and the program, and `pintle_linux` for namespaces, mounts and cgroups.
//!
//! How a container comes: `create` clones bind sources, makes the cgroup, and forks once into all new namespaces. The
//! child joins the others, says so, and waits while the runtime's hooks run; then it builds its root, enters it, and
//! listens on `ROOT/ID/start`. `create` goes, and the child becomes its subreaper's. `start` connects there; the end
//! of that connection without a word is the program's start.
//!
//! ```text
//! ROOT/ID/state.json   what `create` did: process, cgroup, bundle (state.rs)
//! ROOT/ID/config.json  the bundle's configuration as it was then
//! ROOT/ID/start        the socket; there from `create` to `start`
//! ```
//! Nothing else is kept: whether it runs is asked of the kernel, by process number and start time. The directory is
//! locked while a command changes the container.
//!
//! | module | what |
//! |---|---|
//! | `command` | which command with which flags |
//! | `bundle` | `config.json` as it is read |
//! | `process`, `resources`, `mounts` | its parts in the words of the start path |
//! | `create`, `child` | both sides of the fork; `exec` for further processes |
//! | `lifecycle`, `report` | what happens to a container later, and what is told of it |
//!
//! Not there, and refused: checkpoint and restore, systemd's cgroups, time namespaces, seccomp notification, Intel
//! RDT, AppArmor and SELinux labels. It knows nothing of images or networks.

mod arguments;
mod bundle;
mod child;
mod command;
mod console;
mod create;
mod exec;
mod hooks;
mod lifecycle;
mod log;
mod mounts;
mod process;
mod protect;
mod report;
mod resources;
mod specification;
mod state;

pub use command::run;

/// Why a command was not done, in words for the one who called.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Message(String),
    #[error(transparent)]
    System(#[from] pintle_linux::Error),
    #[error("{0}")]
    Failure(#[from] pintle_shim::protocol::Failure),
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    fn new(message: impl Into<String>) -> Self {
        Self::Message(message.into())
    }
}

/// Fails with a message.
fn refuse<T>(message: impl Into<String>) -> Result<T> {
    Err(Error::new(message))
}

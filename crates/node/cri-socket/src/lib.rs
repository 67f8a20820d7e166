//! CRI over a unix socket: serves any runtime, and is a runtime over any server.
//!
//! [`CriServer`] answers `runtime.v1` (kubelets, crictl) from a [`pintle_cri::Runtime`]; [`RemoteRuntime`] is one over
//! the socket of another runtime, such as containerd. Both convert by the same tables ([`messages`], `convert`), so a
//! runtime behind both is the runtime itself, except for what CRI has no words for: limits of processes of a container,
//! its log's size (those who ask over the socket rotate logs, as [`RemoteRuntime`] does when it is told a limit), and the
//! process' number, which is in the verbose answer alone. Knows nothing of the engine, nor of pods.

mod client;
mod convert;
pub mod messages;
mod server;

pub use client::RemoteRuntime;
pub use server::CriServer;

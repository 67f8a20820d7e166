//! SPDY/3.1 as Kubernetes uses it: a session over one connection, whose client opens all streams.
//!
//! Neither side keeps flow-control windows (the clients' library has none): bounded queues and the connection
//! itself hold back the fast. Source: the SPDY/3.1 draft; moby/spdystream's behaviour.

mod client;
mod dictionary;
mod frame;
mod session;

pub use client::{Client, connect};
pub use frame::{Frame, FrameError, MAX_FRAME_BYTES};
pub use session::{Session, Stream, serve};

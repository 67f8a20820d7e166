//! SPDY/3.1 as Kubernetes uses it: a server's session over one connection, whose client opens all streams.
//!
//! Neither side keeps flow-control windows (the clients' library has none): bounded queues and the connection
//! itself hold back the fast. Source: the SPDY/3.1 draft; moby/spdystream's behaviour.

mod dictionary;
mod frame;
mod session;

pub use frame::{Frame, FrameError, MAX_FRAME_BYTES};
pub use session::{Session, Stream, serve};

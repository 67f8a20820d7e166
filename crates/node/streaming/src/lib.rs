//! Carries exec, attach and port-forward streams over WebSocket and SPDY/3.1: both sides.
//!
//! Clients ask by an HTTP upgrade. Which of the dialects they speak is settled here; the caller sees plain byte
//! streams either way. Knows nothing of where the streams lead, but that [`join`] can join them with a runtime's.
//!
//! | request | dialect | who |
//! |---|---|---|
//! | exec, attach | WebSocket `v5.channel.k8s.io`, `v4.channel.k8s.io`, `channel.k8s.io` | kubectl 1.30 and later, client libraries |
//! | exec, attach | SPDY/3.1 with `v4.channel.k8s.io` | older kubectl |
//! | port-forward | SPDY/3.1 inside WebSocket, `SPDY/3.1+portforward.k8s.io` (KEP-4006) | kubectl 1.31 and later |
//! | port-forward | SPDY/3.1 with `portforward.k8s.io` | older kubectl |
//! | port-forward | WebSocket `v4.channel.k8s.io` with `?ports=` | client libraries |

mod channels;
mod dial;
mod exec;
mod forward;
mod join;
mod pipe;
pub mod spdy;
mod status;
mod tunnel;
mod upgrade;

pub use dial::{DialError, dial_exec, dial_port};
pub use exec::{ExecStreams, Wants, upgrade_exec};
pub use forward::{PortForward, PortStream, upgrade_port_forward};
pub use join::{ClientStreams, exec, forward, join};
pub use status::StatusWriter;
pub use upgrade::UpgradeError;

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::Full;

/// The answer to send at once, and what comes of it when the client has switched over.
pub struct Upgraded<T> {
    pub response: http::Response<Full<Bytes>>,
    /// Resolves after `response` has been sent, within the limit of time that a client has to open its streams.
    pub streams: BoxFuture<'static, Result<T, UpgradeError>>,
}

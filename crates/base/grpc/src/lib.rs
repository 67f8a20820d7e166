//! gRPC over HTTP/2: calls over a channel, and a server on a unix socket.
//!
//! ```text
//! let answer: VersionResponse = channel.call("/runtime.v1.RuntimeService/Version", &request, timeout).await?;
//! ```
//!
//! Messages are those of `pintle_protobuf`, whose tables can be written by the names of this crate, too.
//!
//! Sources: "gRPC over HTTP2" and "HTTP to gRPC Status Code Mapping" of the gRPC project.
//! Messages are never compressed. Knows nothing of what is called.

mod client;
mod frames;
mod server;
mod socket;
mod status;

pub use client::{Answers, CallError, Channel, ChannelOptions, Messages, Stream};
pub use pintle_protobuf::{DecodeError, Decoder, Field, Item, Message, Oneof, decode, messages, oneofs, wire};
pub use server::{Answer, Call, Limits, Service, bind, serve};
pub use socket::SocketClient;
pub use status::{Code, Status};

/// The greatest message that either side takes, in bytes, where nothing else is said; as upstream's kubelet.
pub const MAX_MESSAGE: usize = 16 << 20;

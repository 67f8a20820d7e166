//! gRPC over HTTP/2: protocol buffers from tables, calls over a channel, and a server on a unix socket.
//!
//! ```text
//! pintle_grpc::messages! {
//!     /// Asks for the version.
//!     VersionRequest { 1 version: String, }
//!     Volume {
//!         1 id: String,                            // a scalar: String, Bytes, bool, i32, i64, u32, u64, f32, f64
//!         2 parent: Option<VersionRequest>,        // a message; `Box` it when it holds itself
//!         3 sizes: Vec<u64>,                       // repeated
//!         4 labels: BTreeMap<String, String>,      // a map
//!         oneof access: Access,                    // of the table below
//!     }
//! }
//! pintle_grpc::oneofs! {
//!     Access { 5 Block(Block), 6 Mount(Mount), }
//! }
//! let answer: VersionResponse = channel.call("/runtime.v1.RuntimeService/Version", &request, timeout).await?;
//! ```
//!
//! Sources: "gRPC over HTTP2" and "HTTP to gRPC Status Code Mapping" of the gRPC project; protobuf's encoding guide.
//! Messages are never compressed. Knows nothing of what is called.

mod client;
mod frames;
mod message;
mod server;
mod socket;
mod status;
pub mod wire;

pub use client::{Answers, CallError, Channel, ChannelOptions, Messages, Stream};
pub use message::{DecodeError, Decoder, Field, Item, Message, Oneof, decode};
pub use server::{Answer, Call, Limits, Service, bind, serve};
pub use socket::SocketClient;
pub use status::{Code, Status};

#[doc(hidden)]
pub use bytes;

/// The greatest message that either side takes, in bytes, where nothing else is said; as upstream's kubelet.
pub const MAX_MESSAGE: usize = 16 << 20;

//! Protocol buffers: their form on the wire ([`wire`]), and messages from tables.
//!
//! ```text
//! pintle_protobuf::messages! {
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
//! pintle_protobuf::oneofs! {
//!     Access { 5 Block(Block), 6 Mount(Mount), }
//! }
//! ```

mod message;
pub mod wire;

pub use message::{DecodeError, Decoder, Field, Item, Message, Oneof, decode};

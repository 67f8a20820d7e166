//! Joins parts that know nothing of each other: each adapter gives one part the trait that another one asks for.

mod images;
mod network;
mod streaming;

pub(crate) use images::StoredImages;
pub(crate) use network::{BridgedSandboxes, NoPodNetwork, PluggedSandboxes};
pub(crate) use streaming::Streams;

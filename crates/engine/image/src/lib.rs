//! Stores images: blobs by digest, archives in, unpacked layers, and writable snapshots on top of them.
//!
//! On disk, below the store's root:
//!
//! ```text
//! images.json                    every image: its manifest, configuration, layers and names (replaced by rename)
//! blobs/sha256/<hex>             manifests, configurations and layers as they came, named by their digest
//! layers/<chain id>/             one unpacked layer, in overlayfs form (whiteouts are 0:0 devices)
//! snapshots/<key>/{upper,work}   a container's own layer; `chain` lists the layers below it. Without `work` it is a
//!                                copy of them all, made where overlayfs is refused
//! ingest/                        what is being written; emptied when the store opens
//! ```
//!
//! Everything becomes visible by a rename after it was written and synced, so a crash leaves either the whole thing
//! or something below `ingest/`. Calls block on the disk: asynchronous callers use a blocking thread.
//! Knows nothing of running containers.

mod archive;
mod assemble;
mod blobs;
mod commit;
mod compress;
mod configuration;
mod copies;
mod decompress;
mod entries;
mod history;
mod index;
mod layer;
mod receive;
mod record;
mod reference;
mod removal;
mod save;
mod snapshot;
mod store;
mod tarball;
mod tree;
mod untar;

pub use assemble::{BuiltinFile, BuiltinImage};
pub use blobs::digest_of;
pub use commit::{Commit, CommitSource, Import};
pub use configuration::apply_changes;
pub use decompress::decompressed;
pub use history::HistoryEntry;
pub use layer::chain_ids;
pub use receive::{Lease, Received};
pub use record::{ImageRecord, LayerRecord};
pub use reference::{Reference, ReferenceError};
pub use removal::{ImageUser, PruneFilter, Pruned, Removed};
pub use snapshot::{SnapshotForm, SnapshotMounts};
pub use store::{ImageStore, LoadedImage, diff_ids_of};
pub use tree::{Change, ChangeKind};

use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("{action} {path}: {source}")]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{0}")]
    Reference(#[from] ReferenceError),
    #[error("no such image: {0}")]
    NotFound(String),
    /// In the words of `docker save`.
    #[error("reference does not exist")]
    NoReference(String),
    #[error("no such snapshot: {0}")]
    NoSnapshot(String),
    /// A change of a configuration that cannot be made, or a filter that makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// A stream ended before its archive did.
    #[error("unexpected EOF")]
    CutShort,
    /// The archive or layer is not what it should be.
    #[error("invalid archive: {0}")]
    BadArchive(String),
    #[error("{what} has digest {actual}, not {expected} as its name says")]
    DigestMismatch { what: String, expected: String, actual: String },
    #[error("{0}")]
    Conflict(String),
    #[error("the image store's index {path} is damaged: {why}")]
    BadIndex { path: PathBuf, why: String },
}

pub type Result<T> = std::result::Result<T, ImageError>;

/// Puts the action and path into an input/output error.
pub(crate) trait At<T> {
    fn at(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T>;
}

impl<T, E: Into<std::io::Error>> At<T> for std::result::Result<T, E> {
    fn at(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T> {
        self.map_err(|source| ImageError::Io { action, path: path.into(), source: source.into() })
    }
}

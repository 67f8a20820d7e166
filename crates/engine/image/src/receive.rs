//! Takes in what comes from a registry or a build: layers that are verified and unpacked while they stream.
//!
//! What is not named by an image yet would be swept away: whoever brings something in holds a [`Lease`] until it is
//! listed.

use crate::archive::Found;
use crate::blobs::Hashing;
use crate::decompress::decompressed;
use crate::record::ImageRecord;
use crate::{At, ImageError, ImageStore, Reference, Result, untar};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// While it is held, nothing is swept; what was to be swept meanwhile goes when the last one is dropped.
pub struct Lease(Arc<ImageStore>);

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.release();
    }
}

impl Lease {
    pub fn of(store: &Arc<ImageStore>) -> Self {
        store.acquire();
        Self(Arc::clone(store))
    }
}

/// The same for as long as a call takes.
pub(crate) struct Held<'a>(&'a ImageStore);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.release();
    }
}

impl ImageStore {
    pub(crate) fn hold(&self) -> Held<'_> {
        self.acquire();
        Held(self)
    }

    fn acquire(&self) {
        let _not_sweeping = self.sweeping.read();
        self.leases.fetch_add(1, Ordering::AcqRel);
    }

    fn release(&self) {
        let last = self.leases.fetch_sub(1, Ordering::AcqRel) == 1;
        if last && self.sweep_later.swap(false, Ordering::AcqRel) {
            // Nobody waits for it: the next sweep tries again, and says why where someone asks for it.
            let _ = self.sweep();
        }
    }
}

/// An image whose blobs and layers are in the store, to be listed.
#[derive(Clone, Debug)]
pub struct Received {
    /// Digest of the manifest's blob.
    pub manifest: String,
    /// Digest of the configuration's blob: the image's id.
    pub configuration: String,
    /// Digests and sizes of the layers' blobs, lowest first.
    pub layers: Vec<(String, u64)>,
    /// The name that it gets.
    pub tag: Option<Reference>,
    /// The repository that it came from, with the digest that it has there.
    pub origin: Option<Reference>,
}

impl ImageStore {
    pub fn has_blob(&self, digest: &str) -> bool {
        self.blobs().path(digest).exists()
    }

    /// Where a blob is, for those who read it in pieces.
    pub fn blob_path(&self, digest: &str) -> PathBuf {
        self.blobs().path(digest)
    }

    /// Reads a small blob whole.
    ///
    /// # Errors
    /// When it is not there, or has more than `limit` bytes.
    pub fn read_blob(&self, digest: &str, limit: u64) -> Result<Vec<u8>> {
        self.blobs().read(digest, limit)
    }

    /// Stores a small blob; returns its digest.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<String> {
        self.blobs().put(bytes)
    }

    /// Whether a layer is unpacked.
    pub fn has_layer(&self, chain_id: &str) -> bool {
        self.layers().path(chain_id).exists()
    }

    /// Stores a layer's blob and unpacks it, in one pass over the stream.
    ///
    /// # Errors
    /// When the stream is not what `digest` (of the bytes) and `diff_id` (of the uncompressed content) say; then
    /// nothing is left of it.
    pub fn receive_layer(&self, source: impl Read + Send, digest: &str, chain_id: &str, diff_id: &str) -> Result<u64> {
        let ingest = self.root().join("ingest");
        let temporary = tempfile::NamedTempFile::new_in(&ingest).at("create a file in", &ingest)?;
        let directory = tempfile::tempdir_in(&ingest).at("create a directory in", &ingest)?;
        let root = directory.path().join("fs");
        std::fs::create_dir(&root).at("create", &root)?;
        let mut tee = Tee { source: Hashing::new(source), file: temporary.as_file() };
        let unpacked = unpack(&mut tee, &root, diff_id);
        if unpacked.is_ok() {
            crate::entries::copy(&mut tee, |_| Ok(())).at("write", temporary.path())?;
        }
        let (actual, bytes, _) = tee.source.finish();
        // A cut stream fails to unpack too: the stream's own error says more.
        let content = unpacked?;
        if actual != digest {
            return Err(ImageError::DigestMismatch { what: "a layer".into(), expected: digest.into(), actual });
        }
        let path = self.blobs().path(digest);
        temporary.persist(&path).map_err(|e| e.error).at("rename to", &path)?;
        self.layers().place(&root, chain_id, content)?;
        Ok(bytes)
    }

    /// Lists an image that was received.
    pub fn list_received(&self, received: Received) -> Result<ImageRecord> {
        let names = received.tag.iter().map(Reference::to_string).collect();
        let found = Found {
            names,
            configuration: received.configuration.clone(),
            manifest: Some(received.manifest),
            layers: received.layers,
        };
        self.adopt_found(found)?;
        if let Some(origin) = received.origin {
            self.note_origin(&received.configuration, &origin)?;
        }
        self.resolve(&received.configuration).ok_or(ImageError::NotFound(received.configuration))
    }
}

fn unpack(tee: &mut Tee<'_, impl Read + Send>, root: &std::path::Path, diff_id: &str) -> Result<u64> {
    let mut hashing = Hashing::new(decompressed(tee).at("read", root)?);
    let content = untar::unpack(&mut hashing, root)?;
    // What follows the archive's end still belongs to the digest.
    crate::entries::copy(&mut hashing, |_| Ok(())).at("read", root)?;
    let (actual, _, _) = hashing.finish();
    if actual != diff_id {
        return Err(ImageError::DigestMismatch { what: "a layer".into(), expected: diff_id.into(), actual });
    }
    Ok(content)
}

/// Writes what is read to a file as well.
struct Tee<'a, R> {
    source: Hashing<R>,
    file: &'a File,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.file.write_all(&buffer[..count])?;
        Ok(count)
    }
}

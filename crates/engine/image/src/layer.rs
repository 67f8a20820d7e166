//! Unpacked layers: each once, under the chain ID of itself and all below it.
//!
//! A layer's directory appears by a rename when it is complete and its digest has been verified.

use crate::blobs::Hashing;
use crate::decompress::decompressed;
use crate::{At, ImageError, Result, untar};
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// The chain IDs of layers given by their diff IDs, lowest first (OCI image specification, "Layer ChainID").
pub fn chain_ids(diff_ids: &[String]) -> Vec<String> {
    let mut chain: Vec<String> = Vec::with_capacity(diff_ids.len());
    for diff in diff_ids {
        let next = match chain.last() {
            None => diff.clone(),
            Some(below) => format!("sha256:{}", hex::encode(Sha256::digest(format!("{below} {diff}")))),
        };
        chain.push(next);
    }
    chain
}

pub(crate) struct Layers {
    directory: PathBuf,
    ingest: PathBuf,
    /// Bytes of files, of the layers that were unpacked or measured since the store opened.
    sizes: parking_lot::Mutex<HashMap<String, u64>>,
}

impl Layers {
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let (directory, ingest) = (root.join("layers"), root.join("ingest"));
        fs::create_dir_all(&directory).at("create", &directory)?;
        Ok(Self { directory, ingest, sizes: Default::default() })
    }

    pub(crate) fn path(&self, chain_id: &str) -> PathBuf {
        self.directory.join(chain_id.trim_start_matches("sha256:"))
    }

    /// Bytes of a layer's files: what its archive says, so that a file with two names counts once.
    pub(crate) fn content_size(&self, chain_id: &str) -> Result<u64> {
        if let Some(size) = self.sizes.lock().get(chain_id) {
            return Ok(*size);
        }
        let size = crate::tree::file_bytes(&self.path(chain_id))?;
        self.note_size(chain_id, size);
        Ok(size)
    }

    pub(crate) fn note_size(&self, chain_id: &str, bytes: u64) {
        self.sizes.lock().insert(chain_id.to_owned(), bytes);
    }

    /// Unpacks the blob at `blob` as the layer `chain_id`, whose uncompressed content must have the digest `diff_id`.
    /// Does nothing when the layer is there.
    pub(crate) fn unpack(&self, blob: &Path, chain_id: &str, diff_id: &str) -> Result<()> {
        let target = self.path(chain_id);
        if target.exists() {
            return Ok(());
        }
        let temporary = tempfile::tempdir_in(&self.ingest).at("create a directory in", &self.ingest)?;
        let root = temporary.path().join("fs");
        fs::create_dir(&root).at("create", &root)?;
        let (actual, content) = self.unpack_to(blob, &root)?;
        if actual != diff_id {
            return Err(ImageError::DigestMismatch { what: "a layer".into(), expected: diff_id.into(), actual });
        }
        self.place(&root, chain_id, content)
    }

    /// Unpacks a blob into an empty directory; returns the digest of its uncompressed content, and bytes of files.
    pub(crate) fn unpack_to(&self, blob: &Path, root: &Path) -> Result<(String, u64)> {
        let file = File::open(blob).at("open", blob)?;
        let mut hashing = Hashing::new(decompressed(file).at("read", blob)?);
        let content = untar::unpack(&mut hashing, root)?;
        // What follows the archive's end still belongs to the digest.
        crate::entries::copy(&mut hashing, |_| Ok(())).at("read", blob)?;
        Ok((hashing.finish().0, content))
    }

    /// Puts an unpacked and verified layer into its place.
    pub(crate) fn place(&self, root: &Path, chain_id: &str, content: u64) -> Result<()> {
        let target = self.path(chain_id);
        self.note_size(chain_id, content);
        match fs::rename(root, &target) {
            // Someone else unpacked the same layer meanwhile.
            Err(_) if target.exists() => Ok(()),
            other => other.at("rename to", &target),
        }
    }

    /// Moves every layer whose chain ID is not in `used` into the directory `aside`.
    pub(crate) fn set_aside(&self, used: &HashSet<String>, aside: &Path) -> Result<()> {
        crate::blobs::set_unused_aside(&self.directory, used, aside)
    }

    /// Removes a layer, if it is there. It leaves its place in one step: a layer that is there is whole, also when this
    /// is cut off.
    pub(crate) fn discard(&self, chain_id: &str) -> Result<()> {
        let path = self.path(chain_id);
        let aside = tempfile::tempdir_in(&self.ingest).at("create a directory in", &self.ingest)?;
        match fs::rename(&path, aside.path().join("fs")) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.at("move away", &path),
        }?;
        aside.close().at("remove", &path)
    }
}

#[cfg(test)]
mod tests {
    use super::chain_ids;

    #[test]
    fn a_chain_id_covers_all_layers_below() {
        let ids = chain_ids(&["sha256:a".into(), "sha256:b".into(), "sha256:c".into()]);
        assert_eq!(ids[0], "sha256:a");
        // echo -n "sha256:a sha256:b" | sha256sum
        assert_eq!(
            ids[1],
            format!("sha256:{}", hex::encode(<sha2::Sha256 as sha2::Digest>::digest("sha256:a sha256:b")))
        );
        assert_ne!(ids[2], ids[1]);
    }
}

//! Content by digest: written below `ingest/`, verified while it streams, renamed to its name.

use crate::{At, ImageError, Result};
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Passes bytes on and hashes them.
pub(crate) struct Hashing<T> {
    inner: T,
    hash: Sha256,
    pub(crate) bytes: u64,
}

impl<T> Hashing<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self { inner, hash: Sha256::new(), bytes: 0 }
    }
    pub(crate) fn finish(self) -> (String, u64, T) {
        (digest_text(self.hash), self.bytes, self.inner)
    }
    fn note(&mut self, data: &[u8]) {
        self.hash.update(data);
        self.bytes += data.len() as u64;
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.note(&buffer[..n]);
        Ok(n)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(data)?;
        self.note(&data[..n]);
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn digest_text(hash: Sha256) -> String {
    format!("sha256:{}", hex::encode(hash.finalize()))
}

/// The digest of some bytes, as `sha256:…`.
pub fn digest_of(bytes: &[u8]) -> String {
    digest_text(Sha256::new_with_prefix(bytes))
}

/// The directory of blobs.
pub(crate) struct Blobs {
    directory: PathBuf,
    ingest: PathBuf,
}

impl Blobs {
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let (directory, ingest) = (root.join("blobs/sha256"), root.join("ingest"));
        fs::create_dir_all(&directory).at("create", &directory)?;
        Ok(Self { directory, ingest })
    }

    /// Where the blob of a digest is, whether it exists or not.
    pub(crate) fn path(&self, digest: &str) -> PathBuf {
        self.directory.join(digest.trim_start_matches("sha256:"))
    }

    /// Reads a small blob whole.
    pub(crate) fn read(&self, digest: &str, limit: u64) -> Result<Vec<u8>> {
        let path = self.path(digest);
        let file = File::open(&path).at("open", &path)?;
        let mut bytes = Vec::new();
        file.take(limit + 1).read_to_end(&mut bytes).at("read", &path)?;
        if bytes.len() as u64 > limit {
            return Err(ImageError::BadArchive(format!("{digest} is larger than {limit} bytes")));
        }
        Ok(bytes)
    }

    pub(crate) fn put(&self, bytes: &[u8]) -> Result<String> {
        self.ingest_from(&mut &bytes[..], None).map(|(digest, _)| digest)
    }

    /// Stores a stream; returns its digest and size. With an expected digest, anything else is refused.
    pub(crate) fn ingest_from(&self, source: &mut dyn Read, expected: Option<&str>) -> Result<(String, u64)> {
        let mut temporary = tempfile::NamedTempFile::new_in(&self.ingest).at("create a file in", &self.ingest)?;
        let mut hashing = Hashing::new(source);
        let file = temporary.as_file_mut();
        crate::entries::copy(&mut hashing, |piece| file.write_all(piece)).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => crate::entries::broken(e),
            _ => ImageError::Io { action: "write", path: self.ingest.clone(), source: e },
        })?;
        let (digest, bytes, _) = hashing.finish();
        if let Some(expected) = expected.filter(|e| *e != digest) {
            return Err(ImageError::DigestMismatch {
                what: "a blob".into(),
                expected: expected.into(),
                actual: digest,
            });
        }
        let path = self.path(&digest);
        temporary.persist(&path).map_err(|e| e.error).at("rename to", &path)?;
        Ok((digest, bytes))
    }

    /// Reads a blob whole, to see that it is what its name says.
    pub(crate) fn verify(&self, digest: &str) -> Result<()> {
        let path = self.path(digest);
        let mut hashing = Hashing::new(File::open(&path).at("open", &path)?);
        crate::entries::copy(&mut hashing, |_| Ok(())).at("read", &path)?;
        let (actual, _, _) = hashing.finish();
        if actual != digest {
            return Err(ImageError::DigestMismatch { what: "a blob".into(), expected: digest.into(), actual });
        }
        Ok(())
    }

    /// Moves every blob that is not in `used` into the directory `aside`.
    pub(crate) fn set_aside(&self, used: &HashSet<String>, aside: &Path) -> Result<()> {
        set_unused_aside(&self.directory, used, aside)
    }
}

/// Moves what lies in a directory by the digits of a digest that is not in `used`: each in one step, so that what is
/// there is whole.
pub(crate) fn set_unused_aside(directory: &Path, used: &HashSet<String>, aside: &Path) -> Result<()> {
    for entry in fs::read_dir(directory).at("list", directory)? {
        let entry = entry.at("list", directory)?;
        let digest = format!("sha256:{}", entry.file_name().to_string_lossy());
        if !used.contains(&digest) {
            fs::rename(entry.path(), aside.join(entry.file_name())).at("move away", entry.path())?;
        }
    }
    Ok(())
}

//! The build context: what the client sent, unpacked into a directory of its own.

use crate::error::{BuildError, Result};
use crate::ignore::Ignore;
use crate::root::Root;
use crate::unpack::{Owners, Sums, unpack};
use crate::{dockerfile, paths};
use pintle_image::decompressed;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The largest ignore file, in bytes.
const MAX_IGNORE_BYTES: u64 = 1 << 20;

/// A context; its files go with it.
pub(crate) struct Context {
    pub root: Root,
    pub sums: Sums,
    _directory: tempfile::TempDir,
}

impl Context {
    /// Unpacks a tar stream, compressed or not, into a new directory below `parent`.
    pub fn receive(stream: impl Read + Send, parent: &Path) -> Result<Self> {
        let failed = |e| BuildError::io("unpack the build context", e);
        let directory = tempfile::tempdir_in(parent).map_err(failed)?;
        let root = Root::open(directory.path()).map_err(failed)?;
        let mut plain = Aligned { source: decompressed(stream).map_err(failed)?, bytes: 0 };
        let sums = unpack(&mut plain, &root, Path::new(""), Owners::Dropped).map_err(failed)?;
        // What follows the archive's end is the client's all the same.
        std::io::copy(&mut plain, &mut std::io::sink()).map_err(failed)?;
        Ok(Self { root, sums, _directory: directory })
    }

    /// Takes the Dockerfile out of the context: reads it, and removes it where the ignore file says so.
    ///
    /// # Errors
    /// When there is none, or it does not read well.
    pub fn dockerfile(&self, name: &str) -> Result<dockerfile::Dockerfile> {
        let lower = name.to_lowercase();
        let found = match self.bytes(name, dockerfile::MAX_BYTES as u64 + 1)? {
            None if name == "Dockerfile" => self.bytes(&lower, dockerfile::MAX_BYTES as u64 + 1)?.map(|b| (lower, b)),
            found => found.map(|bytes| (name.to_owned(), bytes)),
        };
        let Some((name, bytes)) = found else {
            return Err(BuildError::new(format!("Cannot locate specified Dockerfile: {name}")));
        };
        let parsed = dockerfile::parse(&bytes, &name).map_err(BuildError::invalid)?;
        self.hide(&name)?;
        Ok(parsed)
    }

    fn bytes(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let failed = |e| BuildError::io(format_args!("read {name}"), e);
        let Some(found) = self.root.find(Path::new(name), true).map_err(failed)? else { return Ok(None) };
        if found.is_directory() {
            return Err(BuildError::new(format!("read {name}: is a directory")));
        }
        let mut bytes = Vec::new();
        found.file().map_err(failed)?.take(limit).read_to_end(&mut bytes).map_err(failed)?;
        Ok(Some(bytes))
    }

    /// The client leaves these two files in the context even when they are ignored, because the build needs them.
    fn hide(&self, dockerfile: &str) -> Result<()> {
        let Some(bytes) = self.bytes(".dockerignore", MAX_IGNORE_BYTES)? else { return Ok(()) };
        let ignore = Ignore::parse(&String::from_utf8_lossy(&bytes))
            .map_err(|e| BuildError::new(format!("error reading .dockerignore: {e}")))?;
        for name in [".dockerignore", dockerfile] {
            if ignore.is_ignored(name) {
                self.root.remove(Path::new(name)).map_err(|e| BuildError::io(format_args!("remove {name}"), e))?;
            }
        }
        Ok(())
    }

    /// The checksum of what is at a path, links followed. What the client did not name has its path for one.
    pub fn sum(&self, path: &Path) -> String {
        let clean = PathBuf::from(paths::clean(&format!("/{}", path.display()))[1..].to_owned());
        self.sums.get(&clean).cloned().unwrap_or_else(|| path.display().to_string())
    }
}

/// The docker command ends the archive without the last block's rest when the Dockerfile comes from its standard input:
/// zeros are put there.
struct Aligned<R> {
    source: R,
    bytes: usize,
}

impl<R: Read> Read for Aligned<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let mut count = self.source.read(buffer)?;
        if count == 0 {
            count = buffer.len().min(self.bytes.next_multiple_of(512) - self.bytes);
            buffer[..count].fill(0);
        }
        self.bytes += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(entries: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            builder.append(&header, content.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn contexts_stay_inside_and_keep_their_sums() {
        let temp = tempfile::tempdir().unwrap();
        let bytes = archive(&[("../../escaped", "x"), ("/absolute", "y"), ("f.txt", "file\n")]);
        let context = Context::receive(&bytes[..], temp.path()).unwrap();
        for name in ["escaped", "absolute", "f.txt"] {
            assert!(context.root.find(Path::new(name), true).unwrap().is_some(), "{name}");
        }
        assert!(context.sum(Path::new("f.txt")).starts_with("fccd022b5850b74b"));
        drop(context);
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_end_of_an_archive_may_be_missing() {
        let temp = tempfile::tempdir().unwrap();
        let bytes = archive(&[("Dockerfile", "FROM a\n")]);
        let context = Context::receive(&bytes[..512 + 7], temp.path()).unwrap();
        assert_eq!(context.dockerfile("Dockerfile").unwrap().stages.len(), 1);
        assert!(context.dockerfile("other").unwrap_err().message.contains("Cannot locate specified Dockerfile: other"));
    }

    #[test]
    fn ignored_files_of_the_builder_go() {
        let temp = tempfile::tempdir().unwrap();
        let bytes = archive(&[("dockerfile", "FROM a\n"), (".dockerignore", "dockerfile\n.dockerignore\n"), ("x", "")]);
        let context = Context::receive(&bytes[..], temp.path()).unwrap();
        context.dockerfile("Dockerfile").unwrap();
        let left = |name: &str| context.root.find(Path::new(name), true).unwrap().is_some();
        assert_eq!((left("dockerfile"), left(".dockerignore"), left("x")), (false, false, true));
    }

    #[test]
    fn broken_archives_are_refused() {
        let temp = tempfile::tempdir().unwrap();
        let whole = archive(&[("Dockerfile", "FROM a\n"), ("f", "x")]);
        pintle_noise::feed(&[&whole], 300, |bytes| drop(Context::receive(bytes, temp.path())));
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0);
    }
}

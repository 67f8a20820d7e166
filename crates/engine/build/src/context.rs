//! The build context: what the client sent, unpacked into a directory of its own.

use crate::error::{BuildError, Result};
use crate::ignore::Ignore;
use crate::root::Root;
use crate::unpack::{Owners, Sums, decompressed, unpack};
use crate::{dockerfile, paths};
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
    pub fn receive(stream: impl Read, parent: &Path) -> Result<Self> {
        let failed = |e| BuildError::io("unpack the build context", e);
        let directory = tempfile::tempdir_in(parent).map_err(failed)?;
        let root = Root::open(directory.path()).map_err(failed)?;
        let mut plain = decompressed(stream).map_err(failed)?;
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

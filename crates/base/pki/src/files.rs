//! Writes key material so that nobody else reads it and nobody sees it half written.

use crate::Error;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Nothing of ours is larger; a larger file is not ours.
const MAX_PEM_BYTES: u64 = 1 << 20;

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::File { action, path: path.to_owned(), source }
}

/// Writes a file of mode 0600 in one step: readers see the old content or the new.
pub(crate) fn write_private(path: &Path, content: &str) -> Result<(), Error> {
    if let Some(dir) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed("create", dir))?;
    }
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(format!(".{}", std::process::id()));
    let fresh = Path::new(&fresh);
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(fresh)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        fs::rename(fresh, path)
    };
    write().map_err(failed("write", path))
}

/// Reads a text file of bounded size; nothing when it does not exist.
pub(crate) fn read_if_there(path: &Path) -> Result<Option<String>, Error> {
    match fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed("read", path)(e)),
        Ok(meta) if meta.len() > MAX_PEM_BYTES => {
            Err(Error::malformed(path.display().to_string(), format!("larger than {MAX_PEM_BYTES} bytes")))
        }
        Ok(_) => fs::read_to_string(path).map(Some).map_err(failed("read", path)),
    }
}

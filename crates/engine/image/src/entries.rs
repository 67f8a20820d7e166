//! Goes through the entries of a tar stream whose writer is not trusted, in bounded memory.
//!
//! The tar reader keeps long names, PAX records and sparse maps in memory whatever their size: here the bytes between
//! one entry's content and the next one's are counted, and too many are an error.

use crate::{ImageError, Result};
use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

/// Bytes of headers, names and attributes that one entry may have.
const MAX_HEADERS: u64 = 4 << 20;
/// Bytes that move at once.
pub(crate) const PIECE: usize = 128 << 10;

/// Counts what is read while headers are.
pub(crate) struct Counted<R> {
    inner: R,
    /// What may still be read; nothing while content is.
    left: Rc<Cell<Option<u64>>>,
    /// All that was read.
    total: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.total.set(self.total.get() + count as u64);
        if let Some(left) = self.left.get() {
            let left = left.checked_sub(count as u64);
            self.left.set(Some(left.ok_or_else(|| io::Error::other("an entry with more than 4 MiB of headers"))?));
        }
        Ok(count)
    }
}

/// Visits every entry. What a visitor leaves unread is passed over.
pub(crate) fn for_each<R: Read>(
    source: R,
    mut visit: impl FnMut(&mut tar::Entry<'_, Counted<R>>) -> Result<()>,
) -> Result<()> {
    let left = Rc::new(Cell::new(Some(MAX_HEADERS)));
    let total = Rc::new(Cell::new(0));
    let mut archive = tar::Archive::new(Counted { inner: source, left: Rc::clone(&left), total: Rc::clone(&total) });
    let mut entries = archive.entries().map_err(broken)?;
    let mut buffer = vec![0; PIECE];
    loop {
        left.set(Some(MAX_HEADERS));
        let Some(entry) = entries.next() else { return Ok(()) };
        let mut entry = entry.map_err(broken)?;
        left.set(None);
        let sparse = entry.header().entry_type().is_gnu_sparse();
        let size = if sparse { entry.header().entry_size().map_err(broken)? } else { entry.size() };
        let begin = total.get();
        match visit(&mut entry) {
            // It may be no other content, only too little: that is seen below.
            Err(error @ ImageError::DigestMismatch { .. }) if total.get() - begin >= size => return Err(error),
            Ok(()) | Err(ImageError::DigestMismatch { .. }) => {}
            Err(error) => return Err(error),
        }
        if !sparse {
            while entry.read(&mut buffer).map_err(broken)? > 0 {}
            if total.get() - begin < size {
                return Err(ImageError::CutShort);
            }
        }
    }
}

/// What the tar reader says, as an error of ours: a stream that ends early has one of its own.
pub(crate) fn broken(error: io::Error) -> ImageError {
    let text = error.to_string();
    let cut = text.contains("failed to read entire block") || text.contains("unexpected EOF during skip");
    if error.kind() == io::ErrorKind::UnexpectedEof || cut {
        return ImageError::CutShort;
    }
    // The reader's own words hold the bytes that it did not understand, whatever they are.
    let header = text.contains("when getting cksum") || text.contains("numeric field was not a number");
    ImageError::BadArchive(if header { "invalid tar header".to_owned() } else { text })
}

/// Copies all of a stream in large pieces; returns the bytes.
pub(crate) fn copy(
    source: &mut (impl Read + ?Sized),
    mut write: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<u64> {
    let mut buffer = vec![0; PIECE];
    let mut total = 0;
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(count) => {
                write(&buffer[..count])?;
                total += count as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

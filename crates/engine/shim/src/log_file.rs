//! The file of a container's log: written record by record, and set aside when it is full.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// Files of a container's log that are kept, the one being written included: upstream's `containerLogMaxFiles`.
pub const KEPT_FILES: u32 = 5;

#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: File,
    /// Bytes in the file, and how many it may have; 0 is any number.
    size: u64,
    max_bytes: u64,
    /// Files that are kept.
    files: u32,
    /// Records that are written together.
    pending: Vec<u8>,
}

impl LogFile {
    /// Opens the file for appending, making it when needed. One that reaches `max_bytes` is set aside; `files` is how
    /// many are kept, 0 the usual number.
    pub fn open(path: PathBuf, max_bytes: u64, files: u32) -> std::io::Result<Self> {
        let files = if files == 0 { KEPT_FILES } else { files };
        let file = open(&path)?;
        let size = file.metadata()?.len();
        Ok(Self { path, file, size, max_bytes, files, pending: Vec::new() })
    }

    /// Opens the file of that name again, which after a rotation is a new one.
    pub fn reopen(&mut self) -> std::io::Result<()> {
        self.file = open(&self.path)?;
        self.size = self.file.metadata()?.len();
        Ok(())
    }

    /// Takes the bytes of a record that `record` appends, to be written at the next flush. A file ends with the record that
    /// fills it.
    pub fn add(&mut self, record: impl FnOnce(&mut Vec<u8>)) {
        record(&mut self.pending);
        if self.max_bytes > 0 && self.size + self.pending.len() as u64 >= self.max_bytes {
            self.flush();
        }
    }

    /// Writes what was taken. What cannot be written is lost: a full disk must not stop the container.
    pub fn flush(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        // Explained above.
        let _ = self.file.write_all(&pending);
        self.size += pending.len() as u64;
        if self.max_bytes > 0 && self.size >= self.max_bytes {
            self.rotate();
        }
    }

    /// Sets the file aside as `<path>.1`, after the older ones made room. Whoever follows the log by the file sees the
    /// end of it and then the new one. Where that fails, the file grows on until it is tried again.
    fn rotate(&mut self) {
        self.size = 0;
        if self.files == 1 {
            // Nothing is set aside: the one file begins anew. Where that fails it grows on until it is tried again.
            let _ = self.file.set_len(0);
            return;
        }
        let aside = |number: u32| PathBuf::from(format!("{}.{number}", self.path.display()));
        for number in (1..self.files - 1).rev() {
            // There are fewer of them at first.
            let _ = std::fs::rename(aside(number), aside(number + 1));
        }
        if std::fs::rename(&self.path, aside(1)).is_ok() {
            // Without a new file output goes on into the old one.
            let _ = self.reopen();
        }
    }
}

fn open(path: &PathBuf) -> std::io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

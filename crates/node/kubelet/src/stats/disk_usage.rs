//! Counts the bytes and inodes of a directory, as `du` does: hard links once, other filesystems not at all.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What is below a directory, with the directory itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUse {
    /// Of the blocks that are allocated.
    pub bytes: u64,
    pub inodes: u64,
}

impl std::ops::AddAssign for DiskUse {
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.inodes += other.inodes;
    }
}

/// The unit of `st_blocks`, whatever the filesystem's own block is (stat(2)).
const BLOCK_BYTES: u64 = 512;

/// Blocks. What can't be read, because it went away meanwhile, counts nothing.
pub fn below(root: &Path) -> DiskUse {
    let mut total = DiskUse::default();
    let Ok(top) = root.symlink_metadata() else { return total };
    let mut linked = HashSet::new();
    let mut left: Vec<PathBuf> = vec![];
    let mut count = |meta: &std::fs::Metadata| {
        if meta.is_dir() || meta.nlink() < 2 || linked.insert(meta.ino()) {
            total += DiskUse { bytes: meta.blocks() * BLOCK_BYTES, inodes: 1 };
        }
    };
    count(&top);
    if top.is_dir() {
        left.push(root.to_owned());
    }
    while let Some(dir) = left.pop() {
        let Ok(entries) = std::fs::read_dir(&dir) else { continue };
        for entry in entries.flatten() {
            // The entry's own metadata: links are never followed.
            let Ok(meta) = entry.metadata() else { continue };
            if meta.dev() != top.dev() {
                continue;
            }
            count(&meta);
            if meta.is_dir() {
                left.push(entry.path());
            }
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_count_once() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::fs::write(dir.path().join("sub/a"), vec![1; 100_000]).unwrap();
        let before = below(dir.path());
        assert_eq!(before.inodes, 3);
        assert!((100_000..300_000).contains(&before.bytes), "{before:?}");
        std::fs::hard_link(dir.path().join("sub/a"), dir.path().join("b")).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("root")).unwrap();
        assert_eq!(below(dir.path()).inodes, 4, "a second name is no second file; a link is not followed");
        assert_eq!(below(&dir.path().join("none")), DiskUse::default());
    }
}

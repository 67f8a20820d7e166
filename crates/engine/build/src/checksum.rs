//! Checksums of files as they are copied: everything that shapes the result but times.
//!
//! Source: Docker's tarsum, version 1, so that the history of images says the same as Docker's.

use sha2::{Digest, Sha256};
use std::io::{self, Read};

/// What of an entry counts beside its content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry<'a> {
    pub name: &'a [u8],
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub size: u64,
    /// As tar has it: `0` is a file, `5` a directory.
    pub kind: u8,
    pub link: &'a [u8],
    pub device: (u32, u32),
    /// Extended attributes, sorted by their names.
    pub attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Entry<'_> {
    fn hash(&self) -> Sha256 {
        let mut hash = Sha256::new();
        let mut add = |name: &str, value: &[u8]| {
            hash.update(name.as_bytes());
            hash.update(value);
        };
        add("name", self.name);
        add("mode", self.mode.to_string().as_bytes());
        add("uid", self.uid.to_string().as_bytes());
        add("gid", self.gid.to_string().as_bytes());
        add("size", self.size.to_string().as_bytes());
        add("typeflag", &[self.kind]);
        add("linkname", self.link);
        add("uname", b"");
        add("gname", b"");
        add("devmajor", self.device.0.to_string().as_bytes());
        add("devminor", self.device.1.to_string().as_bytes());
        for (name, value) in &self.attributes {
            hash.update(name);
            hash.update(value);
        }
        hash
    }

    /// The checksum with some content, which is passed on while it is read.
    pub fn sum_of<R: Read>(&self, content: R) -> Summing<R> {
        Summing { content, hash: self.hash() }
    }

    /// The checksum of an entry without content.
    pub fn sum(&self) -> String {
        hex::encode(self.hash().finalize())
    }
}

/// Passes content on and sums it.
pub struct Summing<R> {
    content: R,
    hash: Sha256,
}

impl<R: Read> Read for Summing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.content.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

impl<R> Summing<R> {
    pub fn finish(self) -> String {
        hex::encode(self.hash.finalize())
    }
}

/// The checksum of several, such as `dir:…` and `multi:…`.
pub fn of_all(prefix: &str, sums: &[String]) -> String {
    format!("{prefix}:{}", hex::encode(Sha256::digest(sums.join(",").as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_docker() {
        let entry = Entry { name: b"f.txt", mode: 0o644, size: 5, kind: b'0', ..Entry::default() };
        let mut summing = entry.sum_of(&b"file\n"[..]);
        io::copy(&mut summing, &mut io::sink()).unwrap();
        assert!(summing.finish().starts_with("fccd022b5850b74b"));
    }

    #[test]
    fn everything_but_times_counts() {
        let plain = Entry { name: b"f", mode: 0o644, kind: b'0', ..Entry::default() };
        let others = [
            Entry { name: b"g", ..plain.clone() },
            Entry { mode: 0o755, ..plain.clone() },
            Entry { uid: 1, ..plain.clone() },
            Entry { gid: 1, ..plain.clone() },
            Entry { kind: b'2', link: b"x", ..plain.clone() },
            Entry { device: (1, 3), ..plain.clone() },
            Entry { attributes: vec![(b"security.capability".to_vec(), b"x".to_vec())], ..plain.clone() },
        ];
        for other in others {
            assert_ne!(other.sum(), plain.sum(), "{other:?}");
        }
    }
}

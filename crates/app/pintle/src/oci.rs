//! Becomes the OCI runtime that this program carries: called as `pintle oci …`, or by one of the runtime's names.
//!
//! The runtime is a small program of its own, so that a command costs what it costs there. It is executed from sealed
//! memory, which no container can write to (CVE-2019-5736).

use anyhow::{Context, Result, bail};
use pintle_linux::process;
use rustix::fs::{MemfdFlags, SealFlags};
use std::ffi::{CString, OsString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

/// By these names, as links to this program, callers such as containerd find it.
const NAMES: [&str; 2] = ["pintle-oci", "runc"];

/// The runtime's arguments when this program was called by one of its names.
pub(crate) fn arguments_by_name(mut arguments: impl Iterator<Item = OsString>) -> Option<Vec<OsString>> {
    let program = arguments.next()?;
    let name = Path::new(&program).file_name()?.to_str()?;
    NAMES.contains(&name).then(|| arguments.collect())
}

/// Goes on as the runtime with these arguments. Returns only when that failed.
pub(crate) fn replace(arguments: Vec<OsString>) -> Result<()> {
    let program = sealed(pintle_embedded::OCI).context("put the OCI runtime into sealed memory")?;
    let path = CString::new(format!("/proc/self/fd/{}", program.as_raw_fd()))?;
    let words = std::iter::once(NAMES[0].into()).chain(arguments);
    let words = words.map(text).collect::<Result<Vec<_>>>()?;
    let variables = std::env::vars_os().map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        text(name)
    });
    let error = process::exec(&path, &words, &variables.collect::<Result<Vec<_>>>()?);
    bail!("execute the OCI runtime: {error}");
}

fn text(word: OsString) -> Result<CString> {
    CString::new(word.into_vec()).context("an argument with a zero byte")
}

/// A file in memory that nobody can change any more.
fn sealed(content: &[u8]) -> Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = match rustix::fs::memfd_create(c"pintle-oci", flags | MemfdFlags::EXEC) {
        // Before Linux 6.3 all of them can be executed.
        Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create(c"pintle-oci", flags)?,
        other => other?,
    };
    let mut left = content;
    while !left.is_empty() {
        let count = rustix::io::write(&file, left)?;
        left = left.get(count..).unwrap_or_default();
    }
    rustix::fs::fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_names_are_known_wherever_it_lies() {
        let given = |words: &[&str]| arguments_by_name(words.iter().map(OsString::from));
        assert_eq!(given(&["/opt/bin/pintle-oci", "list"]), Some(vec!["list".into()]));
        assert_eq!(given(&["runc"]), Some(Vec::new()));
        assert_eq!(given(&["pintle", "oci", "list"]), None);
        assert_eq!(given(&[]), None);
    }

    #[test]
    fn sealed_memory_has_the_content_and_keeps_it() {
        let file = sealed(b"content").unwrap();
        assert!(rustix::io::write(&file, b"x").is_err());
        let mut read = [0; 16];
        assert_eq!(rustix::io::pread(&file, &mut read, 0).unwrap(), 7);
        assert_eq!(&read[..7], b"content");
    }
}

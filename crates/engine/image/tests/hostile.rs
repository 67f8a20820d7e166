//! Archives that were made to harm: whatever they hold, nothing outside of the layer changes, and memory stays small.

use pintle_image::{ImageError, ImageStore, Import};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn entry(kind: tar::EntryType, name: &[u8], link: &[u8], content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_size(content.len() as u64);
    header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name);
    header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().div_ceil(512) * 512, 0);
    bytes
}

fn archive(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = entries.concat();
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

/// Everything below a directory but the store.
fn outside(root: &Path) -> BTreeSet<(String, Vec<u8>)> {
    let mut found = BTreeSet::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.ends_with("store") {
                continue;
            }
            found.insert((path.display().to_string(), fs::read(&path).unwrap_or_default()));
            if path.is_dir() && !path.is_symlink() {
                waiting.push(path);
            }
        }
    }
    found
}

fn import(bytes: &[u8]) -> Result<(), ImageError> {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("victim")).unwrap();
    fs::write(directory.path().join("victim/file"), "safe").unwrap();
    let store = ImageStore::open(directory.path().join("store")).unwrap();
    let before = outside(directory.path());
    let result = store.import(bytes, &Import::default()).map(drop);
    assert_eq!(outside(directory.path()), before);
    let left = fs::read_dir(directory.path().join("store/ingest")).unwrap().count();
    assert_eq!(left, 0, "something half made is left");
    if result.is_err() {
        store.sweep().unwrap();
        for kind in ["blobs/sha256", "layers"] {
            assert_eq!(fs::read_dir(directory.path().join("store").join(kind)).unwrap().count(), 0, "{kind}");
        }
    }
    result
}

use tar::EntryType as Kind;

#[test]
fn names_and_links_stay_inside() {
    let up = "../".repeat(20);
    let victim = format!("{up}tmp");
    for (what, entries) in [
        ("absolute", vec![entry(Kind::Regular, b"/victim/file", b"", b"bad")]),
        ("parents", vec![entry(Kind::Regular, format!("{up}victim/file").as_bytes(), b"", b"bad")]),
        ("link", vec![entry(Kind::Symlink, b"a", victim.as_bytes(), b""), entry(Kind::Directory, b"a/x", b"", b"")]),
        ("root link", vec![entry(Kind::Symlink, b"a", b"/", b""), entry(Kind::Regular, b"a/f", b"", b"bad")]),
        ("whiteout", vec![entry(Kind::Regular, b"../.wh.victim", b"", b"")]),
        ("link to link", vec![entry(Kind::Symlink, b"a", b"b", b""), entry(Kind::Symlink, b"b", b"a", b"")]),
    ] {
        // Refused or resolved inside: both keep what is outside.
        let _ = import(&archive(&entries));
        assert!(import(&archive(&[])).is_ok(), "{what}");
    }
}

#[test]
fn entries_that_make_no_sense_are_refused() {
    for (what, entries) in [
        ("hard link outside", vec![entry(Kind::Link, b"a", b"../../../../etc/passwd", b"")]),
        ("whiteout of the parent", vec![entry(Kind::Regular, b"d/.wh...", b"", b"")]),
        ("whiteout of itself", vec![entry(Kind::Regular, b".wh..", b"", b"")]),
        ("whiteout of nothing", vec![entry(Kind::Regular, b".wh.", b"", b"")]),
        ("links in a circle", vec![entry(Kind::Symlink, b"a", b"a", b""), entry(Kind::Regular, b"a/b", b"", b"")]),
    ] {
        let result = import(&archive(&entries));
        assert!(matches!(result, Err(ImageError::BadArchive(_))), "{what}: {result:?}");
    }
}

#[test]
fn huge_headers_are_refused() {
    let long = vec![b'a'; 6 << 20];
    for kind in [Kind::GNULongName, Kind::GNULongLink, Kind::XHeader] {
        let result = import(&archive(&[entry(kind, b"x", b"", &long), entry(Kind::Regular, b"a", b"", b"")]));
        assert!(matches!(result, Err(ImageError::BadArchive(_))), "{kind:?}: {result:?}");
    }
}

#[test]
fn sparse_files_take_no_more_than_they_have() {
    let sparse = |real: u64| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(Kind::GNUSparse);
        header.set_mode(0o644);
        header.set_size(512);
        let gnu = header.as_gnu_mut().unwrap();
        gnu.name[..1].copy_from_slice(b"s");
        gnu.sparse[0].offset.copy_from_slice(&(&[&[0x80, 0, 0, 0][..], &(real - 512).to_be_bytes()].concat())[..]);
        gnu.sparse[0].numbytes.copy_from_slice(format!("{:011o}\0", 512).as_bytes());
        gnu.realsize.copy_from_slice(&[&[0x80, 0, 0, 0][..], &real.to_be_bytes()].concat());
        header.set_cksum();
        [header.as_bytes().as_slice(), &[7; 512]].concat()
    };
    assert!(import(&archive(&[sparse(1 << 26)])).is_ok());
    let refused = import(&archive(&[sparse(1 << 32), sparse(1 << 37)]));
    assert!(matches!(refused, Err(ImageError::BadArchive(_))), "{refused:?}");
}

#[test]
fn broken_archives_leave_nothing() {
    let good = archive(&[
        entry(Kind::Directory, b"d", b"", b""),
        entry(Kind::Regular, b"d/f", b"", b"content"),
        entry(Kind::Link, b"d/g", b"d/f", b""),
        entry(Kind::Symlink, b"l", b"d", b""),
        entry(Kind::Regular, b"l/.wh.f", b"", b""),
        entry(Kind::Fifo, b"p", b"", b""),
    ]);
    pintle_noise::feed(&[&good], 60, |bytes| {
        // Either is fine: what is outside is compared within.
        let _ = import(bytes);
    });
}

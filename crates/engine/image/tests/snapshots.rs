//! What every form of snapshots promises, tried on overlays and on copies. Needs root: layers have devices.

use pintle_image::{
    ChangeKind, Commit, CommitSource, ImageStore, Import, Reference, SnapshotForm, SnapshotMounts, apply_changes,
};
use pintle_linux::mount::{self, Overlay};
use rustix::fs::{CWD, FileType, Mode, XattrFlags};
use serde_json::json;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};

const CAPABILITY: &[u8] = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// A store with an image of two layers.
struct Place {
    directory: tempfile::TempDir,
    store: ImageStore,
    image: String,
}

/// Where a snapshot's root is, as its container sees it.
struct Mounted {
    path: PathBuf,
    overlay: bool,
}

impl Mounted {
    fn new(mounts: &SnapshotMounts, place: &Path) -> Self {
        if mounts.lower.is_empty() {
            return Self { path: mounts.upper.clone(), overlay: false };
        }
        fs::create_dir_all(place).unwrap();
        let overlay = Overlay { lower: &mounts.lower, upper: &mounts.upper, work: &mounts.work, volatile: false };
        overlay.mount_at(place).unwrap();
        Self { path: place.to_owned(), overlay: true }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.overlay {
            mount::unmount(&self.path).unwrap();
        }
    }
}

fn first_layer() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let files = [("bin/sh", "shell"), ("etc/motd", "hello"), ("etc/old/a", "1"), ("etc/old/b", "2"), ("gone/x", "x")];
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_mtime(1_000_000);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

/// What the second layer does: all kinds of files, a removal, and a directory in place of another.
fn second_layer(root: &Path) {
    fs::write(root.join("bin/suid"), "s").unwrap();
    chown(root.join("bin/suid"), Some(7), Some(8)).unwrap();
    fs::set_permissions(root.join("bin/suid"), fs::Permissions::from_mode(0o4755)).unwrap();
    rustix::fs::setxattr(root.join("bin/suid"), "security.capability", CAPABILITY, XattrFlags::empty()).unwrap();
    fs::write(root.join("one"), "linked").unwrap();
    fs::hard_link(root.join("one"), root.join("two")).unwrap();
    symlink("nowhere", root.join("link")).unwrap();
    lchown(root.join("link"), Some(9), None).unwrap();
    rustix::fs::mknodat(CWD, root.join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    fs::remove_dir_all(root.join("gone")).unwrap();
    fs::remove_dir_all(root.join("etc/old")).unwrap();
    fs::create_dir(root.join("etc/old")).unwrap();
    fs::write(root.join("etc/old/c"), "3").unwrap();
}

impl Place {
    fn new(form: SnapshotForm) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = ImageStore::open(directory.path().join("store")).unwrap();
        store.choose_snapshot_form(form);
        assert_eq!(store.snapshot_form().unwrap(), form);
        let mut config = json!({});
        apply_changes(&mut config, &["CMD [\"sh\"]".into()]).unwrap();
        let base = store.import(&first_layer()[..], &Import { config, ..Import::default() }).unwrap();
        let mut place = Self { directory, store, image: base.id };
        place.image = place.changed("second", second_layer);
        place
    }

    fn mounted(&self, key: &str) -> Mounted {
        let mounts = self.store.prepare_snapshot(key, &self.image).unwrap();
        Mounted::new(&mounts, &self.directory.path().join("mounted").join(key))
    }

    /// An image of what a container did.
    fn changed(&self, key: &str, work: impl FnOnce(&Path)) -> String {
        work(&self.mounted(key).path);
        let commit = Commit {
            parent: Some(&self.image),
            source: CommitSource::Spent(key),
            tag: Some(format!("made/{key}:1").parse::<Reference>().unwrap()),
            ..Commit::default()
        };
        let id = self.store.commit(&commit).unwrap().id;
        assert!(self.store.snapshots().unwrap().is_empty(), "a spent snapshot is gone");
        id
    }

    fn changes(&self, key: &str) -> Vec<String> {
        let letter = |kind| match kind {
            ChangeKind::Modified => 'C',
            ChangeKind::Added => 'A',
            ChangeKind::Deleted => 'D',
        };
        self.store.diff(key).unwrap().iter().map(|c| format!("{} {}", letter(c.kind), c.path)).collect()
    }
}

/// Runs a test on both forms.
fn on_both(test: impl Fn(&Place)) {
    for form in [SnapshotForm::Overlay, SnapshotForm::Copies] {
        test(&Place::new(form));
    }
}

fn second_layer_is_there(root: &Path) {
    let names = |directory: &Path| {
        let mut names: Vec<String> =
            fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names.join(" ")
    };
    assert_eq!(names(root), "bin etc link one pipe two");
    assert_eq!(names(&root.join("etc/old")), "c");
    assert_eq!(fs::read_to_string(root.join("etc/motd")).unwrap(), "hello");
    assert_eq!(fs::metadata(root.join("etc/motd")).unwrap().mtime(), 1_000_000);
    let suid = fs::metadata(root.join("bin/suid")).unwrap();
    assert_eq!((suid.uid(), suid.gid(), suid.mode() & 0o7777), (7, 8, 0o4755));
    let mut value = [0; 64];
    let count = rustix::fs::getxattr(root.join("bin/suid"), "security.capability", &mut value).unwrap();
    assert_eq!(&value[..count], CAPABILITY);
    let (one, two) = (fs::metadata(root.join("one")).unwrap(), fs::metadata(root.join("two")).unwrap());
    assert_eq!((one.ino(), one.nlink()), (two.ino(), 2));
    assert_eq!(fs::read_link(root.join("link")).unwrap(), Path::new("nowhere"));
    assert_eq!(fs::symlink_metadata(root.join("link")).unwrap().uid(), 9);
    let pipe = fs::symlink_metadata(root.join("pipe")).unwrap();
    assert_eq!((FileType::from_raw_mode(pipe.mode()), pipe.mode() & 0o777), (FileType::Fifo, 0o600));
}

#[test]
fn a_snapshot_shows_what_the_layers_have_together() {
    on_both(|place| {
        second_layer_is_there(&place.mounted("c").path);
        assert_eq!(place.changes("c"), Vec::<String>::new());
    });
}

#[test]
fn what_is_written_stays_when_it_is_asked_for_again_and_is_one_containers_alone() {
    on_both(|place| {
        fs::write(place.mounted("c").path.join("mine"), "1").unwrap();
        assert_eq!(fs::read_to_string(place.mounted("c").path.join("mine")).unwrap(), "1");
        assert!(!place.mounted("other").path.join("mine").exists());
        place.store.remove_snapshot("c").unwrap();
        assert_eq!(place.store.snapshots().unwrap(), ["other"]);
        assert!(!place.mounted("c").path.join("mine").exists());
    });
}

#[test]
fn changes_are_told_in_order_and_counted() {
    on_both(|place| {
        let root = place.mounted("c");
        let at = |name: &str| root.path.join(name);
        fs::write(at("etc/motd"), "changed").unwrap();
        fs::remove_file(at("one")).unwrap();
        fs::remove_dir_all(at("etc/old")).unwrap();
        fs::create_dir(at("new")).unwrap();
        fs::write(at("new/file"), vec![b'x'; 8192]).unwrap();
        drop(root);
        let expected = ["C /etc", "C /etc/motd", "D /etc/old", "A /new", "A /new/file", "D /one"];
        assert_eq!(place.changes("c"), expected);
        let (bytes, files) = place.store.snapshot_usage("c").unwrap();
        assert!((8192..100_000).contains(&bytes) && (4..9).contains(&files), "{bytes} bytes, {files} files");
    });
}

#[test]
fn a_commit_has_the_changes_and_nothing_else() {
    on_both(|place| {
        let image = place.changed("third", |root| {
            fs::remove_file(root.join("link")).unwrap();
            fs::write(root.join("etc/motd"), "third").unwrap();
        });
        let mounts = place.store.prepare_snapshot("c", &image).unwrap();
        let root = Mounted::new(&mounts, &place.directory.path().join("third"));
        assert_eq!(fs::read_to_string(root.path.join("etc/motd")).unwrap(), "third");
        assert!(fs::symlink_metadata(root.path.join("link")).is_err());
        assert!(root.path.join("bin/sh").exists());
        let record = place.store.resolve(&image).unwrap();
        assert_eq!(record.layers().count(), 3);
    });
}

#[test]
fn an_export_has_everything_once() {
    on_both(|place| {
        fs::write(place.mounted("c").path.join("mine"), "1").unwrap();
        let mut bytes = Vec::new();
        place.store.export("c", &mut bytes).unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let names = archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string());
        let files: Vec<String> = names.filter(|name| !name.ends_with('/')).collect();
        assert_eq!(files, ["bin/sh", "bin/suid", "etc/motd", "etc/old/c", "link", "mine", "one", "pipe", "two"]);
    });
}

#[test]
fn a_half_made_one_is_made_anew() {
    on_both(|place| {
        let base = place.store.root().join("snapshots/c");
        fs::create_dir_all(base.join("upper/half")).unwrap();
        second_layer_is_there(&place.mounted("c").path);
    });
}

#[test]
fn layers_stay_while_a_snapshot_stands_on_them() {
    on_both(|place| {
        let root = place.mounted("c");
        place.store.remove(&place.image).unwrap();
        place.store.sweep().unwrap();
        second_layer_is_there(&root.path);
        drop(root);
        assert_eq!(place.changes("c"), Vec::<String>::new());
    });
}

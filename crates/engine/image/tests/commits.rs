//! Layers that containers wrote: compared, committed, exported, saved and loaded again. Needs root: layers have devices.

use pintle_image::{
    ChangeKind, Commit, CommitSource, ImageError, ImageStore, ImageUser, Import, PruneFilter, Reference, Removed,
    SnapshotMounts, apply_changes,
};
use rustix::fs::{CWD, FileType, Mode, XattrFlags};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, symlink};
use std::sync::Arc;

fn store() -> (tempfile::TempDir, Arc<ImageStore>) {
    let directory = tempfile::tempdir().unwrap();
    let store = ImageStore::open(directory.path()).unwrap();
    (directory, Arc::new(store))
}

fn root_archive() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in [("bin/sh", "shell"), ("etc/motd", "hello"), ("etc/old/a", "1"), ("etc/old/b", "2")] {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_mtime(1_000_000);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

/// A store with the image `box`: a name that is no beginning of an id, which would be taken for one.
fn base() -> (tempfile::TempDir, Arc<ImageStore>, String) {
    let (directory, store) = store();
    let mut config = json!({});
    apply_changes(&mut config, &["CMD [\"sh\"]".into(), "ENV PATH=/bin".into()]).unwrap();
    let tag = Some("box".parse::<Reference>().unwrap());
    let image = store.import(&root_archive()[..], &Import { config, tag, ..Import::default() }).unwrap();
    (directory, store, image.id)
}

fn whiteout(mounts: &SnapshotMounts, path: &str) {
    rustix::fs::mknodat(CWD, mounts.upper.join(path), FileType::CharacterDevice, Mode::empty(), 0).unwrap();
}

/// What a container would leave in its own layer.
fn write(mounts: &SnapshotMounts) {
    let upper = &mounts.upper;
    for directory in ["etc", "etc/old", "dev", "dev/pts", "proc", "new"] {
        fs::create_dir(upper.join(directory)).unwrap();
    }
    for directory in ["etc", "etc/old"] {
        let mode = fs::metadata(mounts.lower[0].join(directory)).unwrap().permissions();
        fs::set_permissions(upper.join(directory), mode).unwrap();
    }
    rustix::fs::setxattr(upper.join("etc/old"), "trusted.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
    fs::write(upper.join("etc/old/b"), "3").unwrap();
    fs::write(upper.join("etc/hosts"), "").unwrap();
    fs::write(upper.join("etc/motd"), "changed").unwrap();
    fs::write(upper.join(".dockerenv"), "").unwrap();
    fs::write(upper.join("new/one"), "x".repeat(300)).unwrap();
    fs::hard_link(upper.join("new/one"), upper.join("new/two")).unwrap();
    fs::write(upper.join("new").join("n".repeat(200)), "long").unwrap();
    symlink("/etc/motd", upper.join("new/link")).unwrap();
    rustix::fs::setxattr(upper.join("new/one"), "user.note", b"kept", XattrFlags::empty()).unwrap();
    whiteout(mounts, "bin");
}

fn changes(store: &ImageStore, key: &str) -> Vec<String> {
    let letter = |kind| match kind {
        ChangeKind::Modified => 'C',
        ChangeKind::Added => 'A',
        ChangeKind::Deleted => 'D',
    };
    store.diff(key).unwrap().iter().map(|c| format!("{} {}", letter(c.kind), c.path)).collect()
}

#[test]
fn a_diff_lists_what_a_container_did() {
    let (_directory, store, id) = base();
    write(&store.prepare_snapshot("c", &id).unwrap());
    let long = format!("A /new/{}", "n".repeat(200));
    let expected = [
        "D /bin",
        "C /etc",
        "C /etc/motd",
        "C /etc/old",
        "D /etc/old/a",
        "C /etc/old/b",
        "A /new",
        "A /new/link",
        &long,
        "A /new/one",
        "A /new/two",
    ];
    assert_eq!(changes(&store, "c"), expected);
    store.prepare_snapshot("fresh", &id).unwrap();
    assert!(store.diff("fresh").unwrap().is_empty());
    assert!(matches!(store.diff("none"), Err(ImageError::NoSnapshot(_))));
}

fn exported(store: &ImageStore, key: &str) -> BTreeMap<String, String> {
    let mut bytes = Vec::new();
    store.export(key, &mut bytes).unwrap();
    let mut found = BTreeMap::new();
    for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let link = entry.link_name().unwrap().map(|l| format!("-> {}", l.display()));
        let mut content = String::new();
        entry.read_to_string(&mut content).unwrap();
        found.insert(entry.path().unwrap().display().to_string(), link.unwrap_or(content));
    }
    found
}

#[test]
fn a_commit_gives_the_same_files_again() {
    let (_directory, store, id) = base();
    write(&store.prepare_snapshot("c", &id).unwrap());
    let before = exported(&store, "c");
    assert_eq!((before["etc/motd"].as_str(), before["new/two"].as_str()), ("changed", "-> new/one"));
    assert!(!before.contains_key("bin/sh") && !before.contains_key("etc/old/a"), "{before:?}");
    let commit = Commit { parent: Some(&id), config: json!({ "Cmd": ["x"] }), created_by: "sh", ..Commit::default() };
    let kept = store.commit(&Commit { source: CommitSource::Snapshot("c"), ..commit.clone() }).unwrap();
    let spent = store.commit(&Commit { source: CommitSource::Spent("c"), ..commit }).unwrap();
    // The layer is the same, whether it was copied or moved.
    assert_eq!(kept.chain, spent.chain);
    assert_eq!(store.snapshots().unwrap(), Vec::<String>::new());
    let mounts = store.prepare_snapshot("d", &spent.id).unwrap();
    let mut after = exported(&store, "d");
    for generated in [".dockerenv", "etc/hosts", "dev/", "dev/pts/", "proc/"] {
        assert_eq!(after.get(generated), None, "{generated}");
        after.insert(generated.into(), String::new());
    }
    assert_eq!(after, before);
    let mut value = [0; 8];
    let count = rustix::fs::getxattr(mounts.lower[0].join("new/one"), "user.note", &mut value).unwrap();
    assert_eq!(&value[..count], b"kept");
    assert_eq!(fs::metadata(mounts.lower[0].join("new/one")).unwrap().nlink(), 2);
    let history = store.history(&spent.id).unwrap();
    assert_eq!((history[0].id.as_str(), history[0].created_by.as_str()), (spent.id.as_str(), "sh"));
    assert_eq!((history[1].tags.as_slice(), history[1].size), (["box:latest".to_owned()].as_slice(), 12));
}

#[test]
fn a_moved_layer_is_the_layer_that_its_archive_unpacks_to() {
    let (_directory, store, id) = base();
    write(&store.prepare_snapshot("c", &id).unwrap());
    let moved = Commit { source: CommitSource::Spent("c"), parent: Some(&id), ..Commit::default() };
    let image = store.commit(&moved).unwrap();
    let mut archive = Vec::new();
    store.save(std::slice::from_ref(&image.id), &mut archive).unwrap();
    let (_other, other) = self::store();
    let loaded = other.load(&archive[..]).unwrap();
    assert_eq!(loaded[0].id, image.id);
    store.prepare_snapshot("a", &image.id).unwrap();
    other.prepare_snapshot("a", &image.id).unwrap();
    assert_eq!(exported(&store, "a"), exported(&other, "a"));
    assert_eq!(other.resolve(&image.id).unwrap().unpacked_size(), store.resolve(&image.id).unwrap().unpacked_size());
}

#[test]
fn a_commit_of_nothing_adds_no_layer() {
    let (_directory, store, id) = base();
    store.prepare_snapshot("c", &id).unwrap();
    let commit = Commit { source: CommitSource::Snapshot("c"), parent: Some("box"), ..Commit::default() };
    let image = store.commit(&commit).unwrap();
    assert_eq!(image.chain, store.resolve("box").unwrap().chain);
    assert_eq!(image.configuration.history().clone().unwrap()[1].empty_layer(), Some(true));
}

#[test]
fn save_and_load_keep_names_and_manifests() {
    let (_directory, store, _) = base();
    store.tag("box", "box:two").unwrap();
    let mut archive = Vec::new();
    store.save(&["box".into()], &mut archive).unwrap();
    let (_other, other) = self::store();
    let loaded = other.load(&archive[..]).unwrap();
    assert_eq!(loaded[0].tags, ["docker.io/library/box:latest", "docker.io/library/box:two"]);
    let (before, after) = (store.resolve("box").unwrap(), other.resolve("box:two").unwrap());
    assert_eq!((before.manifest(), before.unpacked_size()), (after.manifest(), after.unpacked_size()));
    assert!(matches!(store.save(&["nosuch".into()], Vec::new()), Err(ImageError::NoReference(_))));
    assert!(matches!(store.load(&b"not a tar"[..]), Err(ImageError::CutShort)));
    assert!(matches!(store.load(&archive[..archive.len() / 2]), Err(ImageError::CutShort)));
}

fn text(removed: &[Removed]) -> Vec<String> {
    let line = |r: &Removed| match r {
        Removed::Untagged { reference, .. } => format!("untagged {reference}"),
        Removed::Image(_) => "image".into(),
        Removed::Layer { bytes, .. } => format!("layer {bytes}"),
    };
    removed.iter().map(line).collect()
}

#[test]
fn images_are_removed_by_dockers_rules() {
    let (_directory, store, id) = base();
    let user = |image: &str, running| ImageUser { container_id: "c".repeat(64), image_id: image.into(), running };
    store.tag("box", "twin").unwrap();
    let users = [user(&id, false)];
    assert_eq!(
        text(&store.remove_image("twin", false, true, &users).unwrap()),
        ["untagged docker.io/library/twin:latest"]
    );
    let refused =
        |name: &str, users: &[ImageUser]| store.remove_image(name, false, true, users).unwrap_err().to_string();
    let expected = format!(
        "conflict: unable to remove repository reference \"box\" (must force) - container cccccccccccc is using its \
         referenced image {}",
        &id[7..19]
    );
    assert_eq!(refused("box", &users), expected);
    let by_id = |why: &str| format!("conflict: unable to delete {} {why}", &id[7..19]);
    let stopped = by_id("(must be forced) - image is being used by stopped container cccccccccccc");
    assert_eq!(refused(&id[7..15], &users), stopped);
    let running = by_id("(cannot be forced) - image is being used by running container cccccccccccc");
    assert_eq!(refused(&id[7..15], &[user(&id, true)]), running);
    assert!(matches!(store.remove_image("nosuch", true, true, &[]), Err(ImageError::NotFound(_))));
    // An image in between goes with its last child; the base has a name and stays.
    let child = |parent: &str, name: Option<&str>| {
        let config = json!({ "Labels": { "of": parent } });
        let tag = name.map(|n| n.parse().unwrap());
        store.commit(&Commit { parent: Some(parent), config, tag, ..Commit::default() }).unwrap().id
    };
    let middle = child(&id, None);
    let top = child(&middle, Some("top"));
    let dependent = by_id("(cannot be forced) - image has dependent child images");
    assert_eq!(refused(&id[7..], &[]), dependent);
    store.tag(&top, "other/top:1").unwrap();
    let several = "(must be forced) - image is referenced in multiple repositories";
    assert_eq!(refused(&top[7..19], &[]), format!("conflict: unable to delete {} {several}", &top[7..19]));
    store.remove_image("other/top:1", false, true, &[]).unwrap();
    let removed = store.remove_image("top", false, true, &[]).unwrap();
    assert_eq!(text(&removed), ["untagged docker.io/library/top:latest", "image", "image"]);
    let removed = store.remove_image("box", false, true, &[]).unwrap();
    assert_eq!(text(&removed), ["untagged docker.io/library/box:latest", "image", "layer 12"]);
    assert!(store.list().is_empty());
}

#[test]
fn a_prune_takes_what_has_no_name_and_no_user() {
    let (_directory, store, id) = base();
    let labelled = |label: &str| {
        let config = json!({ "Labels": { "keep": label } });
        store.commit(&Commit { parent: Some(&id), config, ..Commit::default() }).unwrap().id
    };
    let (kept, used, gone) = (labelled("yes"), labelled("used"), labelled("no"));
    let users = [ImageUser { container_id: "c".into(), image_id: used.clone(), running: false }];
    let not_labels = vec![("keep".to_owned(), Some("yes".to_owned()))];
    let pruned = store.prune(&PruneFilter { not_labels, ..PruneFilter::default() }, &users).unwrap();
    assert_eq!(pruned.removed, [Removed::Image(gone)]);
    assert!(store.resolve(&kept).is_some() && store.resolve(&used).is_some());
    let all = PruneFilter { all: true, ..PruneFilter::default() };
    assert_eq!(store.prune(&PruneFilter { until: Some(1), ..all.clone() }, &[]).unwrap().removed, []);
    assert_eq!(store.prune(&all, &[]).unwrap().reclaimed, 12);
    assert!(store.list().is_empty());
}

#[test]
fn sweeping_takes_nothing_that_is_being_brought_in() {
    let (_directory, store, _) = base();
    let archive = {
        let mut bytes = Vec::new();
        store.save(&["box".into()], &mut bytes).unwrap();
        bytes
    };
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..40 {
                    let loaded = store.load(&archive[..]).unwrap();
                    let key = format!("{:?}", std::thread::current().id()).replace(['(', ')'], "-");
                    // Another thread may have removed it since: but if it is there, all of it is.
                    if let Ok(mounts) = store.prepare_snapshot(&key, &loaded[0].id) {
                        assert!(mounts.lower.iter().all(|l| l.join("bin/sh").exists()));
                    }
                    store.remove_snapshot(&key).unwrap();
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..60 {
                // Whether it is there just now is chance.
                let _ = store.remove_image("box", true, true, &[]);
                store.sweep().unwrap();
            }
        });
    });
    store.load(&archive[..]).unwrap();
    assert_eq!(exported_count(&store), 4);
}

fn exported_count(store: &ImageStore) -> usize {
    store.prepare_snapshot("last", "box").unwrap();
    exported(store, "last").keys().filter(|name| !name.ends_with('/')).count()
}

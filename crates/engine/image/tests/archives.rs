//! Archives as docker, skopeo and attackers make them, loaded into a store. Needs root: layers have owners and devices.

use pintle_image::{ImageError, ImageStore};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

enum Item<'a> {
    File(&'a str, &'a str),
    Directory(&'a str),
    Symlink(&'a str, &'a str),
    Hardlink(&'a str, &'a str),
}
use Item::*;

/// A tar stream whose names are written as they are, however hostile.
fn tar_of(items: &[Item<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for item in items {
        let mut header = tar::Header::new_gnu();
        let (name, kind, link, content) = match item {
            File(name, content) => (name, tar::EntryType::Regular, "", *content),
            Directory(name) => (name, tar::EntryType::Directory, "", ""),
            Symlink(name, to) => (name, tar::EntryType::Symlink, *to, ""),
            Hardlink(name, to) => (name, tar::EntryType::Link, *to, ""),
        };
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_mtime(1_000_000);
        header.set_size(content.len() as u64);
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        builder.append(&header, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn configuration(layers: &[&[u8]]) -> String {
    let diff_ids: Vec<String> = layers.iter().map(|l| format!("sha256:{}", digest(l))).collect();
    json!({ "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, "os": "linux", "config": {},
            "rootfs": { "type": "layers", "diff_ids": diff_ids }, "history": [] })
    .to_string()
}

fn pack(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

/// What `docker save` writes for one image.
fn docker_archive(tag: &str, layers: &[&[u8]]) -> Vec<u8> {
    let names: Vec<String> = layers.iter().map(|l| format!("{}/layer.tar", digest(l))).collect();
    let manifest = json!([{ "Config": "config.json", "RepoTags": [tag], "Layers": names }]).to_string();
    let configuration = configuration(layers);
    let mut files: Vec<(&str, &[u8])> = names.iter().map(String::as_str).zip(layers.iter().copied()).collect();
    files.push(("config.json", configuration.as_bytes()));
    files.push(("manifest.json", manifest.as_bytes()));
    pack(&files)
}

fn store() -> (tempfile::TempDir, ImageStore) {
    let directory = tempfile::tempdir().unwrap();
    let store = ImageStore::open(directory.path()).unwrap();
    (directory, store)
}

fn load_layers(layers: &[&[u8]]) -> Result<(tempfile::TempDir, Vec<std::path::PathBuf>), ImageError> {
    let (directory, store) = store();
    let loaded = store.load(&docker_archive("test:1", layers)[..])?;
    let mounts = store.prepare_snapshot("c1", &loaded[0].id)?;
    Ok((directory, mounts.lower))
}

#[test]
fn a_docker_archive_loads_and_survives_a_restart() {
    let (directory, store) = store();
    let layer = tar_of(&[Directory("etc"), File("etc/motd", "hello")]);
    let loaded = store.load(&docker_archive("pintle/test:1", &[&layer])[..]).unwrap();
    assert_eq!(loaded[0].tags, ["docker.io/pintle/test:1"]);
    drop(store);
    let store = ImageStore::open(directory.path()).unwrap();
    let image = store.resolve("pintle/test:1").unwrap();
    assert_eq!(image.id, loaded[0].id);
    let mounts = store.prepare_snapshot("c1", &image.id).unwrap();
    assert_eq!(fs::read_to_string(mounts.lower[0].join("etc/motd")).unwrap(), "hello");
    assert_eq!(fs::metadata(mounts.lower[0].join("etc")).unwrap().mtime(), 1_000_000);
}

#[test]
fn a_compressed_oci_layout_loads() {
    let layer = tar_of(&[File("a", "1")]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&layer).unwrap();
    let blob = gzip.finish().unwrap();
    let configuration = configuration(&[&layer]);
    let descriptor = |bytes: &[u8], kind: &str| json!({ "mediaType": kind, "digest": format!("sha256:{}", digest(bytes)), "size": bytes.len() });
    let manifest = json!({ "schemaVersion": 2, "config": descriptor(configuration.as_bytes(), "c"), "layers": [descriptor(&blob, "l")] }).to_string();
    let mut entry = descriptor(manifest.as_bytes(), "application/vnd.oci.image.manifest.v1+json");
    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": "app:v2" });
    let index = json!({ "schemaVersion": 2, "manifests": [entry] }).to_string();
    let name = |bytes: &[u8]| format!("blobs/sha256/{}", digest(bytes));
    let files = [
        ("index.json".to_owned(), index.as_bytes()),
        (name(manifest.as_bytes()), manifest.as_bytes()),
        (name(configuration.as_bytes()), configuration.as_bytes()),
        (name(&blob), &blob[..]),
    ];
    let files: Vec<(&str, &[u8])> = files.iter().map(|(n, c)| (n.as_str(), *c)).collect();
    let (_directory, store) = store();
    let archive = zstd::encode_all(&pack(&files)[..], 1).unwrap();
    assert_eq!(store.load(&archive[..]).unwrap()[0].tags, ["docker.io/library/app:v2"]);
    let by_digest = format!("app@sha256:{}", digest(manifest.as_bytes()));
    assert!(store.resolve(&by_digest).is_some());
}

#[test]
fn a_blob_that_is_not_what_its_name_says_is_refused() {
    let wrong = format!("blobs/sha256/{}", "0".repeat(64));
    let error = store().1.load(&pack(&[(wrong.as_str(), b"x")])[..]).unwrap_err();
    assert!(matches!(error, ImageError::DigestMismatch { .. }), "{error}");
}

#[test]
fn whiteouts_take_overlay_form() {
    let below = tar_of(&[File("gone", "x"), Directory("dir"), File("dir/old", "x")]);
    let above = tar_of(&[File(".wh.gone", ""), Directory("dir"), File("dir/.wh..wh..opq", "")]);
    let (_directory, lower) = load_layers(&[&below, &above]).unwrap();
    let hidden = fs::symlink_metadata(lower[0].join("gone")).unwrap();
    assert!(hidden.file_type().is_char_device() && hidden.rdev() == 0);
    let mut value = [0u8; 4];
    let n = rustix::fs::getxattr(lower[0].join("dir"), "trusted.overlay.opaque", &mut value[..]).unwrap();
    assert_eq!(&value[..n], b"y");
}

/// Loads a hostile layer, then looks whether the file beside the store was touched.
fn check_stays_inside(items: &[Item<'_>]) {
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    fs::write(&victim, "untouched").unwrap();
    let replaced: Vec<(String, String)> = items
        .iter()
        .map(|item| {
            let (a, b) = match item {
                File(a, b) | Symlink(a, b) | Hardlink(a, b) => (*a, *b),
                Directory(a) => (*a, ""),
            };
            let fill = |s: &str| s.replace("OUTSIDE", outside.path().to_str().unwrap());
            (fill(a), fill(b))
        })
        .collect();
    let items: Vec<Item<'_>> = items
        .iter()
        .zip(&replaced)
        .map(|(item, (a, b))| match item {
            File(..) => File(a, b),
            Symlink(..) => Symlink(a, b),
            Hardlink(..) => Hardlink(a, b),
            Directory(_) => Directory(a),
        })
        .collect();
    // Whether it loads or is refused, nothing outside may change.
    let loaded = load_layers(&[&tar_of(&items)]);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1, "{:?}", loaded.err());
    assert_eq!(fs::metadata(&victim).unwrap().nlink(), 1);
}

#[test]
fn unpacking_never_leaves_the_layer() {
    check_stays_inside(&[File("../../../../../../../../OUTSIDE/victim", "evil")]);
    check_stays_inside(&[File("OUTSIDE/victim", "evil")]);
    check_stays_inside(&[Symlink("link", "OUTSIDE"), File("link/victim", "evil")]);
    check_stays_inside(&[Symlink("link", "OUTSIDE/victim"), File("link", "evil")]);
    check_stays_inside(&[Symlink("up", "../../../../../../../.."), File("up/OUTSIDE/victim", "evil")]);
    check_stays_inside(&[Hardlink("stolen", "OUTSIDE/victim"), File("stolen", "evil")]);
    check_stays_inside(&[Symlink("dir", "OUTSIDE"), File("dir/.wh.victim", "")]);
    check_stays_inside(&[Symlink("dir", "OUTSIDE"), Directory("dir"), File("dir/new", "evil")]);
}

#[test]
fn names_move_between_images_and_the_last_one_takes_the_image_along() {
    let (directory, store) = store();
    let (a, b) = (tar_of(&[File("a", "1")]), tar_of(&[File("b", "2")]));
    let first = store.load(&docker_archive("app:1", &[&a])[..]).unwrap().remove(0);
    let second = store.load(&docker_archive("app:1", &[&b])[..]).unwrap().remove(0);
    assert_eq!(store.resolve("app:1").unwrap().id, second.id);
    assert!(store.resolve(&first.id).unwrap().tags.is_empty());
    store.tag(&first.id, "old:1").unwrap();
    store.prepare_snapshot("held", &first.id).unwrap();
    store.remove("old:1").unwrap();
    assert!(store.resolve(&first.id).is_none());
    let layers = || fs::read_dir(directory.path().join("layers")).unwrap().count();
    assert_eq!(layers(), 2, "a snapshot stands on the first image's layer");
    store.remove_snapshot("held").unwrap();
    store.sweep().unwrap();
    assert_eq!(layers(), 1);
    assert!(matches!(store.remove("nope:1"), Err(ImageError::NotFound(_))));
}

#[test]
fn damaged_archives_are_refused_and_leave_nothing() {
    let (directory, store) = store();
    let layer = tar_of(&[File("a", "1")]);
    let whole = docker_archive("app:1", &[&layer]);
    for archive in [&whole[..700], b"not a tar", &pack(&[("readme", b"x")])[..], b""] {
        assert!(store.load(archive).is_err());
    }
    assert!(store.list().is_empty());
    store.sweep().unwrap();
    assert_eq!(fs::read_dir(directory.path().join("blobs/sha256")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(Path::new(directory.path()).join("ingest")).unwrap().count(), 0);
}

/// Archives whose headers, manifests and layers are broken load or are refused; nothing of them lies outside the store.
#[test]
fn broken_archives_are_refused() {
    let layer = tar_of(&[Directory("etc"), File("etc/motd", "hello"), Symlink("l", "etc"), Hardlink("h", "etc/motd")]);
    let archive = docker_archive("test:1", &[&layer]);
    let compressed = zstd::encode_all(&archive[..], 1).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let store = ImageStore::open(directory.path().join("store")).unwrap();
    pintle_noise::feed(&[&archive, &compressed], 60, |bytes| {
        let _ = store.load(bytes).is_ok();
    });
    // The layer alone, in an archive that tells its right digest: it is unpacked as far as it goes.
    pintle_noise::feed(&[&layer], 60, |bytes| {
        let _ = store.load(&docker_archive("test:2", &[bytes])[..]).is_ok();
    });
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

/// A store with two images, one of which had not reached the disk when the machine ended; and the file of its layer.
fn cut_off() -> (tempfile::TempDir, std::path::PathBuf) {
    let (directory, store) = store();
    let (sound, cut) = (tar_of(&[File("a", "1")]), tar_of(&[File("etc-motd", "hello")]));
    store.load(&docker_archive("sound:1", &[&sound])[..]).unwrap();
    let loaded = store.load(&docker_archive("cut:1", &[&cut])[..]).unwrap();
    let file = store.prepare_snapshot("c1", &loaded[0].id).unwrap().lower[0].join("etc-motd");
    store.wait_for_disk();
    drop(store);
    let index = directory.path().join("images.json");
    let mut images: Vec<serde_json::Value> = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    for image in &mut images {
        assert_eq!(image.get("settling"), None, "the disk has it");
        if image["id"] == json!(loaded[0].id) {
            image["settling"] = json!("an earlier boot");
        }
    }
    fs::write(&index, serde_json::to_vec(&images).unwrap()).unwrap();
    fs::write(&file, "").unwrap();
    (directory, file)
}

#[test]
fn an_image_that_the_machine_cut_off_is_made_anew() {
    let (directory, file) = cut_off();
    let store = ImageStore::open(directory.path()).unwrap();
    assert!(store.resolve("cut:1").is_some() && store.resolve("sound:1").is_some());
    assert_eq!(fs::read_to_string(&file).unwrap(), "hello", "containers stand on the same place");
    drop(store);
    assert!(!fs::read_to_string(directory.path().join("images.json")).unwrap().contains("settling"));
}

#[test]
fn an_image_that_the_machine_left_damaged_goes_and_others_stay() {
    let (directory, _) = cut_off();
    for blob in fs::read_dir(directory.path().join("blobs/sha256")).unwrap() {
        let path = blob.unwrap().path();
        let content = fs::read(&path).unwrap();
        if content.windows(5).any(|five| five == b"hello") {
            fs::write(&path, &content[..100]).unwrap();
        }
    }
    let store = ImageStore::open(directory.path()).unwrap();
    assert!(store.resolve("cut:1").is_none() && store.resolve("sound:1").is_some());
    drop(store);
    ImageStore::open(directory.path()).unwrap();
}

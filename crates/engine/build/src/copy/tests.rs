//! Copies between directories that stand for a context and an image.

use super::*;
use crate::context::Context;
use crate::root::Root;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

struct Machine {
    temp: TempDir,
    origin: Origin,
    image: Root,
    sums: SumCache,
}

/// A context of these entries (content, or a link with `->`), and an empty image.
fn machine(entries: &[(&str, &str)]) -> Machine {
    let temp = tempfile::tempdir().unwrap();
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o640);
        header.set_mtime(7);
        if let Some(target) = content.strip_prefix("->") {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            builder.append_link(&mut header, name, target).unwrap();
        } else {
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, name, content.as_bytes()).unwrap();
        }
    }
    let context = Context::receive(&builder.into_inner().unwrap()[..], temp.path()).unwrap();
    fs::create_dir(temp.path().join("image")).unwrap();
    let image = Root::open(&temp.path().join("image")).unwrap();
    Machine { temp, origin: Origin::Context(Arc::new(context)), image, sums: SumCache::default() }
}

impl Machine {
    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join("image").join(name)
    }

    fn find(&self, source: &str) -> Vec<Item> {
        find(&self.origin, source, &self.sums).unwrap()
    }

    fn copy(&self, source: &str, destination: &str, rules: Rules) {
        for item in self.find(source) {
            write(&self.image, &item, destination, rules).unwrap();
        }
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }
}

#[test]
fn files_and_directories_go_where_docker_puts_them() {
    let machine = machine(&[("f", "1"), ("d/a", "2"), ("d/e/b", "3"), ("d/l", "->a")]);
    fs::create_dir(machine.path("there")).unwrap();
    for (source, destination) in [("f", "/new"), ("f", "/dir/"), ("/f", "/there"), ("./d", "/tree"), ("d/*", "/all/")] {
        machine.copy(source, destination, Rules::default());
    }
    for (name, content) in [
        ("new", "1"),
        ("dir/f", "1"),
        ("there/f", "1"),
        ("tree/a", "2"),
        ("tree/e/b", "3"),
        ("all/a", "2"),
        ("all/b", "3"),
    ] {
        assert_eq!(machine.read(name), content, "{name}");
    }
    assert_eq!(fs::read_link(machine.path("tree/l")).unwrap(), Path::new("a"));
    let meta = fs::metadata(machine.path("new")).unwrap();
    assert_eq!((meta.permissions().mode() & 0o7777, meta.mtime()), (0o640, 7));
}

#[test]
fn modes_are_set_and_places_are_taken() {
    let machine = machine(&[("d/a", "new"), ("d/b/c", "x")]);
    fs::create_dir_all(machine.path("t/a")).unwrap();
    fs::write(machine.path("t/a/old"), "").unwrap();
    fs::write(machine.path("t/b"), "file").unwrap();
    machine.copy("d", "/t", Rules { mode: Some(0o711), ..Rules::default() });
    assert_eq!((machine.read("t/a").as_str(), machine.read("t/b/c").as_str()), ("new", "x"));
    assert_eq!(fs::metadata(machine.path("t/a")).unwrap().permissions().mode() & 0o7777, 0o711);
}

#[test]
fn links_of_context_and_image_lead_nowhere_else() {
    let machine =
        machine(&[("f", "1"), ("up", "->../../../../etc/passwd"), ("absolute", "->/etc/passwd"), ("inner", "->/f")]);
    for source in ["up", "absolute", "../f/../../etc/passwd"] {
        let error = find(&machine.origin, source, &machine.sums).err().unwrap();
        assert!(
            error.message.starts_with("file not found in build context or excluded by .dockerignore: stat "),
            "{source}"
        );
    }
    let outside = machine.temp.path().join("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, machine.path("escape")).unwrap();
    symlink("../../../../outside", machine.path("dots")).unwrap();
    for destination in ["/escape/", "/dots/", "/../../outside/"] {
        machine.copy("inner", destination, Rules::default());
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    // All of it is in the image.
    assert_eq!(machine.read("outside/inner"), "1");
    assert!(machine.path(&format!(".{}/inner", outside.display())).is_file());
}

#[test]
fn archives_are_unpacked_only_when_asked() {
    let machine = machine(&[]);
    let mut inner = tar::Builder::new(Vec::new());
    for name in ["in/x", "y"] {
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        header.set_mode(0o600);
        inner.append_data(&mut header, name, &b"z"[..]).unwrap();
    }
    let folder = machine.temp.path().join("download");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a.tar"), inner.into_inner().unwrap()).unwrap();
    let root = Arc::new(Root::open(&folder).unwrap());
    let image = Origin::Image(Arc::clone(&root), "sha256:1".into());
    let unpacking = Rules { unpack: true, ..Rules::default() };
    for (origin, rules, destination) in [
        (image.clone(), unpacking, "/unpacked"),
        (image, Rules::default(), "/plain/"),
        (Origin::Download(root), unpacking, "/downloaded/"),
    ] {
        let item = find(&origin, "a.tar", &machine.sums).unwrap().remove(0);
        write(&machine.image, &item, destination, rules).unwrap();
    }
    assert_eq!(machine.read("unpacked/in/x"), "z");
    assert!(machine.path("plain/a.tar").is_file() && machine.path("downloaded/a.tar").is_file());
}

#[test]
fn sums_tell_contents_and_names_apart() {
    let sum = |entries: &[(&str, &str)]| machine(entries).find("d").remove(0).sum;
    let plain = sum(&[("d/a", "1"), ("d/b", "2")]);
    assert!(plain.starts_with("dir:"));
    assert_eq!(sum(&[("d/b", "2"), ("d/a", "1")]), plain);
    for other in [[("d/a", "2"), ("d/b", "1")], [("d/a", "1"), ("d/c", "2")], [("d/a", "1"), ("d/b", "->a")]] {
        assert_ne!(sum(&other), plain, "{other:?}");
    }
    assert_ne!(sum(&[("d/a", "1"), ("d/b", "->a")]), sum(&[("d/a", "1"), ("d/b", "->x")]));
}

//! Writes the files of a volume so that readers see all of the old contents or all of the new.
//!
//! ```text
//! VOLUME/..2026_11_21_08_00_00.123456789/key   the files
//! VOLUME/..data -> ..2026_11_21_08_00_00.123456789   swapped by rename
//! VOLUME/key -> ..data/key   what containers open
//! ```

use super::Why;
use super::ownership::{give_file, give_to_group};
use super::payload::Payload;
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path};

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";

/// Replaces the contents of the volume. A crash in between leaves the old contents.
pub fn write(dir: &Path, payload: &Payload, group: Option<u32>, now: Timestamp) -> Result<(), Why> {
    payload.check_paths()?;
    let name = format!("..{}", now.strftime("%Y_%m_%d_%H_%M_%S.%f"));
    let fresh = dir.join(&name);
    let old = std::fs::read_link(dir.join(DATA)).ok();
    // A directory of that name is left from a write that did not finish.
    remove_tree(&fresh)?;
    std::fs::create_dir(&fresh).map_err(Why::file("make directory", &fresh))?;
    open_up(&fresh, group)?;
    for file in &payload.files {
        write_file(&fresh, file, group)?;
    }
    let (link, temporary) = (dir.join(DATA), dir.join(NEW_DATA));
    remove_file(&temporary)?;
    symlink(&name, &temporary).map_err(Why::file("link", &temporary))?;
    std::fs::rename(&temporary, &link).map_err(Why::file("replace", &link))?;
    link_names(dir, payload)?;
    if let Some(old) = old.filter(|old| *old != Path::new(&name) && is_ours(old)) {
        remove_tree(&dir.join(old))?;
    }
    if let Some(group) = group {
        give_to_group(dir, group).map_err(Why::file("set group of", dir))?;
    }
    Ok(())
}

/// A link's target that is one of our directories and nothing else.
fn is_ours(target: &Path) -> bool {
    target.components().count() == 1 && target.to_string_lossy().starts_with("..2")
}

fn open_up(dir: &Path, group: Option<u32>) -> Result<(), Why> {
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).map_err(Why::file("set mode of", dir))?;
    match group {
        Some(group) => give_to_group(dir, group).map_err(Why::file("set group of", dir)),
        None => Ok(()),
    }
}

fn write_file(dir: &Path, file: &super::payload::File, group: Option<u32>) -> Result<(), Why> {
    let path = dir.join(&file.path);
    if let Some(parent) = Path::new(&file.path).parent() {
        let mut at = dir.to_owned();
        for part in parent.components() {
            at.push(part);
            match std::fs::create_dir(&at) {
                Ok(()) => open_up(&at, group)?,
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Why::file("make directory", &at)(error)),
            }
        }
    }
    let mut options = std::fs::OpenOptions::new();
    let opened = options.create(true).write(true).truncate(true).mode(0o600).open(&path);
    opened.and_then(|mut f| f.write_all(&file.data)).map_err(Why::file("write", &path))?;
    give_file(&path, file.mode, file.user, group).map_err(Why::file("set mode of", &path))
}

/// Links the first part of every path to the data, and removes links to what is gone.
fn link_names(dir: &Path, payload: &Payload) -> Result<(), Why> {
    let first = |path: &str| match Path::new(path).components().next() {
        Some(Component::Normal(name)) => Some(name.to_owned()),
        _ => None,
    };
    let wanted: BTreeSet<OsString> = payload.files.iter().filter_map(|f| first(&f.path)).collect();
    for name in &wanted {
        let link = dir.join(name);
        if std::fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), &link).map_err(Why::file("link", &link))?;
        }
    }
    for entry in std::fs::read_dir(dir).map_err(Why::file("read", dir))? {
        let name = entry.map_err(Why::file("read", dir))?.file_name();
        if !name.to_string_lossy().starts_with("..") && !wanted.contains(&name) {
            remove_file(&dir.join(name))?;
        }
    }
    Ok(())
}

fn remove_tree(path: &Path) -> Result<(), Why> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Why::file("remove", path)(error)),
        _ => Ok(()),
    }
}

fn remove_file(path: &Path) -> Result<(), Why> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Why::file("remove", path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::payload::File;
    use super::*;

    fn payload(files: &[(&str, &str, u32)]) -> Payload {
        let file = |(path, data, mode): &(&str, &str, u32)| File {
            path: (*path).into(),
            data: data.as_bytes().to_vec(),
            mode: *mode,
            user: None,
        };
        Payload { files: files.iter().map(file).collect() }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    #[test]
    fn contents_are_swapped_as_a_whole() {
        let dir = crate::fake::temporary_directory();
        let dir = dir.path();
        let read = |name: &str| std::fs::read_to_string(dir.join(name)).ok();
        write(dir, &payload(&[("a", "1", 0o644), ("d/b", "2", 0o400)]), None, at(0)).unwrap();
        assert_eq!((read("a"), read("d/b")), (Some("1".into()), Some("2".into())));
        assert_eq!(std::fs::read_link(dir.join("a")).unwrap(), Path::new("..data/a"));
        let mode = std::fs::metadata(dir.join("d/b")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o400);
        write(dir, &payload(&[("a", "3", 0o644)]), None, at(1)).unwrap();
        assert_eq!((read("a"), read("d/b")), (Some("3".into()), None));
        let dirs = std::fs::read_dir(dir).unwrap().filter(|e| e.as_ref().unwrap().path().is_dir()).count();
        assert_eq!(dirs, 2, "the directory behind ..data, seen twice");
    }

    #[test]
    fn paths_never_leave_the_volume() {
        let dir = crate::fake::temporary_directory();
        for path in ["../x", "/x", "", "a/../../x", "..x"] {
            assert!(write(dir.path(), &payload(&[(path, "1", 0o644)]), None, at(0)).is_err(), "{path:?}");
        }
    }
}

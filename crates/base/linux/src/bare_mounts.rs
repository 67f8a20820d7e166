//! Makes a mount namespace that holds hardly any mounts, for those who copy it.
//!
//! To copy a mount namespace takes time for each mount in it, and a machine has hundreds: those of its own and one for
//! each pinned network namespace. Who needs a mount namespace only to build something of its own enters this one first
//! and copies that. It shows the machine's root and the few filesystems that were asked for, as they were mounted when
//! it was made: what is mounted later on the machine does not show, so such things are taken along as descriptors.

use crate::mount::{self, Propagation, Tree};
use crate::process::{self, namespace};
use crate::{Context, Error, Result};
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Makes one in which `paths` lead where they lead now, by building it at the empty directory `place` in a copy of this
/// one. It lives as long as its descriptor, or somebody is in it.
///
/// # Errors
/// `EINVAL` on a machine whose root is a RAM disk, which cannot be left behind.
pub fn make(paths: &[&Path], place: &Path) -> Result<File> {
    process::on_thread("mounts", || {
        let points = points_of(paths)?;
        process::unshare(namespace::MOUNT)?;
        mount::propagate_all(Propagation::Private)?;
        // All are taken before the first is put in place, since `place` may be below one of them.
        let trees = points.iter().map(|point| Tree::clone_of_path(point, false)).collect::<Result<Vec<_>>>()?;
        for (point, tree) in points.iter().zip(trees) {
            tree.attach_at(&place.join(point.strip_prefix("/").unwrap_or(point)))?;
        }
        mount::pivot_into(place)?;
        File::open("/proc/thread-self/ns/mnt").context(|| "open a mount namespace")
    })
}

/// Where the filesystems on the way to `paths` are mounted, those nearer to the root first.
fn points_of(paths: &[&Path]) -> Result<BTreeSet<PathBuf>> {
    let file = "/proc/thread-self/mountinfo";
    let text = std::fs::read_to_string(file).context(|| format!("read {file}"))?;
    let found = on_the_way(&text, paths);
    match found.contains(Path::new("/")) {
        true => Ok(found),
        false => Err(Error::invalid(format!("read {file}"), "it has no root")),
    }
}

/// Paths are in order when their components are, so that `/a` comes before `/a/b`.
fn on_the_way(mountinfo: &str, paths: &[&Path]) -> BTreeSet<PathBuf> {
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(|point| PathBuf::from(plain(point)));
    points.filter(|point| paths.iter().any(|path| path.starts_with(point))).collect()
}

/// Spaces and the like are written as `\040` (proc_pid_mountinfo(5)).
fn plain(point: &str) -> String {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    escapes.into_iter().fold(point.to_owned(), |text, (escape, character)| text.replace(escape, character))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_on_the_way_is_found_in_order() {
        let table = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n22 27 0:21 / /proc rw - proc proc rw\n\
                     27 1 254:0 / / rw - ext4 /dev/vda rw\n23 27 0:22 / /sys rw - sysfs sysfs rw\n\
                     40 27 0:4 net:[1] /run/a\\040b/netns/1 rw - nsfs nsfs rw\n41 27 0:30 / /run/a\\040b rw - tmpfs t rw\n";
        let found = on_the_way(table, &[Path::new("/run/a b/rootfs"), Path::new("/sys/fs/cgroup")]);
        let expected = ["/", "/run/a b", "/sys", "/sys/fs/cgroup"].map(PathBuf::from);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn it_shows_what_was_asked_for_and_nothing_else() {
        let temp = tempfile::tempdir().unwrap();
        let (place, other) = (temp.path().join("place"), temp.path().join("other"));
        std::fs::create_dir(&place).unwrap();
        std::fs::create_dir(&other).unwrap();
        Tree::of_filesystem("tmpfs", &[], mount::INERT).unwrap().attach_at(&other).expect("needs root");
        let made = make(&[&place, Path::new("/proc")], &place);
        let seen = made.and_then(|bare| {
            process::on_thread("test", || {
                process::unshare(namespace::MOUNT)?;
                process::enter(std::os::fd::AsFd::as_fd(&bare), namespace::MOUNT)?;
                std::fs::read_to_string("/proc/thread-self/mountinfo").context(|| "read")
            })
        });
        mount::unmount(&other).unwrap();
        let seen = on_the_way(&seen.unwrap(), &[&place, &other, Path::new("/proc"), Path::new("/dev")]);
        assert!(seen.contains(Path::new("/")) && seen.contains(Path::new("/proc")), "{seen:?}");
        assert!(!seen.contains(&other) && !seen.contains(Path::new("/dev")), "{seen:?}");
    }
}

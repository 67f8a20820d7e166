//! Makes mounts that are held by descriptors and attached to descriptors (fsopen(2), open_tree(2), move_mount(2)).
//!
//! A `Tree` is a mount that is nowhere yet: it vanishes with its descriptor unless it was attached. Since targets are
//! descriptors too, no path is resolved twice and nobody can swap it meanwhile.

use crate::process::check;
use crate::{Context, Error, Result};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

pub use rustix::mount::MountAttrFlags as Attributes;

/// No set-id programs, no devices, no programs.
pub const INERT: Attributes =
    MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV).union(MountAttrFlags::MOUNT_ATTR_NOEXEC);
pub const READ_ONLY: Attributes = MountAttrFlags::MOUNT_ATTR_RDONLY;

/// How mounts below a point spread between namespaces (mount_namespaces(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Private,
    /// From the host only.
    Slave,
    /// Both ways.
    Shared,
    /// Private, and not to be bound elsewhere.
    Unbindable,
}

impl Propagation {
    fn flag(self) -> MountPropagationFlags {
        match self {
            Propagation::Private => MountPropagationFlags::PRIVATE,
            Propagation::Slave => MountPropagationFlags::DOWNSTREAM,
            Propagation::Shared => MountPropagationFlags::SHARED,
            Propagation::Unbindable => MountPropagationFlags::UNBINDABLE,
        }
    }
}

/// A detached mount.
#[derive(Debug)]
pub struct Tree(OwnedFd);

impl AsFd for Tree {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Tree {
    /// A new mount of a filesystem; an option without value is a flag. Tables of mounts call it by its kind unless the
    /// option `source` says otherwise.
    pub fn of_filesystem(kind: &str, options: &[(&str, &str)], attributes: Attributes) -> Result<Self> {
        let what = || format!("mount a {kind}");
        let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).context(what)?;
        if !options.iter().any(|(key, _)| *key == "source") {
            rustix::mount::fsconfig_set_string(&context, "source", kind).context(what)?;
        }
        for (key, value) in options {
            let set = match *value {
                "" => rustix::mount::fsconfig_set_flag(&context, *key),
                value => rustix::mount::fsconfig_set_string(&context, *key, value),
            };
            set.context(|| format!("mount a {kind} with {key}={value}"))?;
        }
        rustix::mount::fsconfig_create(&context).context(what)?;
        let tree = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).context(what)?;
        Ok(Self(tree))
    }

    /// What is mounted at an open file or directory, and below it when `recursive`, once more.
    pub fn clone_of(fd: BorrowedFd<'_>, recursive: bool) -> Result<Self> {
        let mut flags =
            OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::AT_EMPTY_PATH;
        if recursive {
            flags |= OpenTreeFlags::AT_RECURSIVE;
        }
        Ok(Self(rustix::mount::open_tree(fd, "", flags).context(|| "clone a mount")?))
    }

    /// The same of a path of the host.
    pub fn clone_of_path(path: &Path, recursive: bool) -> Result<Self> {
        let fd = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .context(|| format!("open {}", path.display()))?;
        Self::clone_of(fd.as_fd(), recursive).map_err(|e| Error::new(format!("bind {}", path.display()), e.source))
    }

    /// Sets attributes of the mount (mount_setattr(2)), of all below it too when `recursive`.
    pub fn set(&self, attributes: Attributes, recursive: bool) -> Result<()> {
        set_attributes(self.0.as_fd(), attributes.bits().into(), 0, recursive)
    }

    /// Sets and clears attributes of the mount, of all below it too when `recursive`.
    pub fn change(&self, set: Attributes, clear: Attributes, recursive: bool) -> Result<()> {
        // Kinds of access time are a number and not flags: the old one has to go.
        let times = MountAttrFlags::MOUNT_ATTR__ATIME;
        let times_set = set.intersects(times | MountAttrFlags::MOUNT_ATTR_NOATIME);
        let clear = if times_set || clear.intersects(times) { clear | times } else { clear };
        let attributes = libc::mount_attr {
            attr_set: set.bits().into(),
            attr_clr: clear.bits().into(),
            propagation: 0,
            userns_fd: 0,
        };
        change_attributes(self.0.as_fd(), &attributes, recursive).context(|| "change attributes of a mount")
    }

    /// Shows the files of the mount, and of all below it, with the ids of a user namespace: what belongs to an outer
    /// id on the disk belongs to the inner one of the same number here (mount_setattr(2), "ID-mapped mounts").
    ///
    /// # Errors
    /// `EINVAL` when the filesystem cannot do that, or the mount is not a new detached one.
    pub fn map_ids(&self, user_namespace: BorrowedFd<'_>, recursive: bool) -> Result<()> {
        let attributes = libc::mount_attr {
            attr_set: libc::MOUNT_ATTR_IDMAP,
            attr_clr: 0,
            propagation: 0,
            userns_fd: user_namespace.as_raw_fd().cast_unsigned().into(),
        };
        change_attributes(self.0.as_fd(), &attributes, recursive)
            .context(|| "map the ids of a mount: its filesystem may not support ID-mapped mounts")
    }

    /// The same of a mount whose root directory is open.
    pub fn set_open(root: BorrowedFd<'_>, attributes: Attributes) -> Result<()> {
        set_attributes(root, attributes.bits().into(), 0, false)
    }

    /// Says how mounts at and below it spread.
    pub fn propagate(&self, propagation: Propagation, recursive: bool) -> Result<()> {
        set_attributes(self.0.as_fd(), 0, propagation.flag().bits().into(), recursive)
    }

    /// Attaches it to an open file or directory.
    pub fn attach(&self, target: BorrowedFd<'_>) -> Result<()> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        rustix::mount::move_mount(&self.0, "", target, "", flags).context(|| "attach a mount")
    }

    /// Attaches it to a path that only we can change.
    pub fn attach_at(&self, target: &Path) -> Result<()> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(&self.0, "", CWD, target, flags)
            .context(|| format!("attach a mount to {}", target.display()))
    }
}

fn set_attributes(fd: BorrowedFd<'_>, set: u64, propagation: u64, recursive: bool) -> Result<()> {
    let attributes = libc::mount_attr { attr_set: set, attr_clr: 0, propagation, userns_fd: 0 };
    change_attributes(fd, &attributes, recursive).context(|| "set attributes of a mount")
}

fn change_attributes(fd: BorrowedFd<'_>, attributes: &libc::mount_attr, recursive: bool) -> std::io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the empty path and `attributes` outlive the call, and the size is that of `attributes`.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            size_of::<libc::mount_attr>(),
        )
    };
    check(done).map(drop)
}

/// The directories of an overlay.
#[derive(Clone, Debug)]
pub struct Overlay<'a> {
    /// Read-only layers, the top one first.
    pub lower: &'a [PathBuf],
    pub upper: &'a Path,
    pub work: &'a Path,
    /// Never wait for the disk: what is written need not survive a crash of the machine.
    pub volatile: bool,
}

/// Whether this kernel was found to have no `lowerdir+`, which adds one layer (since Linux 6.5): it writes a line to its
/// log whenever it is asked for that.
static WANTS_ALL_LAYERS: AtomicBool = AtomicBool::new(false);

impl Overlay<'_> {
    /// Mounts it at a path that only we can change.
    pub fn mount_at(&self, target: &Path) -> Result<()> {
        match self.tree() {
            Ok(tree) => tree.attach_at(target),
            Err(e) if e.errno() == Some(libc::EINVAL) => self.mount_by_options(target),
            Err(e) => Err(e),
        }
    }

    /// Mounted, but nowhere: files are opened from it. Before Linux 6.5 only an overlay of few layers can be, as one
    /// option of the new interface holds 255 bytes; EINVAL says that there are too many.
    pub fn tree(&self) -> Result<Tree> {
        if !WANTS_ALL_LAYERS.load(Ordering::Relaxed) {
            match self.tree_of(&self.lower.iter().map(|layer| ("lowerdir+", layer.clone())).collect::<Vec<_>>()) {
                Err(e) if e.errno() == Some(libc::EINVAL) => {}
                other => return other,
            }
        }
        let (_open, names) = self.short_names()?;
        let all = PathBuf::from(names.join(":"));
        if all.as_os_str().len() > 255 {
            return Err(Error::new("mount an overlay of many layers", Errno::INVAL));
        }
        let tree = self.tree_of(&[("lowerdir", all)])?;
        WANTS_ALL_LAYERS.store(true, Ordering::Relaxed);
        Ok(tree)
    }

    fn tree_of(&self, lower: &[(&str, PathBuf)]) -> Result<Tree> {
        let what = || "mount an overlay";
        let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).context(what)?;
        let set = |key: &str, value: &Path| {
            rustix::mount::fsconfig_set_string(&context, key, value)
                .context(|| format!("mount an overlay with {key} {}", value.display()))
        };
        set("source", Path::new("overlay"))?;
        for (key, layer) in lower {
            set(key, layer)?;
        }
        set("upperdir", self.upper)?;
        set("workdir", self.work)?;
        if self.volatile {
            rustix::mount::fsconfig_set_flag(&context, "volatile").context(what)?;
        }
        rustix::mount::fsconfig_create(&context)
            .context(|| format!("mount an overlay of {} layers over {}", self.lower.len(), self.upper.display()))?;
        let tree = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty());
        Ok(Tree(tree.context(what)?))
    }

    /// mount(2) takes one page of options: layers go by descriptor, which keeps each at some 16 bytes.
    fn mount_by_options(&self, target: &Path) -> Result<()> {
        let open = |path: &Path| {
            rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
                .context(|| format!("open {}", path.display()))
        };
        let name = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
        let (lower, layers) = self.short_names()?;
        let (upper, work) = (open(self.upper)?, open(self.work)?);
        let options = format!("lowerdir={},upperdir={},workdir={}", layers.join(":"), name(&upper), name(&work));
        let options = std::ffi::CString::new(options).map_err(std::io::Error::from).context(|| "overlay options")?;
        rustix::mount::mount("overlay", target, "overlay", MountFlags::empty(), options.as_c_str())
            .context(|| format!("mount an overlay of {} layers at {}", lower.len(), target.display()))
    }

    /// The layers by descriptor, and their names as long as those are open.
    fn short_names(&self) -> Result<(Vec<OwnedFd>, Vec<String>)> {
        let open = |path: &PathBuf| {
            rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
                .context(|| format!("open {}", path.display()))
        };
        let lower: Vec<OwnedFd> = self.lower.iter().map(open).collect::<Result<_>>()?;
        let names = lower.iter().map(|fd| format!("/proc/self/fd/{}", fd.as_raw_fd())).collect();
        Ok((lower, names))
    }
}

/// Changes how all mounts of this mount namespace spread.
pub fn propagate_all(propagation: Propagation) -> Result<()> {
    let flags = propagation.flag() | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", flags).context(|| format!("make all mounts {propagation:?}"))
}

/// Makes the mounted directory `new_root` the root of this mount namespace and lets the old root go.
pub fn pivot_into(new_root: &Path) -> Result<()> {
    let what = || format!("change the root to {}", new_root.display());
    rustix::process::chdir(new_root).context(what)?;
    // pivot_root(2), "pivot_root(".", ".")": the old root is stacked on the new one and taken off it again.
    rustix::process::pivot_root(".", ".").context(what)?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).context(|| "let the old root go")?;
    rustix::process::chdir("/").context(what)
}

/// The same without pivot_root(2), for a root on a RAM disk: the old root is covered and stays below.
pub fn move_into(new_root: &Path) -> Result<()> {
    let what = || format!("move the root to {}", new_root.display());
    rustix::process::chdir(new_root).context(what)?;
    rustix::mount::mount_move(".", "/").context(what)?;
    rustix::process::chroot(".").context(what)?;
    rustix::process::chdir("/").context(what)
}

/// Takes a mount away, at once or as soon as nobody uses it. Succeeds when nothing is mounted or there.
pub fn unmount(path: &Path) -> Result<()> {
    match rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(e) => Err(Error::new(format!("unmount {}", path.display()), e)),
    }
}

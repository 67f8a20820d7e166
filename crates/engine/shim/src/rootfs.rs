//! Builds a container's root filesystem in its new mount namespace, and hides what it must not see or change.
//!
//! Runs in the forked child. Every target is a descriptor inside the new root (CVE-2021-30465), and what is masked or
//! mounted under /proc and /dev is taken from the descriptors of the very filesystems that were just made, never
//! looked up by a path that the image shaped (CVE-2025-31133, CVE-2025-52565, CVE-2025-52881).

use crate::prepare::{Bind, check_sub_path};
use crate::protocol::{ContainerSpec, DeviceSpec, MountSpec, RootSpec};
use crate::user_namespace::UserNamespace;
use pintle_linux::cgroup::Cgroups;
use pintle_linux::mount::{self, Attributes, INERT, Overlay, READ_ONLY, Tree};
use pintle_linux::path::{Dir, Scope, lexical, open_directory};
use pintle_linux::pty::Terminal;
use pintle_linux::{Context, Error, Result, pty};
use rustix::fs::{FileType, Mode, OFlags};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What the child still needs of the filesystems that it made.
pub struct Built {
    pub terminal: Option<Terminal>,
    /// The container's /dev/null, verified.
    pub null: OwnedFd,
}

/// What there is to build from, beside the specification.
pub struct Parts<'a> {
    pub mount_point: &'a Path,
    /// The root filesystem; none mounts it now.
    pub root: Option<Tree>,
    pub binds: Vec<Bind>,
    /// The sandbox's /dev/shm; none makes one for the container.
    pub shm: Option<Tree>,
    pub cgroups: &'a Cgroups,
    /// Whose ids the files have.
    pub users: Option<&'a UserNamespace>,
}

/// Device nodes that every container has: name, major, minor.
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];

/// Mounts everything at the mount point. The caller makes it the root.
pub fn build(spec: &ContainerSpec, parts: Parts<'_>) -> Result<Built> {
    mount::propagate_all(mount::Propagation::Private)?;
    let binds = with_images(spec, parts.binds, parts.mount_point, parts.users)?;
    match parts.root {
        Some(root) => root.attach_at(parts.mount_point)?,
        None => mount_root(&spec.root, parts.mount_point, parts.users)?,
    }
    let taken = spec.mounts.iter().map(|m| lexical(&m.target)).collect();
    let root = Root::open(parts.mount_point, taken, parts.users)?;
    let proc = root.system("/proc", Tree::of_filesystem("proc", &[], INERT)?)?;
    let (null, devpts) = root.devices(spec, parts.shm)?;
    let sys = root.sysfs(spec.privileged)?;
    root.cgroups(spec, parts.cgroups)?;
    let terminal = if spec.process.terminal { Some(root.terminal(&devpts, spec.process.terminal_size)?) } else { None };
    for bind in &binds {
        root.bind(bind)?;
    }
    let hidden = Hidden { masked: &spec.masked_paths, readonly: &spec.readonly_paths };
    root.hide(&hidden, Some(&proc), Some(&sys), &null)?;
    if spec.root.readonly {
        root.protect()?;
    }
    Ok(Built { terminal, null })
}

/// All mounts, with those of images among them, those nearer to the root first.
fn with_images(
    spec: &ContainerSpec,
    mut binds: Vec<Bind>,
    place: &Path,
    users: Option<&UserNamespace>,
) -> Result<Vec<Bind>> {
    for mount in &spec.mounts {
        let Some(image) = &mount.image else { continue };
        let bind = image_bind(mount, image, place, users);
        binds.push(
            bind.map_err(|e| {
                Error::new(format!("mount an image to {}: {}", mount.target.display(), e.what), e.source)
            })?,
        );
    }
    binds.sort_by_key(|bind| bind.target.components().count());
    Ok(binds)
}

/// Mounts an image where the root will be, takes what is wanted of it, and unmounts it there.
fn image_bind(mount: &MountSpec, image: &RootSpec, place: &Path, users: Option<&UserNamespace>) -> Result<Bind> {
    mount_root(image, place, users)?;
    let top = open_directory(place)?;
    let inside = if mount.sub_path.as_os_str().is_empty() { Path::new(".") } else { &mount.sub_path };
    check_sub_path(inside)?;
    let wanted = Dir::new(&top, Scope::Beneath).open(inside, OFlags::PATH)?;
    let status = rustix::fs::fstat(&wanted).context(|| format!("stat {}", inside.display()))?;
    let tree = Tree::clone_of(wanted.as_fd(), false)?;
    tree.set(INERT | READ_ONLY, false)?;
    mount::unmount(place)?;
    let directory = FileType::from_raw_mode(status.st_mode) == FileType::Directory;
    Ok(Bind { tree, target: mount.target.clone(), directory })
}

/// The root filesystem, mounted but nowhere; none where this kernel cannot do that with so many layers.
pub fn root_tree(root: &RootSpec) -> Result<Option<Tree>> {
    if root.lower.is_empty() {
        return Tree::clone_of_path(&root.upper, true).map(Some);
    }
    match overlay(root).tree() {
        Err(e) if e.errno() == Some(libc::EINVAL) => Ok(None),
        made => made.map(Some),
    }
}

fn overlay(root: &RootSpec) -> Overlay<'_> {
    Overlay { lower: &root.lower, upper: &root.upper, work: &root.work, volatile: root.volatile }
}

fn mount_root(root: &RootSpec, target: &Path, users: Option<&UserNamespace>) -> Result<()> {
    if root.lower.is_empty() {
        let tree = Tree::clone_of_path(&root.upper, true)?;
        if let Some(users) = users {
            tree.map_ids(users.handle(), true)?;
        }
        return tree.attach_at(target);
    }
    if let Some(users) = users {
        return mount_mapped_root(root, target, users);
    }
    overlay(root).mount_at(target)
}

/// An overlay cannot be ID-mapped itself, but its layers can (Linux 5.19). They are attached below a tmpfs that is
/// there for that moment only; the overlay keeps them.
fn mount_mapped_root(root: &RootSpec, target: &Path, users: &UserNamespace) -> Result<()> {
    let parent = root.upper.parent().filter(|parent| root.work.starts_with(parent)).ok_or_else(|| {
        Error::invalid(
            format!("map the ids of {}", root.upper.display()),
            "it has no directory with its work directory",
        )
    })?;
    Tree::of_filesystem("tmpfs", &[("mode", "700")], INERT)?.attach_at(target)?;
    let place = |source: &Path, name: String| -> Result<PathBuf> {
        let at = target.join(name);
        std::fs::create_dir(&at).context(|| format!("create {}", at.display()))?;
        let tree = Tree::clone_of_path(source, false)?;
        tree.map_ids(users.handle(), false)
            .map_err(|e| Error::new(format!("{} ({})", e.what, source.display()), e.source))?;
        tree.attach_at(&at)?;
        Ok(at)
    };
    let layers = root.lower.iter().enumerate().map(|(number, layer)| place(layer, number.to_string()));
    let lower = layers.collect::<Result<Vec<_>>>()?;
    let writable = place(parent, "w".to_owned())?;
    let inside = |path: &Path| writable.join(path.strip_prefix(parent).unwrap_or(path));
    let (upper, work) = (inside(&root.upper), inside(&root.work));
    let overlay = Overlay { lower: &lower, upper: &upper, work: &work, volatile: root.volatile };
    match overlay.tree() {
        Ok(tree) => {
            mount::unmount(target)?;
            tree.attach_at(target)
        }
        // Many layers before Linux 6.5: on top of the tmpfs, which goes with the old root.
        Err(_) => overlay.mount_at(target),
    }
}

/// The new root, by descriptor: everything is attached below it.
pub struct Root<'a> {
    users: Option<&'a UserNamespace>,
    fd: OwnedFd,
    /// Destinations that the container's own mounts take, so that ours stay away.
    taken: Vec<PathBuf>,
}

impl<'a> Root<'a> {
    /// `taken` are destinations that the container's own mounts take.
    pub fn open(path: &Path, taken: Vec<PathBuf>, users: Option<&'a UserNamespace>) -> Result<Self> {
        Ok(Self { users, fd: open_directory(path)?, taken })
    }

    pub fn dir(&self) -> Dir<'_> {
        Dir::new(&self.fd, Scope::Root)
    }

    fn is_taken(&self, path: &str) -> bool {
        self.taken.contains(&lexical(Path::new(path)))
    }

    /// Attaches a filesystem of ours to a directory that may not be a link: an image must not choose where it goes.
    pub fn system(&self, path: &str, tree: Tree) -> Result<Tree> {
        let target = Dir::new(&self.fd, Scope::NoLinks).make_dir(Path::new(path), 0o755)?;
        tree.attach(target.as_fd())?;
        Ok(tree)
    }

    /// /dev with its nodes, /dev/pts, /dev/shm and /dev/mqueue. Returns /dev/null and the root of /dev/pts.
    fn devices(&self, spec: &ContainerSpec, shm: Option<Tree>) -> Result<(OwnedFd, Tree)> {
        let dev = Tree::of_filesystem("tmpfs", &[("mode", "755"), ("size", "65536k")], Attributes::MOUNT_ATTR_NOSUID)?;
        let dev = self.system("/dev", dev)?;
        let null = usual_devices(dev.as_fd())?;
        let gid = self.users.map_or(Ok(5), |users| users.outer_group(5))?.to_string();
        let options = [("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", &gid)];
        let no_programs = Attributes::MOUNT_ATTR_NOSUID | Attributes::MOUNT_ATTR_NOEXEC;
        let devpts = self.system("/dev/pts", Tree::of_filesystem("devpts", &options, no_programs)?)?;
        if !spec.no_shm && !self.is_taken("/dev/shm") {
            self.system("/dev/shm", shm.map_or_else(|| shared_memory(64 << 20), Ok)?)?;
        }
        if !self.is_taken("/dev/mqueue") {
            self.system("/dev/mqueue", Tree::of_filesystem("mqueue", &[], INERT)?)?;
        }
        for device in &spec.devices {
            self.device(device)?;
        }
        Ok((null, devpts))
    }

    fn device(&self, device: &DeviceSpec) -> Result<()> {
        let what = || format!("add device {}", device.source.display());
        let status = rustix::fs::stat(&device.source).context(what)?;
        let kind = FileType::from_raw_mode(status.st_mode);
        if !matches!(kind, FileType::CharacterDevice | FileType::BlockDevice) {
            return Err(Error::invalid(what(), "it is not a device"));
        }
        let target = lexical(&device.target);
        let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(Error::invalid(what(), "it has no name in the container"));
        };
        let parent = self.dir().make_dir(parent, 0o755)?;
        let name = name.to_string_lossy();
        match make_node(parent.as_fd(), &name, kind, status.st_mode & 0o777, status.st_rdev) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }

    fn sysfs(&self, privileged: bool) -> Result<Tree> {
        let attributes = if privileged { INERT } else { INERT | READ_ONLY };
        self.system("/sys", Tree::of_filesystem("sysfs", &[], attributes)?)
    }

    /// The container's own cgroup below /sys/fs/cgroup, to read its limits.
    fn cgroups(&self, spec: &ContainerSpec, cgroups: &Cgroups) -> Result<()> {
        match self.is_taken("/sys/fs/cgroup") {
            true => Ok(()),
            false => self.mount_cgroups("/sys/fs/cgroup", &spec.cgroup, spec.privileged, cgroups),
        }
    }

    /// A container's own cgroup, in each hierarchy.
    pub fn mount_cgroups(&self, at: &str, cgroup: &str, writable: bool, cgroups: &Cgroups) -> Result<()> {
        let attributes = if writable { INERT } else { INERT | READ_ONLY };
        if cgroups.hierarchies()[0].v2 {
            self.system(at, Tree::of_filesystem("cgroup2", &[], attributes)?)?;
            return Ok(());
        }
        let top = self.system(at, Tree::of_filesystem("tmpfs", &[("mode", "755")], INERT)?)?;
        for (hierarchy, directory) in cgroups.hierarchies().iter().zip(cgroups.directories(cgroup)?) {
            let name = PathBuf::from(hierarchy.controllers.join(","));
            let target = Dir::new(&top, Scope::NoLinks).make_dir(&name, 0o755)?;
            let tree = Tree::clone_of_path(&directory, false)?;
            tree.set(attributes, false)?;
            tree.attach(target.as_fd())?;
            for alias in hierarchy.controllers.iter().filter(|_| hierarchy.controllers.len() > 1) {
                rustix::fs::symlinkat(&name, &top, alias.as_str()).context(|| format!("link cgroup {alias}"))?;
            }
        }
        if !writable {
            top.set(READ_ONLY, false)?;
        }
        Ok(())
    }

    /// A terminal of the container's own devpts, also as /dev/console, of this many columns and rows.
    pub fn terminal(&self, devpts: &Tree, size: Option<(u16, u16)>) -> Result<Terminal> {
        let terminal = pty::open(devpts.as_fd())?;
        if let Some((columns, rows)) = size {
            pty::resize(&terminal.controller, columns, rows)?;
        }
        let console = Dir::new(&self.fd, Scope::NoLinks).make_file(Path::new("/dev/console"), 0o600)?;
        let node = Dir::new(devpts, Scope::NoLinks).open(Path::new(&terminal.number.to_string()), OFlags::PATH)?;
        Tree::clone_of(node.as_fd(), false)?.attach(console.as_fd())?;
        Ok(terminal)
    }

    pub fn bind(&self, bind: &Bind) -> Result<()> {
        let context = |e: Error| Error::new(format!("mount to {}: {}", bind.target.display(), e.what), e.source);
        let target = if bind.directory {
            self.dir().make_dir(&bind.target, 0o755)
        } else {
            self.dir().make_file(&bind.target, 0o644)
        };
        let target = target.map_err(context)?;
        let filesystem = rustix::fs::fstatfs(&target).context(|| "ask the filesystem of a mount target")?;
        if filesystem.f_type == rustix::fs::PROC_SUPER_MAGIC {
            let what = format!("mount to {}", bind.target.display());
            return Err(Error::invalid(what, "cannot be mounted because it is inside /proc"));
        }
        bind.tree.attach(target.as_fd()).map_err(context)
    }

    /// Makes the root filesystem itself read-only, not what is mounted below.
    pub fn protect(&self) -> Result<()> {
        Tree::set_open(self.fd.as_fd(), READ_ONLY)
    }

    /// Masks and write-protects paths.
    pub fn hide(&self, hidden: &Hidden<'_>, proc: Option<&Tree>, sys: Option<&Tree>, null: &OwnedFd) -> Result<()> {
        for path in hidden.readonly {
            let Some(target) = self.find(path, proc, sys)? else { continue };
            let tree = Tree::clone_of(target.as_fd(), true)?;
            tree.set(READ_ONLY, true)?;
            tree.attach(target.as_fd())?;
        }
        // One for all: the kernel goes through what there is of filesystems when it makes another one.
        let mut empty: Option<Tree> = None;
        for path in hidden.masked {
            let Some(target) = self.find(path, proc, sys)? else { continue };
            let status = rustix::fs::fstat(&target).context(|| format!("stat {}", path.display()))?;
            let directory = FileType::from_raw_mode(status.st_mode) == FileType::Directory;
            let mask = if directory {
                match &empty {
                    Some(empty) => Tree::clone_of(empty.as_fd(), false)?,
                    None => Tree::of_filesystem("tmpfs", &[("size", "0"), ("nr_inodes", "1")], INERT | READ_ONLY)?,
                }
            } else {
                Tree::clone_of(null.as_fd(), false)?
            };
            mask.attach(target.as_fd())
                .map_err(|e| Error::new(format!("mask {}: {}", path.display(), e.what), e.source))?;
            if directory {
                empty.get_or_insert(mask);
            }
        }
        Ok(())
    }

    /// Opens a path to hide: below /proc and /sys in the filesystems that we mounted there, whatever the image put
    /// in their way. Nothing when it does not exist.
    fn find(&self, path: &Path, proc: Option<&Tree>, sys: Option<&Tree>) -> Result<Option<OwnedFd>> {
        let clean = lexical(path);
        let found = if let (Ok(inside), Some(proc)) = (clean.strip_prefix("proc"), proc) {
            Dir::new(proc, Scope::NoLinks).open(inside, OFlags::PATH)
        } else if let (Ok(inside), Some(sys)) = (clean.strip_prefix("sys"), sys) {
            Dir::new(sys, Scope::NoLinks).open(inside, OFlags::PATH)
        } else {
            self.dir().open(&clean, OFlags::PATH)
        };
        match found {
            Ok(fd) => Ok(Some(fd)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::new(format!("hide {}: {}", path.display(), e.what), e.source)),
        }
    }
}

/// Paths that a container must not see, or not change.
pub struct Hidden<'a> {
    pub masked: &'a [PathBuf],
    pub readonly: &'a [PathBuf],
}

/// Makes the devices and links that every container has in its /dev; those that are there stay. Returns /dev/null.
pub fn usual_devices(dev: BorrowedFd<'_>) -> Result<OwnedFd> {
    for (name, major, minor) in DEVICES {
        let number = rustix::fs::makedev(major, minor);
        match make_node(dev, name, FileType::CharacterDevice, 0o666, number) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
    }
    for (name, to) in LINKS {
        match rustix::fs::symlinkat(to, dev, name) {
            Err(rustix::io::Errno::EXIST) => {}
            other => other.context(|| format!("link /dev/{name}"))?,
        }
    }
    open_null(dev, "null")
}

/// A /dev/shm of this many bytes.
pub fn shared_memory(bytes: u64) -> Result<Tree> {
    let size = bytes.to_string();
    Tree::of_filesystem("tmpfs", &[("source", "shm"), ("mode", "1777"), ("size", &size)], INERT)
}

/// Makes a device node in an open directory.
pub fn make_node(dir: impl AsFd, name: &str, kind: FileType, mode: u32, number: u64) -> Result<()> {
    let what = || format!("make device {name}");
    rustix::fs::mknodat(&dir, name, kind, Mode::from_raw_mode(mode), number).context(what)
}

/// Opens /dev/null and makes sure that it is what it says (1:3, Documentation/admin-guide/devices.txt).
pub fn open_null(dir: impl AsFd, name: &str) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let null = rustix::fs::openat(dir, name, flags, Mode::empty()).context(|| "open /dev/null")?;
    let status = rustix::fs::fstat(&null).context(|| "stat /dev/null")?;
    let device = FileType::from_raw_mode(status.st_mode) == FileType::CharacterDevice;
    if !device || status.st_rdev != rustix::fs::makedev(1, 3) {
        return Err(Error::invalid("open /dev/null of the container", "it is another file"));
    }
    Ok(null)
}

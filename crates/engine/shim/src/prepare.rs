//! Opens on the host what a container will see, before the fork: bind sources, and the ends of its stdio.
//!
//! A source is opened once and cloned from its descriptor, so that what was checked is what is mounted. A `sub_path`
//! never leads out of its source, whatever links a container put there (CVE-2017-1002101, CVE-2021-25741).

use crate::protocol::{ContainerSpec, Failure, MountSpec, Propagation};
use crate::user_namespace::UserNamespace;
use pintle_linux::mount::{self, Tree};
use pintle_linux::path::{Dir, Scope};
use pintle_linux::{Context, Error, Result};
use rustix::fs::{FileType, Mode, OFlags};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// A mount that waits for its place.
#[derive(Debug)]
pub struct Bind {
    pub tree: Tree,
    pub target: PathBuf,
    pub directory: bool,
}

/// Clones all bind mounts of a container, those nearer to the root first, so that none hides another by accident.
pub fn binds(spec: &ContainerSpec, users: Option<&UserNamespace>) -> std::result::Result<Vec<Bind>, Failure> {
    // Those of images are made in the container's own mount namespace.
    let mut mounts: Vec<&MountSpec> = spec.mounts.iter().filter(|m| m.image.is_none()).collect();
    mounts.sort_by_key(|m| m.target.components().count());
    mounts.into_iter().map(|m| bind(m, users).map_err(|e| refused(m, &e))).collect()
}

fn refused(mount: &MountSpec, error: &Error) -> Failure {
    let source = mount.source.join(&mount.sub_path);
    Failure::other(format!("failed to mount {} to {}: {error}", source.display(), mount.target.display()))
}

fn bind(mount: &MountSpec, users: Option<&UserNamespace>) -> Result<Bind> {
    if let Some(options) = &mount.tmpfs {
        let tree = tmpfs(options)?;
        if let Some(users) = users {
            tree.map_ids(users.handle(), false)?;
        }
        return Ok(Bind { tree, target: mount.target.clone(), directory: true });
    }
    let source = open_source(mount)?;
    let status = rustix::fs::fstat(&source).context(|| format!("stat {}", mount.source.display()))?;
    let directory = FileType::from_raw_mode(status.st_mode) == FileType::Directory;
    // To clone what is below a file, too, the kernel would look for it among all mounts of the file's filesystem.
    let tree = Tree::clone_of(source.as_fd(), directory)?;
    if let Some(users) = users {
        tree.map_ids(users.handle(), true)?;
    }
    let propagation = match mount.propagation {
        Propagation::Private => mount::Propagation::Private,
        Propagation::FromHost => mount::Propagation::Slave,
        Propagation::BothWays => mount::Propagation::Shared,
    };
    tree.propagate(propagation, true)?;
    if mount.readonly || mount.recursive_readonly {
        tree.set(mount::READ_ONLY, mount.recursive_readonly)?;
    }
    Ok(Bind { tree, target: mount.target.clone(), directory })
}

/// A tmpfs with the options of mount(8): flags become attributes, the rest is the filesystem's.
fn tmpfs(options: &[String]) -> Result<Tree> {
    // Docker's: no set-user-id programs, devices or programs, unless an option says otherwise.
    let mut attributes = mount::INERT;
    let mut own = Vec::new();
    for option in options.iter().flat_map(|o| o.split(',')).filter(|o| !o.is_empty()) {
        let flag = |name: &str| match name {
            "ro" => Some(mount::READ_ONLY),
            "suid" | "nosuid" => Some(mount::Attributes::MOUNT_ATTR_NOSUID),
            "dev" | "nodev" => Some(mount::Attributes::MOUNT_ATTR_NODEV),
            "exec" | "noexec" => Some(mount::Attributes::MOUNT_ATTR_NOEXEC),
            "noatime" => Some(mount::Attributes::MOUNT_ATTR_NOATIME),
            _ => None,
        };
        match (option, flag(option), option.split_once('=')) {
            ("rw" | "atime" | "relatime" | "norelatime" | "defaults", ..) => {}
            ("suid" | "dev" | "exec", Some(flag), _) => attributes.remove(flag),
            (_, Some(flag), _) => attributes.insert(flag),
            (_, None, Some(pair)) => own.push(pair),
            (_, None, None) => return Err(Error::invalid(format!("tmpfs option {option:?}"), "is unknown")),
        }
    }
    Tree::of_filesystem("tmpfs", &own, attributes)
}

/// A missing `sub_path` is made as a directory, with the mode of the volume.
fn open_source(mount: &MountSpec) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let source =
        rustix::fs::open(&mount.source, flags, Mode::empty()).context(|| format!("open {}", mount.source.display()))?;
    if mount.sub_path.as_os_str().is_empty() {
        return Ok(source);
    }
    check_sub_path(&mount.sub_path)?;
    let beneath = Dir::new(&source, Scope::Beneath);
    match beneath.open(&mount.sub_path, OFlags::PATH) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let status = rustix::fs::fstat(&source).context(|| format!("stat {}", mount.source.display()))?;
            beneath.make_dir(&mount.sub_path, status.st_mode & 0o777)
        }
        other => other,
    }
}

pub(crate) fn check_sub_path(sub_path: &Path) -> Result<()> {
    let climbs = sub_path.components().any(|c| matches!(c, std::path::Component::ParentDir));
    if climbs || sub_path.is_absolute() {
        return Err(Error::invalid(
            format!("sub path {}", sub_path.display()),
            "must be relative and not contain the '..' path",
        ));
    }
    Ok(())
}

/// The child's side of stdio.
#[derive(Debug, Default)]
pub struct ChildStdio {
    /// None is /dev/null of the container.
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
}

/// The shim's side of stdio; with a terminal all is its controlling end.
#[derive(Debug, Default)]
pub struct ShimStdio {
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
}

/// Pipes for a container without a terminal.
pub fn pipes(stdin: bool) -> Result<(ChildStdio, ShimStdio)> {
    let pipe = || std::io::pipe().context(|| "make a pipe");
    let (mut child, mut shim) = (ChildStdio::default(), ShimStdio::default());
    if stdin {
        let (reader, writer) = pipe()?;
        (child.stdin, shim.stdin) = (Some(reader.into()), Some(nonblocking(writer.into())?));
    }
    let (reader, writer) = pipe()?;
    (shim.stdout, child.stdout) = (Some(nonblocking(reader.into())?), Some(writer.into()));
    let (reader, writer) = pipe()?;
    (shim.stderr, child.stderr) = (Some(nonblocking(reader.into())?), Some(writer.into()));
    Ok((child, shim))
}

/// Makes an end of ours never wait.
pub fn nonblocking(fd: OwnedFd) -> Result<OwnedFd> {
    rustix::io::ioctl_fionbio(&fd, true).context(|| "make a descriptor non-blocking")?;
    Ok(fd)
}

/// Without CAP_SYS_RESOURCE the kernel refuses to lower the score: the container runs all the same.
pub fn set_oom_score(score: Option<i32>) {
    if let Some(score) = score {
        let _ = std::fs::write("/proc/self/oom_score_adj", score.to_string());
    }
}

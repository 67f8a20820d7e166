//! The `mounts` of a configuration: options, bind sources opened on the host, and everything attached in the new root.

use crate::bundle::{Config, Mount};
use crate::{Error, Result, refuse};
use pintle_linux::Context;
use pintle_linux::cgroup::Cgroups;
use pintle_linux::mount::{Attributes, Propagation, Tree};
use pintle_linux::path::lexical;
use pintle_shim::prepare::Bind;
use pintle_shim::rootfs::Root;
use rustix::fs::{FileType, Mode, OFlags};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Options of mount(8), sorted by what they do.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Clone the source; with everything below it when true.
    pub bind: Option<bool>,
    set: Flags,
    clear: Flags,
    /// The same with all mounts below.
    set_recursive: Flags,
    clear_recursive: Flags,
    propagation: Vec<(Propagation, bool)>,
    data: Vec<(String, String)>,
}

/// Bits of mount attributes, which have no default of their own.
type Flags = u32;

/// Options that set an attribute, and those that clear it.
const ATTRIBUTES: [(&str, &str, Attributes); 7] = [
    ("ro", "rw", Attributes::MOUNT_ATTR_RDONLY),
    ("nosuid", "suid", Attributes::MOUNT_ATTR_NOSUID),
    ("nodev", "dev", Attributes::MOUNT_ATTR_NODEV),
    ("noexec", "exec", Attributes::MOUNT_ATTR_NOEXEC),
    ("noatime", "atime", Attributes::MOUNT_ATTR_NOATIME),
    ("strictatime", "nostrictatime", Attributes::MOUNT_ATTR_STRICTATIME),
    ("nodiratime", "diratime", Attributes::MOUNT_ATTR_NODIRATIME),
];

/// Options that need nothing done.
const IDLE: [&str; 12] = [
    "defaults",
    "async",
    "relatime",
    "norelatime",
    "rrelatime",
    "rnorelatime",
    "nomand",
    "iversion",
    "noiversion",
    "silent",
    "loud",
    "tmpcopyup",
];

impl Options {
    pub fn parse(texts: &[String]) -> Result<Self> {
        let mut options = Self::default();
        for text in texts {
            options.add(text)?;
        }
        Ok(options)
    }

    fn add(&mut self, text: &str) -> Result<()> {
        let attribute = |name: &str| {
            ATTRIBUTES.iter().find_map(|(set, clear, flag)| match name {
                _ if name == *set => Some((true, flag.bits())),
                _ if name == *clear => Some((false, flag.bits())),
                _ => None,
            })
        };
        let spread = |name: &str| match name {
            "private" => Some(Propagation::Private),
            "slave" => Some(Propagation::Slave),
            "shared" => Some(Propagation::Shared),
            "unbindable" => Some(Propagation::Unbindable),
            _ => None,
        };
        let recursive = text.strip_prefix('r').unwrap_or_default();
        match text {
            "bind" => self.bind = Some(self.bind.unwrap_or(false)),
            "rbind" => self.bind = Some(true),
            _ if IDLE.contains(&text) => {}
            "idmap" | "ridmap" | "remount" | "mand" => {
                return refuse(format!("mount option {text:?} is not supported"));
            }
            _ => match (attribute(text), spread(text), attribute(recursive), spread(recursive)) {
                (Some((set, flag)), ..) => set_flag(set, flag, &mut self.set, &mut self.clear),
                (_, Some(kind), ..) => self.propagation.push((kind, false)),
                (.., Some((set, flag)), _) => set_flag(set, flag, &mut self.set_recursive, &mut self.clear_recursive),
                (.., Some(kind)) => self.propagation.push((kind, true)),
                _ => {
                    let (key, value) = text.split_once('=').unwrap_or((text, ""));
                    self.data.push((key.to_owned(), value.to_owned()));
                }
            },
        }
        Ok(())
    }

    pub fn is_read_only(&self) -> bool {
        self.set & Attributes::MOUNT_ATTR_RDONLY.bits() != 0
    }

    /// Applies what a cloned mount or a new one needs after it was made.
    fn finish(&self, tree: &Tree, new: bool) -> pintle_linux::Result<()> {
        let flags = Attributes::from_bits_retain;
        if !new && (self.set | self.clear) != 0 {
            tree.change(flags(self.set), flags(self.clear), false)?;
        }
        if self.set_recursive | self.clear_recursive != 0 {
            tree.change(flags(self.set_recursive), flags(self.clear_recursive), true)?;
        }
        for (propagation, recursive) in &self.propagation {
            tree.propagate(*propagation, *recursive)?;
        }
        Ok(())
    }

    fn new_tree(&self, kind: &str, mode: Option<u32>) -> pintle_linux::Result<Tree> {
        let mode = mode.map(|mode| format!("{mode:o}"));
        let mut data: Vec<(&str, &str)> = self.data.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        if let Some(mode) = mode.as_deref().filter(|_| kind == "tmpfs" && !data.iter().any(|(key, _)| *key == "mode")) {
            data.push(("mode", mode));
        }
        let tree = Tree::of_filesystem(kind, &data, Attributes::from_bits_retain(self.set))?;
        self.finish(&tree, true)?;
        Ok(tree)
    }
}

fn set_flag(set: bool, flag: Flags, to_set: &mut Flags, to_clear: &mut Flags) {
    if set {
        *to_set |= flag;
        *to_clear &= !flag;
    } else {
        *to_clear |= flag;
        *to_set &= !flag;
    }
}

/// A mount that is to be made, its source cloned already when it has one.
pub struct Prepared {
    pub target: PathBuf,
    kind: String,
    options: Options,
    source: Option<Bind>,
}

/// Opens on the host what the container will see, while the host's mounts still are what they are there.
pub fn prepare(config: &Config, bundle: &Path) -> Result<Vec<Prepared>> {
    config.mounts.iter().map(|mount| prepare_one(mount, bundle).map_err(|e| failed(mount, &e))).collect()
}

fn failed(mount: &Mount, error: &Error) -> Error {
    let (source, target) = (mount.source.display(), mount.destination.display());
    Error::new(format!("error mounting {:?} to rootfs at {:?}: {error}", source.to_string(), target.to_string()))
}

fn prepare_one(mount: &Mount, bundle: &Path) -> Result<Prepared> {
    let options = Options::parse(&mount.options)?;
    let (target, kind) = (mount.destination.clone(), mount.kind.clone());
    let Some(recursive) = options.bind.or((kind == "bind").then_some(false)) else {
        return Ok(Prepared { target, kind, options, source: None });
    };
    let path = bundle.join(&mount.source);
    let source = rustix::fs::open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .context(|| format!("open {}", path.display()))?;
    let status = rustix::fs::fstat(&source).context(|| format!("stat {}", path.display()))?;
    let tree = Tree::clone_of(source.as_fd(), recursive)?;
    options.finish(&tree, false)?;
    let directory = FileType::from_raw_mode(status.st_mode) == FileType::Directory;
    let source = Some(Bind { tree, target: target.clone(), directory });
    Ok(Prepared { target, kind, options, source })
}

/// Filesystems that others need afterwards.
#[derive(Default)]
pub struct Mounted {
    pub proc: Option<Tree>,
    pub sys: Option<Tree>,
    pub devpts: Option<Tree>,
    /// /dev is the caller's: nothing is made in it.
    pub dev_is_bound: bool,
}

/// Attaches all mounts in their order.
pub fn attach(mounts: Vec<Prepared>, root: &Root<'_>, cgroup: &str, cgroups: &Cgroups) -> Result<Mounted> {
    let mut mounted = Mounted::default();
    for mount in mounts {
        let target = mount.target.display().to_string();
        attach_one(mount, root, cgroup, cgroups, &mut mounted)
            .map_err(|e| Error::new(format!("error mounting to rootfs at {target:?}: {e}")))?;
    }
    Ok(mounted)
}

fn attach_one(
    mount: Prepared,
    root: &Root<'_>,
    cgroup: &str,
    cgroups: &Cgroups,
    mounted: &mut Mounted,
) -> pintle_linux::Result<()> {
    let at = lexical(&mount.target);
    let is = |path: &str| at == Path::new(path);
    if let Some(source) = mount.source {
        mounted.dev_is_bound |= is("dev");
        return root.bind(&source);
    }
    let text = at.to_string_lossy().into_owned();
    match mount.kind.as_str() {
        "cgroup" | "cgroup2" => root.mount_cgroups(&text, cgroup, !mount.options.is_read_only(), cgroups),
        "proc" => {
            let tree = root.system(&text, mount.options.new_tree("proc", None)?)?;
            mounted.proc = is("proc").then_some(tree).or(mounted.proc.take());
            Ok(())
        }
        "sysfs" => {
            let tree = root.system(&text, mount.options.new_tree("sysfs", None)?)?;
            mounted.sys = is("sys").then_some(tree).or(mounted.sys.take());
            Ok(())
        }
        kind => {
            let target = root.dir().make_dir(&at, 0o755)?;
            let mode = rustix::fs::fstat(&target).context(|| "stat a mount target")?.st_mode & 0o7777;
            let tree = mount.options.new_tree(kind, Some(mode))?;
            tree.attach(target.as_fd())?;
            if kind == "devpts" && is("dev/pts") {
                mounted.devpts = Some(tree);
            }
            Ok(())
        }
    }
}

/// A directory of the new root, or nothing when it is not there.
pub fn directory(root: &Root<'_>, path: &str) -> Option<OwnedFd> {
    root.dir().open(Path::new(path), OFlags::PATH | OFlags::DIRECTORY).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Options {
        Options::parse(&text.split(',').map(str::to_owned).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn options_are_sorted_by_what_they_do() {
        let options = parse("rbind,ro,nosuid,suid,rslave,rro,mode=755,size=65536k,newinstance");
        assert_eq!(options.bind, Some(true));
        assert!(options.is_read_only());
        assert_eq!(options.clear, Attributes::MOUNT_ATTR_NOSUID.bits());
        assert_eq!(options.set_recursive, Attributes::MOUNT_ATTR_RDONLY.bits());
        assert_eq!(options.propagation, [(Propagation::Slave, true)]);
        let data: Vec<&str> = options.data.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(data, ["mode", "size", "newinstance"]);
        assert!(!parse("ro,rw").is_read_only());
        assert!(Options::parse(&["idmap".to_owned()]).is_err());
    }
}
